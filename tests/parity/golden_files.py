"""Golden vectors of the PyTorch project: files of arrays or JSON in a folder, some of which may be left out.

What a test asks for and the folder lacks skips the test, with a reason that names it.

A folder may hold a file `aliases.json`, {file: {key: [other file, key, shape]}}, of arrays that are the leading part of
one stored elsewhere; the copy in tests/golden saves a third of its size that way.
"""

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

VARIANTS = ("V1_fpn_full", "V2_c4_full", "V3_fpn_l1", "V4_fpn_norel", "V5_fpn_deform")
"""Folders of the networks."""


class Vectors(Mapping[str, np.ndarray]):
    """Arrays of one .npz file by name, read when asked for. An absent name skips the test; `in` tells before."""

    def __init__(self, golden: pathlib.Path, file: str) -> None:
        self._golden = golden
        self._file = file
        self._stored = _open(golden / file)
        self._aliases: dict[str, tuple[str, str, list[int]]] = _aliases(golden).get(file, {})

    def __getitem__(self, key: str) -> np.ndarray:
        if key in self._aliases:
            file, name, shape = self._aliases[key]
            return _open(self._golden / file)[name][tuple(map(slice, shape))]
        if key not in self._stored:
            pytest.skip(f"the golden folder has no {key} in {self._file}")
        return self._stored[key]

    def __contains__(self, key: object) -> bool:
        return key in self._aliases or key in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter([*self._stored.files, *self._aliases])

    def __len__(self) -> int:
        return len(self._stored.files) + len(self._aliases)

    def starting(self, prefix: str) -> list[str]:
        """The names that begin with `prefix`; skips the test if there is none."""
        names = [name for name in self if name.startswith(prefix)]
        if not names:
            pytest.skip(f"the golden folder has no {prefix}* in {self._file}")
        return names


def load(golden: pathlib.Path, *parts: str) -> Vectors:
    """The arrays of a file, e.g. `load(golden, "V1_fpn_full", "infer.npz")`."""
    return Vectors(golden, existing(golden, *parts).relative_to(golden).as_posix())


def load_json(golden: pathlib.Path, *parts: str) -> Any:
    """The content of a JSON file."""
    return json.loads(existing(golden, *parts).read_text())


def existing(golden: pathlib.Path, *parts: str) -> pathlib.Path:
    """The path of a file or folder."""
    path = golden.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the golden folder has no {'/'.join(parts)}")
    return path


@functools.cache
def _open(path: pathlib.Path) -> np.lib.npyio.NpzFile:
    return np.load(path)


@functools.cache
def _aliases(golden: pathlib.Path) -> dict[str, Any]:
    path = golden / "aliases.json"
    return json.loads(path.read_text()) if path.exists() else {}
