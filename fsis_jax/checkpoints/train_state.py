"""The state of a training: all that a step reads and changes. A checkpoint keeps it, but for the schedule."""

import dataclasses
from collections.abc import Callable

import jax
import optax
from flax import nnx


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes, and what it reads of the model."""

    step: jax.Array
    """Number of steps taken."""
    params: nnx.State
    """Trainable parameters."""
    statistics: nnx.State
    """Running statistics of batch norms."""
    frozen: nnx.State
    """Parameters and statistics that are never changed."""
    optimizer: optax.OptState
    schedule: Callable[[jax.Array], jax.Array]
    """Update number -> rate, a tree of the config's values: no checkpoint keeps it, so that it can be changed."""
