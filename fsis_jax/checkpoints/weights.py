"""Trained detectors, and those in one weights file (`NAME.npz`), which is what one gives away.

A weights file is an uncompressed npz archive of plain arrays under flat names (`flat.py`), those of floating point as
float16, and one JSON text: the config, and the results on the validation images. Reading it runs nothing that is in it,
and takes no more memory than the file's size tells, since nothing is compressed.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.checkpoints.architecture import Architecture, Arrays
from fsis_jax.checkpoints.config_file import config_of, plain_config
from fsis_jax.checkpoints.differences import differences
from fsis_jax.checkpoints.learnt import Learnt, learnt_of
from fsis_jax.config_check import check_config
from fsis_jax.errors import FsisError
from fsis_jax.io.arrays import read_array
from fsis_jax.io.atomic import atomic_write, read_failure
from fsis_jax.io.damage import damage_in

if TYPE_CHECKING:
    from fsis_jax.models.detector import Detector

_logger = logging.getLogger(__name__)

_FORMAT = 1
_META = "meta"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained detector."""

    arrays: Arrays
    """Those of the detector, in its own types."""
    config: ConfigDict
    """That it was trained with."""
    validation: dict[str, float]
    """Results on the validation images, with "min_score"; empty if there are none."""
    learnt: Learnt | None = None
    """What it learnt from; None: not known."""

    @classmethod
    def of(cls, model: "Detector", config: ConfigDict, validation: dict[str, float]) -> "Trained":
        """A detector that was built."""
        from flax import nnx

        from fsis_jax.checkpoints.flat import flat_arrays

        return cls(flat_arrays(nnx.state(model)), config, validation)

    @functools.cached_property
    def model(self) -> "Detector":
        """The detector itself, which takes seconds to build."""
        return Architecture.of(self.config.model).model(self.arrays)


def save_weights(path: pathlib.Path, trained: Trained) -> None:
    """Write a weights file. What the config says of places on this machine is left out.

    Raises:
        FsisError: values beyond the range of float16, or a file that cannot be written.
    """
    config = plain_config(trained.config)
    config["data"]["root"] = config["init_from"] = ""
    learnt = trained.learnt and trained.learnt.plain()
    meta = {"format": _FORMAT, "config": config, "validation": trained.validation, "learnt": learnt}
    arrays: dict[str, Any] = {_META: np.array(json.dumps(meta))}
    for name, value in trained.arrays.items():
        with np.errstate(over="ignore"):
            arrays[name] = np.asarray(value).astype(_stored_type(value.dtype))
        if not np.isfinite(arrays[name]).all():
            limit = np.finfo(np.float16).max
            raise FsisError(f"{path}: {name} has values that are not finite or above {limit}: keep the run's folder")
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def load_weights(path: pathlib.Path) -> Trained:
    """Read what `save_weights` wrote; the arrays have the types of the model again.

    Raises:
        FsisError: no such file, another kind of file, a damaged one, or arrays that do not fit its config.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise read_failure(path, error, "weights") from error
    with file, damage_in(str(path), "no weights file, or a damaged one", "make one with `fsis export`", "weights"):
        meta, stored = _read(zipfile.ZipFile(file), os.fstat(file.fileno()).st_size)
        if meta["format"] != _FORMAT:
            raise FsisError(
                f"{path}: weights of format {meta['format']}, not {_FORMAT}: use the fsis_jax that wrote them"
            )
        config = config_of(meta)
        learnt = learnt_of(meta.get("learnt"))
        validation = {name: float(value) for name, value in meta["validation"].items()}
    # From here on it is JAX that may fail.
    check_config(config, path)
    wanted = Architecture.of(config.model).shapes()
    found = differences(wanted, stored)
    types = [name for name in wanted if name in stored and stored[name].dtype != _stored_type(wanted[name].dtype)]
    if types:
        found += f"{'; ' * bool(found)}{len(types)} of another type ({types[0]} {stored[types[0]].dtype})"
    if found:
        raise FsisError(f"{path}: arrays that do not fit its config: {found}: export the run again")
    # By numpy: JAX would compile a program for each shape.
    arrays = {name: stored[name].astype(like.dtype) for name, like in wanted.items()}
    return Trained(arrays, config, validation, learnt)


def _read(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The meta and the arrays of a file of `size` bytes; a ValueError, or one of zip files, for what is none."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if any(m.compress_type != zipfile.ZIP_STORED for m in members.values()):
        raise ValueError("compressed")
    if sum(member.file_size for member in archive.infolist()) > size:
        raise ValueError("members that overlap, or are cut off")
    meta = json.loads(str(read_array(archive, members.pop(_META))))
    if not (isinstance(meta, dict) and isinstance(meta.get("validation"), dict) and "format" in meta):
        raise ValueError("not the meta of weights")
    if not all(type(value) in (int, float) for value in meta["validation"].values()):
        raise ValueError("results that are no numbers")
    return meta, {name: read_array(archive, member) for name, member in members.items()}


def _stored_type(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float16) if np.issubdtype(dtype, np.floating) else dtype
