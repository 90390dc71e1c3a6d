"""Where a training starts from: the model of a weights file, or of another run."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.checkpoints.config_file import config_of
from fsis_jax.checkpoints.flat import check_same, flat_arrays, flat_model, with_model
from fsis_jax.checkpoints.learnt import NOTHING, UNKNOWN, Learnt, learnt_of
from fsis_jax.checkpoints.runs import Checkpoints, open_run
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.checkpoints.weights import find_weights, load_weights
from fsis_jax.io.atomic import user_path

_logger = logging.getLogger(__name__)

_SILENT = ("stride_in_1x1", "padded_pool")
"""Keys of config.model.backbone that change what its weights mean, but neither their names nor shapes."""
_RES5 = "backbone/stages/3/"
_RES5_OF_HEADS = ("box_head/embedding/blocks/", "mask_head/trunk/blocks/")
"""The last stage in a whole backbone, and where the architecture "c4" has it, once or twice."""


def initialise_from(source: str | os.PathLike[str], state: TrainState, config: ConfigDict) -> tuple[TrainState, Learnt]:
    """`state` with the model of a weights file or of another run, for fine-tuning, and what that has learnt from.

    Warns where `config` reads the weights of the backbone in another way than they were made for.

    Args:
        source: as for `find_weights`. Of a partial checkpoint what is there: at least the backbone, with all
            statistics of its norms. Its last stage also starts the heads of the architecture "c4", and learned offsets
            stay as they are in `state`.

    Raises:
        FsisError: there is no such source, or it is of another architecture.
    """
    file = find_weights(source)
    if file is not None:
        trained = load_weights(file)
        arrays = flat_arrays(nnx.state(trained.model))
        check_same(flat_model(state), arrays, file)
        _warn_of_silent_keys(file, trained.config, config)
        return with_model(state, arrays), trained.learnt or UNKNOWN
    path = user_path(os.fspath(source))
    checkpoints, step = open_run(path)
    with contextlib.closing(checkpoints):
        meta = checkpoints.meta(step)
        _warn_of_silent_keys(path, config_of(meta), config)
        learnt = NOTHING if meta.get("partial") else learnt_of(meta.get("learnt")) or UNKNOWN
        return _with_run(checkpoints, step, state), learnt


def _with_run(checkpoints: Checkpoints, step: int, state: TrainState) -> TrainState:
    stored, wanted = checkpoints.arrays(step, "model"), flat_model(state)
    found = {name: name for name in wanted}
    needed: Mapping[str, Any] = wanted
    if checkpoints.meta(step).get("partial", False):
        found = {name: _stored_name(name, stored) for name in wanted}
        needed = {
            source: wanted[name]
            for name, source in found.items()
            if source in stored or (source.startswith("backbone/") and "/offsets" not in source)
        }
    check_same(needed, stored, checkpoints.folder / str(step) / "model")
    taken = {name: jnp.asarray(stored[source]) for name, source in found.items() if source in stored}
    return with_model(state, wanted | taken)


def _stored_name(name: str, stored: Mapping[str, Any]) -> str:
    """The name under which a partial checkpoint has the array `name` of a model."""
    for head in _RES5_OF_HEADS:
        if name.startswith(head) and name not in stored:
            return _RES5 + name.removeprefix(head)
    return name


def _warn_of_silent_keys(path: pathlib.Path, made: ConfigDict, config: ConfigDict) -> None:
    theirs, ours = made.model.backbone, config.model.backbone
    for key in _SILENT:
        if theirs[key] != ours[key]:
            _logger.warning(
                "config.model.backbone.%s is %s, but the weights of %s are made for %s; consider "
                "--config.model.backbone.%s=%s",
                *(key, ours[key], path, theirs[key], key, theirs[key]),
            )
