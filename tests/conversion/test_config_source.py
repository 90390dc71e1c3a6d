"""Config files that are written: what is read back is what went in."""

import pathlib
import runpy
import subprocess
import sys

import pytest

from fsis_jax.conversion.detectron.config_source import config_source

PROJECT = pathlib.Path(__file__).resolve().parents[2] / "pyproject.toml"


@pytest.mark.parametrize(
    "text", ["plain", r"C:\data\new", 'the "best"', "Anna's", 'Anna\'s "best" \\ cells', "tab\tand\nline", "Zürich", ""]
)
def test_texts_are_read_back_as_they_were(tmp_path: pathlib.Path, text: str) -> None:
    path, about = tmp_path / "config.py", f"A detector.\n\nOf {text}, \"and\" '''others'''.\n"
    path.write_text(config_source(about, {"data.root": text, "model.classes": (text, "other")}, []))
    read = runpy.run_path(str(path))
    config = read["get_config"]()
    assert config.data.root == text
    assert config.model.classes == (text, "other")
    assert read["__doc__"].expandtabs() == about.expandtabs()  # from Python 3.13 on the compiler expands them
    command = [sys.executable, "-m", "ruff", "format", "--check", "--diff", "--no-cache", "--config", PROJECT, path]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_docstring_may_hold_its_own_quotes(tmp_path: pathlib.Path) -> None:
    path, about = tmp_path / "config.py", 'Of """three""".\n'
    path.write_text(config_source(about, {"seed": 5}, []))
    assert runpy.run_path(str(path))["__doc__"] == about
