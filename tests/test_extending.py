"""The worked example of docs/extending.md works, in a copy of the package."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
COMMAND_TEST = """
from fsis_jax.cli.training import _parsed
from fsis_jax.cli.training_run import changed_config


def test_command() -> None:
    options = _parsed("train", {arguments})
    config = changed_config(options.config, options.changes)
    assert config.model.box_head.kind == "separable"
"""


def _file(name: str) -> str:
    """The first code block after the name of its file."""
    block = re.search(rf"`{re.escape(name)}`.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert block, f"docs/extending.md has no block of {name}"
    return block[1]


def _apply(diff: str, root: pathlib.Path) -> None:
    """Make the changes of a diff block: `--- FILE`, then hunks parted by lines of @@. Each must fit in one place."""
    header, _, body = diff.partition("\n")
    path = root / header.removeprefix("--- ")
    text = path.read_text()
    for hunk in body.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(before) == 1, f"docs/extending.md changes what is not once in {path.name}:\n{before}"
        text = text.replace(before, after)
    path.write_text(text)


def test_a_box_head(tmp_path: pathlib.Path) -> None:
    """Its file, its changes and its tests, among them a step of the whole detector; and the command that trains it."""
    shutil.copytree(ROOT / "fsis_jax", tmp_path / "fsis_jax", ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    tests = tmp_path / "tests" / "models"
    tests.mkdir(parents=True)
    for name in ("pyproject.toml", "configs/quickstart.py", "tests/models/tiny_detector.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    (tmp_path / "fsis_jax/models/separable.py").write_text(_file("separable.py"))
    (tests / "test_separable.py").write_text(_file("test_separable.py"))
    diffs = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)
    assert len(diffs) == 2
    for diff in diffs:
        _apply(diff, tmp_path)
    (command,) = re.findall(r"```sh\npython scripts/train.py (.*?)\n```", PAGE)
    (tests / "test_command.py").write_text(COMMAND_TEST.format(arguments=shlex.split(command)))

    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout
