"""Encoded references: what the network keeps of one to a few example cells, and files of them.

A file (`fsis references ... -o nuclei.refs`) is an npz archive of plain arrays and one JSON text; reading it runs
nothing that is in it. It names the model that encoded it, and serves that model alone.
"""

import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.arrays import read_array
from fsis_jax.io.atomic import atomic_write, read_failure
from fsis_jax.io.damage import damage_in
from fsis_jax.models.detector import Pyramid

REFERENCES_SUFFIX = ".refs"
_FORMAT = 1
_MAX_BYTES = 256 << 20
"""Of all arrays of a file; a hundred references of 320 pixels take 40 MB."""
_MAX_SIDE = 1e6
"""Of cells in pixels, and of pixels in micrometres."""


@dataclasses.dataclass(frozen=True)
class References:
    """k encoded references."""

    features: Pyramid
    """{level: (1, h, w, C)}, the mean over the references."""
    sides: np.ndarray
    """(k, 2) float32, height and width of the cells in pixels; they give the scale at which targets are read."""
    images: np.ndarray
    """(k, S, S, 3) uint8, as the network saw them."""
    pixel_size: float | None = None
    """Micrometres per pixel of `sides`, where it is known."""
    model: str = ""
    """`Segmenter.fingerprint` of the model that encoded them."""

    @functools.cached_property
    def digest(self) -> str:
        """The same for references that give the same results."""
        state = hashlib.sha256(f"{self.model} {self.pixel_size}".encode())
        for level, features in sorted(self.features.items()):
            state.update(f"{level}".encode() + np.asarray(features.astype(jnp.float32)).tobytes())
        state.update(self.sides.tobytes())
        return state.hexdigest()

    def sides_in(self, pixel_size: float | None) -> np.ndarray:
        """(k, 2) `sides` in pixels of an image with `pixel_size`; one that is not known is taken for the other."""
        if pixel_size is None or self.pixel_size is None:
            return self.sides
        return self.sides * np.float32(self.pixel_size / pixel_size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load_references` reads.

        Raises:
            FsisError: the file cannot be written.
        """
        meta = {
            "format": _FORMAT,
            "model": self.model,
            "pixel_size": self.pixel_size,
            "levels": {str(level): str(features.dtype) for level, features in self.features.items()},
        }
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), "sides": self.sides, "images": self.images}
        arrays |= {f"level{level}": np.asarray(x.astype(jnp.float32)) for level, x in self.features.items()}
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)


NO_REFERENCES = References({}, np.zeros((0, 2), np.float32), np.zeros((0, 1, 1, 3), np.uint8))
"""What a closed-set detector is shown."""


def check_encoded(
    references: References | None, names: tuple[str, ...], model: str, like: Callable[[int], Pyramid]
) -> None:
    """Raise FsisError if a model cannot be shown references, or must be.

    Args:
        names: the categories that the model knows; () of one that is shown references.
        model: its `Segmenter.fingerprint`.
        like: the shapes of what the model makes of so many references. A file may say that the model made it and yet
            hold anything.
    """
    given = references is not None and len(references.sides) > 0
    if names and given:
        raise shown_to_closed_set(names)
    if not names and not given:
        raise FsisError("no reference given: this model finds the cells that it is shown; give at least one crop")
    if references is not None and references.model not in ("", model):
        raise FsisError(
            "the references were encoded by another model: encode their crops again with this one, or segment "
            "with that one (--checkpoint)"
        )
    if references is not None and references.model:
        check_shapes(references, like(len(references.images)))


def check_shapes(references: References, like: Pyramid) -> None:
    """Raise FsisError if the features do not have the shapes and types of `like`, those that a model makes."""
    if jax.tree.map(_described, references.features) != jax.tree.map(_described, like):
        raise FsisError("the references are not as this model makes them: encode their crops again")


def _described(array: jax.Array) -> str:
    return f"{array.dtype}{array.shape}"


def shown_to_closed_set(names: tuple[str, ...]) -> FsisError:
    """The error for references that are shown to a model of named categories."""
    known = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
    return FsisError(f"references given, but this model finds categories that it knows ({known}): leave them out")


def load_references(path: str | os.PathLike[str]) -> References:
    """Read what `References.save` wrote.

    Raises:
        FsisError: no such file, another kind of file or a damaged one.
    """
    name = os.fspath(path)
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise FsisError(f"{name}: no such file: make it with `fsis references`") from error
    except OSError as error:
        raise read_failure(path, error, "references") from error
    with file, damage_in(name, "no file of encoded references", "make one with `fsis references`", "references"):
        archive = zipfile.ZipFile(file)
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES >> 20} MiB")
        meta = json.loads(str(read_array(archive, members["meta"])))
        if not isinstance(meta, dict):
            raise ValueError("a text that says something else")
        if meta.get("format") != _FORMAT:
            raise FsisError(f"{name}: references of format {meta.get('format')!r}, not {_FORMAT}: encode them again")
        _check_meta(meta)
        sides, images = read_array(archive, members["sides"]), read_array(archive, members["images"])
        stored = {int(level): read_array(archive, members[f"level{level}"]) for level in meta["levels"]}
        if sides.shape != (len(images), 2) or not len(sides) or images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"sides {sides.shape}, images {images.dtype} {images.shape}")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in (sides, *stored.values())):
            raise ValueError("numbers of another type, or that are not finite")
        if not (sides > 0).all() or sides.max() > _MAX_SIDE:
            raise ValueError(f"cells of {sides.min()} to {sides.max()} pixels")
    # Outside: this starts JAX, whose failures are not the file's.
    features = {int(level): jnp.asarray(stored[int(level)], dtype) for level, dtype in meta["levels"].items()}
    return References(features, sides, images, meta["pixel_size"], meta["model"])


def _check_meta(meta: dict[str, Any]) -> None:
    """Raise a ValueError where a file does not say what it must."""
    levels, size, model = meta.get("levels"), meta.get("pixel_size"), meta.get("model")
    known = isinstance(levels, dict) and set(map(str, levels.values())) <= {"float32", "bfloat16", "float16"}
    if not known or not isinstance(model, str) or not model:
        raise ValueError(f"levels {levels}, model {model!r}")
    if size is not None and not (type(size) in (int, float) and 0 < size < _MAX_SIDE):
        raise ValueError(f"pixel size {size}")
