"""Container, conda recipe, Nextflow module and Galaxy tool say what pyproject.toml and the command line say."""

import pathlib
import re
import shlex
import subprocess
import tomllib
import xml.etree.ElementTree as ET

import pytest
import yaml
from command_line import PARSERS

import fsis_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {
    "array_record": "array-record",
    "ml-collections": "ml_collections",
    "opencv-python-headless": "opencv",
    "tensorboardX": "tensorboardx",
}
"""Where conda-forge has another name than PyPI."""


def _instructions(text: str) -> list[tuple[str, str]]:
    """Those of a Dockerfile, continued lines joined: ("RUN", "pip install ...")."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


DOCKER = _instructions((ROOT / "Dockerfile").read_text())
RUNS = [rest for name, rest in DOCKER if name == "RUN"]


@pytest.mark.parametrize("command", RUNS)
def test_the_run_lines_of_the_container_are_shell(command):
    subprocess.run(["bash", "-n"], input=command, text=True, check=True)
    assert shlex.split(command)


def test_the_container_installs_extras_that_there_are():
    assert any('"/src[${EXTRAS}]"' in command for command in RUNS)
    asked = re.findall(r"EXTRAS=([\w,]+)", (ROOT / "Dockerfile").read_text())
    assert len(asked) == 2
    assert {extra for extras in asked for extra in extras.split(",")} <= set(PROJECT["optional-dependencies"])


def test_the_container_copies_what_the_build_reads():
    """All that is copied is there and passes .dockerignore, and so does all that pyproject.toml and setup.py name."""
    copied = [rest.split()[:-1] for name, rest in DOCKER if name == "COPY" and not rest.startswith("--from")]
    names = {name for names in copied for name in names}
    assert [name for name in names if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert names == {line[1:] for line in ignored if line.startswith("!")}
    assert {"pyproject.toml", "setup.py", PROJECT["readme"], *PROJECT["license-files"], "fsis_jax", "kernels"} <= names


def test_the_recipe_of_conda_needs_what_pip_needs():
    recipe = yaml.safe_load((PACKAGING / "conda/recipe.yaml").read_text())
    assert recipe["context"]["version"] == fsis_jax.__version__
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["build"]["python"]["entry_points"] == [f"fsis = {PROJECT['scripts']['fsis']}"]
    needed = [re.match(r"([\w-]+)(.*)", line).groups() for line in PROJECT["dependencies"]]
    expected = [f"{CONDA_NAMES.get(name, name)} {bounds}" for name, bounds in needed]
    assert recipe["requirements"]["run"][1:] == expected
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]


def test_the_module_of_nextflow_is_whole():
    folder = PACKAGING / "nf-core/fsis/segment"
    script = (folder / "main.nf").read_text()
    meta = yaml.safe_load((folder / "meta.yml").read_text())
    assert set(re.findall(r"emit: (\w+)", script)) == set(meta["output"])
    for channel, outputs in meta["output"].items():
        patterns = [
            name for entry in outputs for part in (entry if isinstance(entry, list) else [entry]) for name in part
        ]
        assert all(f'"{pattern}"' in script for pattern in patterns if pattern != "meta"), channel
    environment = yaml.safe_load((folder / "environment.yml").read_text())
    assert environment["dependencies"] == [f"conda-forge::fsis_jax={fsis_jax.__version__}"]
    assert f'container "fsis:{fsis_jax.__version__}"' in script
    command = re.search(r"fsis segment .*?\$\{args\}", script, re.DOTALL)[0]
    _parsed(re.sub(r"\\+\n", " ", command).replace("${args}", ""))


@pytest.mark.parametrize("shown", ["crops", "mask"])
def test_the_tool_of_galaxy_gives_options_that_there_are(shown):
    tool = ET.parse(PACKAGING / "galaxy/fsis_segment.xml").getroot()
    assert tool.find("macros/token").text == fsis_jax.__version__
    chosen, skipping = [], False
    for line in tool.find("command").text.splitlines():
        if "examples.shown" in line:
            skipping = shown != "crops"
        elif line.strip() == "#else":
            skipping = shown == "crops"
        elif line.strip() == "#end if":
            skipping = False
        elif not line.lstrip().startswith("#") and not skipping:
            chosen.append(line)
    text = " ".join(chosen).replace("$min_score", "0.5").replace("$exclude_edges", "--exclude-edges")
    (command,) = (part for part in text.split("&&") if part.strip().startswith("fsis "))
    options = _parsed(command)
    written = re.findall(r"out/image-(\w+)\.", text)
    assert sorted(options.save) == sorted(written)
    for output in tool.findall("outputs/data"):
        assert f"'${output.get('name')}'" in text
    for value in [param.get("value") for param in tool.findall("tests//param")]:
        if value.endswith(".png"):
            assert (PACKAGING / "galaxy/test-data" / value).exists()


def _parsed(command):
    """The options of a command of ours as its parser reads them, or SystemExit."""
    _, name, *arguments = shlex.split(command)
    return PARSERS[name]().parse_args(arguments)
