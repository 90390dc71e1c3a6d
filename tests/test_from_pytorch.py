"""docs/from_pytorch.md: every command of its tables parses, and those that train take a step."""

import pathlib
import re
import shlex

import pytest
from command_line import PARSERS
from toy import toy  # noqa: F401 (a fixture)

from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.cli.training import train
from fsis_jax.cli.training_run import changed_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/from_pytorch.md"
ROWS = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (?!---|there)", line)]


def _commands(row):
    """The environment, the command and its arguments of each command in a row."""
    found = []
    for text in re.findall(r"`((?:[A-Z_]+=\S+ )?fsis [^`]+)`", row):
        words = shlex.split(text)
        environment = dict([words.pop(0).split("=", 1)]) if words[0] != "fsis" else {}
        found.append((environment, words[1], words[2:]))
    return found


COMMANDS = [(row.split("|")[1].strip(), *command) for row in ROWS for command in _commands(row)]
TRAINING = [command for command in COMMANDS if command[2] == "train"]


def test_every_row_has_a_command():
    assert len(ROWS) > 35
    assert [row for row in ROWS if not _commands(row)] == []


@pytest.mark.parametrize(("there", "environment", "command", "arguments"), COMMANDS)
def test_commands_parse(there, environment, command, arguments):
    options, changes = PARSERS[command]().parse_known_args(arguments)
    config = getattr(options, "config", None)
    if config is None or config.startswith("runs/"):
        assert changes == []
    else:
        changed_config(ROOT / config, changes)


@pytest.mark.parametrize(("there", "environment", "command", "arguments"), TRAINING)
def test_those_that_train_take_a_step(
    there,
    environment,
    command,
    arguments,
    tiny_data,
    tmp_path,
    toy,  # noqa: F811
    monkeypatch,
    caplog,
):
    """With the toy for a detector, on the tiny data, two steps long."""
    caplog.set_level("INFO")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options, changes = PARSERS[command]().parse_known_args(arguments)
    said = {change.partition("=")[0]: change.partition("=")[2] for change in changes}
    own = {"data.root": tiny_data, "training.steps": 2, "training.batch_size": 1, "optimizer.warmup_steps": 0}
    own |= {"model.backbone.depth": 50}  # what needs one that the tiny config has not; the toy has none
    values = {f"--config.{name}": value for name, value in own.items()}
    values |= said | {f"--config.{name}": own[name] for name in ("data.root", "training.steps")}
    if "--config.data.workers" in said:
        values["--config.data.workers"] = 1
    shared = ["--config", str(ROOT / "tests/tiny.py"), *(f"{name}={value}" for name, value in values.items())]
    if "--config.init_from" in said:
        train([*(word for word in shared if "init_from" not in word), "--workdir", str(tmp_path / "start")])
        shared = [f"--config.init_from={tmp_path / 'start'}" if "init_from" in word else word for word in shared]
    workdir = tmp_path / ("run-debug" if "--config.debug" in said else "run")
    shared += ["--workdir", str(tmp_path / "run")]
    if options.step is not None:
        train([*shared, "--config.training.checkpoint_every=1"])
        shared += ["--config.training.checkpoint_every=1", "--step", "1"]
    train(shared)
    if options.step is not None:
        assert "going on from step 1" in caplog.text
    assert (workdir / "metrics.jsonl").read_text().count("loss/total") >= 1
    saved = "--config.training.save" not in said
    assert (workdir / "checkpoints").exists() == saved
    if saved:
        assert Checkpoints(workdir, read_only=True).latest_sound() is not None
