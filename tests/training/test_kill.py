"""`kill -9` during training, then the same command again."""

import json
import signal
import time

import numpy as np
import orbax.checkpoint as ocp
from scripts_of_tests import script

from fsis_jax.checkpoints.runs import open_run


def _arrays(workdir):
    """The last step, and every array of its checkpoint."""
    checkpoints, _ = open_run(workdir)
    checkpoints.close()
    step = checkpoints.steps()[-1]
    with ocp.StandardCheckpointer() as reader:
        stored = {item: reader.restore(checkpoints.folder / str(step) / item) for item in ("model", "optimizer")}
    return step, {f"{item}/{name}": np.asarray(x) for item, arrays in stored.items() for name, x in arrays.items()}


def test_a_killed_run_ends_bit_for_bit_like_one_that_was_not(tiny_run, tmp_path):
    arguments = ("train.py", "--workdir", tmp_path / "run", f"--config.data.root={tiny_run.data}")
    process = script(*arguments)
    checkpoints = tmp_path / "run" / "checkpoints"
    while not (checkpoints / "3").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    time.sleep(float(np.random.default_rng().uniform(0, 0.3)))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    process.communicate()
    complete = [int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()]
    assert max(complete) < 12

    process = script(*arguments)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"going on from step {max(complete)} of" in stderr
    step, killed = _arrays(tmp_path / "run")
    whole_step, whole = _arrays(tiny_run.workdir)
    assert step == whole_step == 12
    assert killed.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value, err_msg=name)

    def losses(workdir):
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}

    assert losses(tmp_path / "run") == losses(tiny_run.workdir)
    assert sorted(losses(tmp_path / "run")) == list(range(1, 13))
