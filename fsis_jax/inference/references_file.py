"""Reading the files of `References.save`: arrays and a JSON text that a stranger may have written, all checked."""

import json
import os
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.references import FORMAT, References, check_kind_names
from fsis_jax.inference.traits import TRAITS
from fsis_jax.io.arrays import read_array
from fsis_jax.io.atomic import open_file, read_failure
from fsis_jax.io.damage import damage_in

_FORMATS = (1, FORMAT)
"""Files of the first have one kind without a name."""
_MAX_BYTES = 256 << 20
"""Of all arrays of a file; a hundred references of 320 pixels take 40 MB."""
_MAX_SIDE = 1e6
"""Of cells in pixels, and of pixels in micrometres."""
_MAX_KINDS = 100


def load_references(path: str | os.PathLike[str]) -> References:
    """Read what `References.save` wrote.

    Raises:
        FsisError: no such file, another kind of file or a damaged one.
    """
    name = os.fspath(path)
    try:
        file = open_file(path)
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
        if meta.get("format") not in _FORMATS:
            raise FsisError(f"{name}: references of format {meta.get('format')!r}, not {FORMAT}: encode them again")
        _check_meta(meta)
        kinds, unwanted = tuple(meta.get("kinds", ())), tuple(meta.get("unwanted", ()))
        sides, images = read_array(archive, members["sides"]), read_array(archive, members["images"])
        stored = {int(level): read_array(archive, members[f"level{level}"]) for level in meta["levels"]}
        if sides.shape != (len(images), 2) or not len(sides) or images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"sides {sides.shape}, images {images.dtype} {images.shape}")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in (sides, *stored.values())):
            raise ValueError("numbers of another type, or that are not finite")
        if not (sides > 0).all() or sides.max() > _MAX_SIDE:
            raise ValueError(f"cells of {sides.min()} to {sides.max()} pixels")
        owners, rows = np.zeros(len(sides), np.int32), np.zeros(0, np.int32)
        traits = np.zeros((0, len(TRAITS)), np.float32)
        if meta["format"] == FORMAT:
            owners, traits, rows = (read_array(archive, members[key]) for key in ("owners", "traits", "trait_kinds"))
            _check_kinds(kinds, unwanted, owners, traits, rows, len(sides))
        if any(len(x) != max(len(kinds), 1) for x in stored.values()):
            raise ValueError(f"features of other than {len(kinds)} kinds")
    features = {int(level): stored[int(level)].astype(jnp.dtype(dtype)) for level, dtype in meta["levels"].items()}
    return References(features, sides, images, meta["pixel_size"], meta["model"], kinds, unwanted, owners, traits, rows)


def _check_kinds(
    kinds: tuple[str, ...],
    unwanted: tuple[str, ...],
    owners: np.ndarray,
    traits: np.ndarray,
    rows: np.ndarray,
    count: int,
) -> None:
    """Raise a ValueError where what a file says of its kinds does not agree, an FsisError for names of kinds."""
    most = max(len(kinds), 1)
    if len(kinds) > _MAX_KINDS or not {*unwanted} < {*kinds, ""}:
        raise ValueError(f"{len(kinds)} kinds, unwanted {unwanted}")
    if owners.dtype != np.int32 or owners.shape != (count,) or {*owners.tolist()} != {*range(most)}:
        raise ValueError(f"owners {owners.dtype} {owners.shape}")
    if traits.dtype != np.float32 or traits.shape != (len(rows), len(TRAITS)) or np.isinf(traits).any():
        raise ValueError(f"traits {traits.dtype} {traits.shape}")
    if rows.dtype != np.int32 or rows.ndim != 1 or ((rows < 0) | (rows > most)).any():
        raise ValueError(f"kinds of traits {rows.dtype} {rows.shape}")
    check_kind_names(kinds)


def _check_meta(meta: dict[str, Any]) -> None:
    """Raise a ValueError where a file does not say what it must."""
    levels, size, model = meta.get("levels"), meta.get("pixel_size"), meta.get("model")
    for key in ("kinds", "unwanted"):
        names = meta.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key} {names}")
    known = isinstance(levels, dict) and set(map(str, levels.values())) <= {"float32", "bfloat16", "float16"}
    if not known or not isinstance(model, str) or not model:
        raise ValueError(f"levels {levels}, model {model!r}")
    if size is not None and not (type(size) in (int, float) and 0 < size < _MAX_SIDE):
        raise ValueError(f"pixel size {size}")
