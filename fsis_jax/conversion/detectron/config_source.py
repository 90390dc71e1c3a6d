"""A config as a Python file like those in configs/: what differs from `base_config`, and nothing else."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from fsis_jax import coco_names

WIDTH = 120
_NAMED = {coco_names.COCO_CLASSES: "COCO_CLASSES", coco_names.PERSON: "PERSON"}
"""Tuples that are imported rather than spelt out -> their names in coco_names.py."""


def config_source(about: str, values: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The text of the file, as `ruff format` would leave it.

    Args:
        about: the docstring.
        values: key such as "model.rpn.samples" -> value; one group for each first part of the keys, in that order.
        notes: a comment, one item each.
    """
    groups: dict[str, list[str]] = {}
    for key, value in values.items():
        section = key.partition(".")[0]
        name = key if section == "model" else f"config.{key}"
        groups.setdefault(section, []).append(_assignment(name, value))
    if "model" in groups:
        groups["model"].insert(0, "model = config.model")
    body = "\n\n".join("\n".join(lines) for lines in groups.values())
    names = sorted(_NAMED[value] for value in values.values() if isinstance(value, tuple) and value in _NAMED)
    imports = ["from ml_collections import ConfigDict\n"]
    imports += [f"from fsis_jax.coco_names import {', '.join(names)}"] if names else []
    imports += ["from fsis_jax.config import base_config"]
    parts = [f"{_docstring(about)}\n", "\n".join(imports)]
    if notes:
        parts.append("\n" + "\n".join(_comment(note) for note in notes))
    function = [
        "def get_config() -> ConfigDict:",
        '    """What differs from fsis_jax/config.py."""',
        "    config = base_config()",
        *textwrap.indent(body, "    ").splitlines(),
        "    return config",
    ]
    return "\n".join(parts) + "\n\n\n" + "\n".join(function) + "\n"


def _assignment(name: str, value: Any) -> str:
    line = f"{name} = {_literal(value)}"
    if len(line) + 4 <= WIDTH or not isinstance(value, tuple):
        return line
    return "\n".join([f"{name} = (", *(f"    {_literal(item)}," for item in value), ")"])


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        if value in _NAMED:
            return _NAMED[value]
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float) and math.isinf(value):
        return 'float("inf")'
    return repr(value)


def _quoted(text: str) -> str:
    """A literal, between double quotes unless there are some in the text."""
    literal = repr(text)
    return literal if '"' in text else f'"{literal[1:-1]}"'


def _docstring(text: str) -> str:
    """A literal of several lines."""
    inner = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{inner}"""'


def _comment(note: str) -> str:
    lines = textwrap.wrap(note, WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines)
