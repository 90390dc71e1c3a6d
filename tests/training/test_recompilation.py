"""Nothing compiles after warm-up, over two epochs of images of mixed sizes, nor again for a longer run."""

import re

import jax
from flax import nnx
from tiny import get_config as tiny_config
from toy import ToyDetector, toy  # noqa: F401 (a fixture)

from fsis_jax.data.from_config import open_splits, training_batches
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.step import new_state


def test_a_run_compiles_its_step_once_and_nothing_after_the_first_validation(tiny_run):
    before, marker, after = tiny_run.stderr.partition("step 3: validation")
    compiled = re.findall(r"Finished XLA compilation of (\S+)", before)
    assert marker
    assert compiled.count("jit(step)") == 1
    assert compiled.count("jit(find)") <= 2  # of two canvases; another test may have left them
    assert "step 12: validation" in after
    # Reading another canvas for the first time may come later, the step never.
    assert set(re.findall(r"Compiling (\S+)", after)) == set(), after


def test_a_longer_run_at_another_rate_is_the_same_program(toy, tiny_data):  # noqa: F811
    def program(**changes):
        config = tiny_config()
        config.update_from_flattened_dict({"data.root": str(tiny_data), "training.batch_size": 1, **changes})
        splits = open_splits(config)
        _, state, step = new_state(config, ToyDetector(config.model, rngs=nnx.Rngs(0)))
        parallel = DataParallel(step, config.parallel, batch_size=1, devices=jax.devices()[:1])
        with training_batches(config, splits, 1) as batches:
            return parallel.step.lower(state, next(batches)).as_text()

    short = program()
    longer = {"training.steps": 90, "optimizer.learning_rate": 0.5, "optimizer.warmup_steps": 7}
    assert program(**longer) == short
    assert program(**longer, **{"optimizer.weight_decay": 0.5}) != short
