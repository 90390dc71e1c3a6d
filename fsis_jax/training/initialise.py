"""Where a training starts from: the model of a weights file, or of another run."""

import contextlib
import logging
import operator
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fsis_jax.checkpoints.config_file import config_of
from fsis_jax.checkpoints.flat import check_same, flat_model, with_model
from fsis_jax.checkpoints.learnt import NOTHING, UNKNOWN, Learnt, learnt_of
from fsis_jax.checkpoints.runs import Checkpoints, open_run
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.checkpoints.weights import load_weights
from fsis_jax.io.atomic import user_path
from fsis_jax.pretrained import find_weights

_logger = logging.getLogger(__name__)

_SILENT = ("backbone.stride_in_1x1", "backbone.padded_pool", "image_mean")
"""Keys of config.model that change what its weights mean, but neither their names nor shapes."""
_RES5 = "backbone/stages/3/"
_RES5_OF_HEADS = ("box_head/embedding/blocks/", "mask_head/trunk/blocks/")
"""The last stage in a whole backbone, and where the architecture "c4" has it, once or twice."""


def initialise_from(source: str | os.PathLike[str], state: TrainState, config: ConfigDict) -> tuple[TrainState, Learnt]:
    """`state` with the model of a weights file or of another run, for fine-tuning, and what that has learnt from.

    Warns where `config` reads the weights of the backbone in another way than they were made for.

    Args:
        source: as for `find_weights`. Of a partial checkpoint what is there: at least the backbone, with all
            statistics of its norms. Its last stage also starts the heads of the architecture "c4", and learned offsets
            stay as they are in `state`. Of a detector of other classes, or without references where `config` has
            them, the backbone too, and of the rest what has the same name and shape.

    Raises:
        FsisError: there is no such source, or it is of another architecture.
    """
    file = find_weights(source)
    if file is not None:
        trained = load_weights(file)
        arrays = {name: jnp.asarray(value) for name, value in trained.arrays.items()}
        check_same(flat_model(state), arrays, file)
        _warn_of_silent_keys(file, trained.config, config)
        return with_model(state, arrays), trained.learnt or UNKNOWN
    path = user_path(os.fspath(source))
    checkpoints, step = open_run(path)
    with contextlib.closing(checkpoints):
        meta = checkpoints.meta(step)
        _warn_of_silent_keys(path, config_of(meta), config)
        learnt = NOTHING if meta.get("partial") else learnt_of(meta.get("learnt")) or UNKNOWN
        other_classes = config_of(meta).model.classes != config.model.classes
        return _with_run(checkpoints, step, state, other_classes=other_classes), learnt


def _with_run(checkpoints: Checkpoints, step: int, state: TrainState, *, other_classes: bool) -> TrainState:
    stored, wanted = checkpoints.arrays(step, "model"), flat_model(state)
    if other_classes:
        stored = _of_like_shape(stored, wanted)
    found = {name: name for name in wanted}
    needed: Mapping[str, Any] = wanted
    if other_classes or checkpoints.meta(step).get("partial", False):
        found = {name: _stored_name(name, stored) for name in wanted}
        needed = {
            source: wanted[name]
            for name, source in found.items()
            if source in stored or (source.startswith("backbone/") and "/offsets" not in source)
        }
    check_same(needed, stored, checkpoints.folder / str(step) / "model")
    taken = {name: jnp.asarray(stored[source]) for name, source in found.items() if source in stored}
    return with_model(state, wanted | taken)


def _of_like_shape(stored: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Those arrays that a model of other classes has too, and all of the backbone; names the others."""
    kept = {
        name: value
        for name, value in stored.items()
        if name.startswith("backbone/") or name not in wanted or wanted[name].shape == value.shape
    }
    fresh = sorted({"/".join(name.split("/")[:2]) for name in wanted if _stored_name(name, kept) not in kept})
    _logger.warning("weights of a detector of other classes: these parts start fresh: %s", ", ".join(fresh))
    return kept


def _stored_name(name: str, stored: Mapping[str, Any]) -> str:
    """The name under which a partial checkpoint has the array `name` of a model."""
    for head in _RES5_OF_HEADS:
        if name.startswith(head) and name not in stored:
            return _RES5 + name.removeprefix(head)
    return name


def _warn_of_silent_keys(path: pathlib.Path, made: ConfigDict, config: ConfigDict) -> None:
    for key in _SILENT:
        theirs, ours = (operator.attrgetter(key)(of) for of in (made.model, config.model))
        if theirs != ours:
            _logger.warning(
                "config.model.%s is %s, but the weights of %s are made for %s; consider --config.model.%s=%s",
                *(key, ours, path, theirs, key, str(theirs).replace(" ", "")),
            )
