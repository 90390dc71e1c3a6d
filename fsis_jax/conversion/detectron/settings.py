"""A YAML config of Detectron or Detectron.pytorch as it is read there: what the file gives, over the defaults.

Both read strings such as "(800,)" as Python values. Nothing in a file is run. `Settings` remembers which keys were
asked for, so that those that changed nothing can be named.
"""

import ast
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import yaml

from fsis_jax.conversion.detectron.keys import DEFAULTS, FEW_SHOT, FIXED, IGNORED, RENAMED, SWITCHES, Value
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import open_file, read_failure

Choice = TypeVar("Choice")


class YamlSettings:
    """Values of keys such as "TRAIN.SCALES".

    Args:
        path: of the file, for messages.
        given: key -> value of the file.
    """

    def __init__(self, path: pathlib.Path, given: Mapping[str, Any]) -> None:
        self.path = path
        self.given = dict(given)
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        """The file's value, or Detectron's default."""
        self._read.add(key)
        return self.given.get(key, DEFAULTS[key])

    def __contains__(self, key: str) -> bool:
        return key in self.given

    def choose(self, key: str, choices: Mapping[Any, Choice]) -> Choice:
        """What the key's value stands for.

        Raises:
            FsisError: it is none of `choices`.
        """
        value = self[key]
        if value not in choices:
            raise self.error(key, f"use one of: {', '.join(str(choice) for choice in choices)}")
        return choices[value]

    def require(self, key: str, value: Value, why: str = "the only one that models here have") -> None:
        """Raise FsisError unless the key has this value."""
        if not _same(self[key], value):
            raise self.error(key, f"use {value!r}, {why}")

    def require_fixed(self, *starts: str) -> None:
        """Check all keys of FIXED that begin so, and go on with a name alone."""
        for key, value in FIXED.items():
            if key.rpartition(".")[0] in starts:
                self.require(key, value)

    def error(self, key: str, remedy: str) -> FsisError:
        """That the value is not possible, and what is."""
        default = "" if key in self.given else " (Detectron's default)"
        return FsisError(f"{self.path}: {key} is {self[key]!r}{default}; {remedy}")

    def without_effect(self) -> dict[str, str]:
        """Keys of the file that did not matter, in its order -> why."""
        return {key: self._why(key) for key in self.given if key in IGNORED or key not in self._read}

    def _why(self, key: str) -> str:
        if key in IGNORED:
            return IGNORED[key]
        for start, switch in SWITCHES.items():
            if key.startswith(start) and not self[switch]:
                return f"{switch} is False"
        return "of no effect with the file's other values"


def read_settings(path: pathlib.Path) -> YamlSettings:
    """The keys of a YAML file.

    Raises:
        FsisError: not such a file; a key that neither project knows; a value of another type than the key's default.
    """
    try:
        with open_file(path) as file:
            content = yaml.safe_load(file.read().decode())
    except OSError as error:
        raise read_failure(path, error, "YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError of dates and numbers too
        raise FsisError(
            f"{path}: no plain YAML ({' '.join(str(error).split())}); give a config of Detectron"
        ) from error
    if not isinstance(content, dict):
        raise FsisError(f"{path}: holds no keys; give a config of Detectron, such as e2e_mask_rcnn_R-50-FPN_1x.yaml")
    given: dict[str, Any] = {}
    for name, value in _flatten(content, "", path):
        key = RENAMED.get(name, name)
        if key in given:
            raise FsisError(f"{path}: {name} and its other name {key} are both given; keep one of them")
        given[key] = value if key in IGNORED else _checked(key, value, path, renamed=key != name)
    return YamlSettings(path, given)


def _flatten(content: dict[Any, Any], start: str, path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    known = (*DEFAULTS, *IGNORED, *RENAMED)
    for name, value in content.items():
        key = f"{start}{name}"
        if key in FEW_SHOT:
            raise FsisError(
                f"{path}: {key} is of CA_FSIS_Cell's few-shot models, not of Detectron; start from "
                "configs/fis_cell.py or configs/fis_cell_c4.py, which are those recipes"
            )
        if any(other.startswith(f"{key}.") for other in known):
            if not isinstance(value, dict):
                raise FsisError(f"{path}: {key} is {value!r}; it is a section, give its keys")
            yield from _flatten(value, f"{key}.", path)
        elif key in known:
            yield key, value
        else:
            raise FsisError(
                f"{path}: neither Detectron nor Detectron.pytorch has a key {key!r} (it is {value!r}); correct its "
                "spelling or take it out"
            )


def _checked(key: str, value: Any, path: pathlib.Path, *, renamed: bool) -> Value:
    """`value` in the type of the key's default."""
    default = DEFAULTS[key]
    decoded = _decoded(value)
    if renamed and isinstance(decoded, tuple) and len(decoded) == 1:
        decoded = decoded[0]  # TEST.SCALES was a tuple of one
    wanted = type(default)
    if wanted is str:
        decoded = str(value)
    elif wanted is float and type(decoded) is int and abs(decoded) <= sys.float_info.max:
        decoded = float(decoded)
    elif wanted is int and type(decoded) is float and decoded.is_integer():
        decoded = int(decoded)
    numbers = decoded if isinstance(decoded, tuple) else (decoded,)
    sound = wanted is str or all(
        type(number) in ((bool,) if wanted is bool else (int, float)) and abs(number) <= sys.float_info.max
        for number in numbers
    )
    if type(decoded) is not wanted or not sound:
        kind = {bool: "True or False", int: "a whole number", float: "a number", tuple: "numbers: (1, 2)"}[wanted]
        raise FsisError(f"{path}: {key} is {value!r}; give {kind}")
    return decoded


def _decoded(value: Any) -> Any:
    """Strings as the Python values that they spell; lists as tuples."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return tuple(value) if isinstance(value, list) else value


def _same(value: Any, other: Any) -> bool:
    """Equal; numbers but for rounding in the file."""
    if type(value) is float or type(other) is float:
        return math.isclose(value, other, rel_tol=2e-3)
    return bool(value == other)
