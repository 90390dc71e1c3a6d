"""The state of a detector and of its training as arrays under flat names, "backbone/stem/kernel".

So a stored model outlives the way in which modules nest, and one of another architecture is reported name by name.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from fsis_jax.checkpoints.differences import Shaped, differences
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.errors import FsisError

Arrays = dict[str, jax.Array]


def flat_arrays(part: nnx.State) -> Arrays:
    """The arrays of a state, or their shapes and types if it has no more."""
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(part)}


def filled(part: nnx.State, arrays: Mapping[str, Any]) -> nnx.State:
    """`part` with the arrays of its names in the place of its own."""
    flat = nnx.to_flat_state(part)
    return nnx.from_flat_state([(path, variable.replace(arrays["/".join(map(str, path))])) for path, variable in flat])


def flat_model(state: TrainState) -> Arrays:
    """All arrays of the detector that is trained."""
    return flat_arrays(state.params) | flat_arrays(state.statistics) | flat_arrays(state.frozen)


def with_model(state: TrainState, arrays: Arrays) -> TrainState:
    """`state` with these arrays of the detector."""
    return dataclasses.replace(
        state,
        params=filled(state.params, arrays),
        statistics=filled(state.statistics, arrays),
        frozen=filled(state.frozen, arrays),
    )


def flat_optimizer(state: TrainState) -> Arrays:
    """The arrays of the optimiser by their place in it, and "step"."""
    leaves = jax.tree_util.tree_leaves_with_path(state.optimizer)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves} | {"step": state.step}


def with_optimizer(state: TrainState, arrays: Arrays) -> TrainState:
    """`state` with these arrays of the optimiser."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.optimizer)]
    optimizer = jax.tree.unflatten(jax.tree.structure(state.optimizer), [arrays[path] for path in paths])
    return dataclasses.replace(state, step=arrays["step"], optimizer=optimizer)


def check_same(wanted: Mapping[str, Shaped], stored: Mapping[str, Shaped], path: os.PathLike[str]) -> None:
    """Raise FsisError if what is stored at `path` has other names or shapes."""
    found = differences(wanted, stored)
    if found:
        raise FsisError(
            f"{os.fspath(path)}: a checkpoint of another architecture: {found}; use the config that it was trained "
            "with, or another folder for the run"
        )
