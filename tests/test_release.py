"""What a release says of itself in several places."""

import pathlib
import re
import tomllib

import yaml

import fsis_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == fsis_jax.__version__
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [headings[0][0], headings[1]] == ["Unreleased", (fsis_jax.__version__, str(citation["date-released"]))]


def test_the_workflow_runs_the_sessions_of_the_noxfile():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    asked = workflow["jobs"]["versions"]["strategy"]["matrix"]["session"]
    sessions = []
    for pythons, name in re.findall(r"@nox.session\(python=(.+?)\)\ndef (\w+)\(", (ROOT / "noxfile.py").read_text()):
        versions = re.findall(r"[0-9.]+", pythons)
        sessions += [name] if len(versions) == 1 else [f"{name}-{version}" for version in versions]
    assert asked == sessions
    commands = [step["run"] for step in workflow["jobs"]["checks"]["steps"] if "run" in step]
    readme = (ROOT / "CONTRIBUTING.md").read_text()
    for command in ("ruff check .", "ruff format --check .", "pytest -n 2"):
        assert command in readme
        assert any(command in run for run in commands)
