"""What the documentation names exists: links, files, commands, configuration keys."""

import pathlib
import re

import pytest
from ml_collections import ConfigDict

from fsis_jax.config import base_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "kernels")),
]
SECTIONS = "data|model|optimizer|training|eval"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


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
    keys = re.findall(r"--config\.([a-z_0-9]+(?:\.[a-z_0-9]+)*)", text)
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
