"""The only place that maps the step over devices.

`jax.jit(jax.shard_map(...))` is what `jax.pmap` has been made of since JAX 0.8 and what JAX tells new code to
write; `config.parallel = "pmap"` maps the same per-device step by `jax.pmap` itself. Both see one batch, split
along its first axis, and one state, the same on all devices.

With `check_vma=False` a psum's transpose is a psum, under shard_map as under pmap; the step is written for that.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fsis_jax.batch import Batch
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.errors import FsisError
from fsis_jax.training.step import AXIS, StepFunction

Tree = TypeVar("Tree")


class DataParallel:
    """A step mapped over devices, and the placement of its state and batches.

    Args:
        step: the per-device step.
        kind: "shard_map" or "pmap".
        batch_size: of all devices together.
        devices: all local ones by default.

    Raises:
        FsisError: if the batch does not divide among the devices.
    """

    def __init__(
        self, step: StepFunction, kind: str, *, batch_size: int, devices: Sequence[jax.Device] | None = None
    ) -> None:
        self.devices = list(devices or jax.local_devices())
        self.kind = kind
        if batch_size % len(self.devices):
            raise FsisError(
                f"config.training.batch_size is {batch_size}; it must be a multiple of the {len(self.devices)} devices"
            )
        if kind == "pmap":
            self.step: StepFunction = jax.pmap(step, axis_name=AXIS, devices=self.devices, donate_argnums=0)
            return
        mesh = jax.make_mesh((len(self.devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))
        mapped = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        self.step = jax.jit(mapped, donate_argnums=0)

    def put_state(self, state: TrainState) -> TrainState:
        """The state on every device."""
        if self.kind == "pmap":
            count = len(self.devices)
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), state)
        return jax.device_put(state, self._replicated)

    def put_batch(self, batch: Batch) -> Batch:
        """A host batch, each device its part."""
        if self.kind == "pmap":
            count = len(self.devices)
            return jax.tree.map(lambda x: np.reshape(x, (count, len(x) // count, *x.shape[1:])), batch)
        return jax.device_put(batch, self._sharded)

    def one(self, tree: Tree) -> Tree:
        """One device's copy of a replicated tree (a state or metrics)."""
        return jax.tree.map(lambda x: x[0], tree) if self.kind == "pmap" else tree
