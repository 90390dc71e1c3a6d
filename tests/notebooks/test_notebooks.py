"""The notebooks run from top to bottom, and what is committed is what came out."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest
from scripts_of_tests import TESTS

ROOT = TESTS.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 1_500_000
"""Bytes of a notebook."""

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _code(path: pathlib.Path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _check_outputs(path: pathlib.Path) -> None:
    code = _code(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {"segment_your_cells", "evaluate_folds", "inside_the_network"}


@notebooks
def test_committed_outputs_are_those_of_one_run(path):
    _check_outputs(path)


@notebooks
def test_committed_notebooks_are_small_and_of_no_machine(path):
    content = json.loads(path.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) >= (4, 5)
    assert path.stat().st_size < LARGEST
    for cell in content["cells"]:
        outputs = [{**output, "data": _without_images(output.get("data", {}))} for output in cell.get("outputs", [])]
        text = json.dumps([cell["source"], cell["metadata"], outputs])
        for place in (ROOT, pathlib.Path.home(), tempfile.gettempdir()):
            assert str(place) not in text
        assert re.findall(r"(?<![\w.:/])/(?:home|root|Users|tmp|usr|opt|work)/", text) == []


@notebooks
def test_links_exist(path):
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def _without_images(data: dict) -> dict:
    return {kind: value for kind, value in data.items() if not kind.startswith("image/")}


@pytest.mark.slow
@notebooks
def test_it_runs_from_top_to_bottom(path, tmp_path):
    """In a process of its own: jupyter's libraries warn of things that are not ours."""
    command = [sys.executable, str(ROOT / "scripts" / "run_notebooks.py"), str(path), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _check_outputs(tmp_path / path.name)
