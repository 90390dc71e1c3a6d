"""What the documentation names exists: links, files, commands, configuration keys."""

import argparse
import importlib
import pathlib
import re
import shlex
from collections.abc import Iterator

import pytest
from command_line import PARSERS, command_line
from ml_collections import ConfigDict

from fsis_jax.config import base_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "kernels")),
]
SECTIONS = "data|model|optimizer|training|eval"
MANUALS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_THERE = [line.split(" | ")[0] for line in (ROOT / "docs/from_pytorch.md").read_text().splitlines() if line[:1] == "|"]
FOREIGN = {"--seen", *re.findall(r"`(--[a-z][\w-]*)", "\n".join(_THERE))}
"""Options of the PyTorch project that parity.md and from_pytorch.md name."""


def _parametrize(pages: list[pathlib.Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


pages, manuals = _parametrize(PAGES), _parametrize(MANUALS)


@pages
def test_relative_links_exist(page: pathlib.Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [link.split("#")[0] for link in links if not re.match(r"https?:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pages
def test_files_named_in_text_exist(page: pathlib.Path) -> None:
    folders = "fsis_jax|configs|scripts|benchmarks|tests|docs"
    named = re.findall(rf"(?<![\w/.])(?:{folders})/[\w/]+\.(?:py|md)\b", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pages
def test_config_keys_exist(page: pathlib.Path) -> None:
    text = page.read_text()
    keys = re.findall(r"--config\.(?!\S+=VALUE)([a-z_0-9]+(?:\.[a-z_0-9]+)*)", text)
    keys += re.findall(rf"`((?:{SECTIONS})\.[a-z_0-9.]+)`", text)
    config = base_config()
    assert [key for key in keys if not _has(config, key)] == []


def _has(config: ConfigDict, key: str) -> bool:
    value = config
    for name in key.split("."):
        if not isinstance(value, ConfigDict) or name not in value:
            return False
        value = value[name]
    return True


def test_every_file_of_the_layout_exists() -> None:
    section = (ROOT / "README.md").read_text().split("## Layout\n")[1].split("```")[1]
    names = [line.split()[0] for line in section.strip().splitlines()]
    assert len(names) > 10
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_package_is_in_the_layout() -> None:
    section = (ROOT / "README.md").read_text().split("## Layout\n")[1].split("```")[1]
    packages = {f"fsis_jax/{path.name}/" for path in (ROOT / "fsis_jax").iterdir() if any(path.glob("*.py"))}
    assert {name for name in packages if name not in section} == set()


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    assert (ROOT / "docs/command_line.md").read_text() == command_line(), "run scripts/make_docs.py"


@manuals
def test_commands_in_code_blocks_parse(page: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")  # for `--part auto/16`
    for command, arguments in _commands(page.read_text()):
        _, changes = PARSERS[command]().parse_known_args(arguments)
        assert [change for change in changes if not change.startswith("--config.")] == [], (command, arguments)


@manuals
def test_options_named_in_text_exist(page: pathlib.Path) -> None:
    parsers = [parser for make in PARSERS.values() for parser in _parsers(make())]
    known = FOREIGN.union(*(parser._option_string_actions for parser in parsers))
    named = re.findall(r"`(--[a-z][a-z-]*)(?![\w.-])", page.read_text())
    assert [option for option in named if option not in known] == []


def test_commands_are_found_in_code_blocks() -> None:
    text = "fsis train x\n```sh\nfsis segment a.png \\\n    --output b  # c\npython scripts/segment.py x\n```\n"
    assert list(_commands(text)) == [("segment", ["a.png", "--output", "b"]), ("segment", ["x"])]


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The command and the arguments of each line of the code blocks that is one of ours, or its script."""
    scripts = {f"scripts/{command}.py": command for command in PARSERS} | {"scripts/convert_weights.py": "convert"}
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            match shlex.split(line, comments=True):
                case ["fsis", command, *arguments] if "[OPTION" not in arguments:  # else a usage line
                    yield command, arguments
                case ["python", script, *arguments] if script in scripts:
                    yield scripts[script], arguments


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _parsers(command)


@pytest.mark.parametrize(("module", "page"), [("fsis_jax", "api.md"), ("fsis_jax.ops", "api_ops.md")])
def test_every_public_name_is_in_the_interface(module: str, page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    public = [name for name in importlib.import_module(module).__all__ if name != "__version__"]
    assert [name for name in public if not re.search(rf"(auto\w+:: |`){name}\b", text)] == []


def test_every_page_is_in_the_site() -> None:
    listed = re.findall(r"^(?:.+ <)?(\w+)>?$", (ROOT / "docs/index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index")
