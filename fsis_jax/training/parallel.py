"""The only place that maps the step over devices.

`jax.jit(jax.shard_map(...))` is what `jax.pmap` has been made of since JAX 0.8 and what JAX tells new code to
write; `config.parallel = "pmap"` maps the same per-device step by `jax.pmap` itself. Both see one batch, split
along its first axis, and one state, the same on all devices, be they of one process or of several (`hosts.py`).

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
from fsis_jax.training import hosts
from fsis_jax.training.step import AXIS, StepFunction

Tree = TypeVar("Tree")

_CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""XLA for CPUs orders operations for what could run at once, so that buffers are filled long before they are read. And
in JAX 0.10 it drops optimisation barriers before it fuses and orders operations: what `model.remat` makes again is then
made at once and kept. Neither option changes a number."""
if jax.__version_info__ < (0, 11):
    _CPU_OPTIONS["xla_disable_hlo_passes"] = "cse_barrier_expander"


class DataParallel:
    """A step mapped over devices, and the placement of its state and batches.

    Args:
        step: the per-device step.
        kind: "shard_map" or "pmap".
        batch_size: of all devices together.
        devices: all of all processes by default.
        donate: a step takes the memory of the state that it is given, which is lost.

    Attributes:
        rows: those of a batch that this process makes, for its own devices.

    Raises:
        FsisError: if the batch does not divide among the devices.
    """

    def __init__(
        self,
        step: StepFunction,
        kind: str,
        *,
        batch_size: int,
        devices: Sequence[jax.Device] | None = None,
        donate: bool = True,
    ) -> None:
        self.devices = list(devices or jax.devices())
        self.kind = kind
        if batch_size % len(self.devices):
            raise FsisError(
                f"config.training.batch_size is {batch_size}; it must be a multiple of the {len(self.devices)} devices"
            )
        mesh = jax.make_mesh((len(self.devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))
        share = batch_size // len(self.devices)
        places = [i for i, device in enumerate(mesh.devices) if device.process_index == jax.process_index()]
        self._local_count = len(places)
        self.rows = tuple(row for place in places for row in range(place * share, (place + 1) * share))
        donated = (0,) if donate else ()
        self._any = jax.jit(jnp.any, out_shardings=self._replicated)
        self._asked: jax.Array | bool = False
        if kind == "pmap":
            self.step: StepFunction = jax.pmap(step, axis_name=AXIS, devices=self.devices, donate_argnums=donated)
            return
        mapped = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        options = _CPU_OPTIONS if self.devices[0].platform == "cpu" else None
        self.step = jax.jit(mapped, donate_argnums=donated, compiler_options=options)

    def put_state(self, state: TrainState) -> TrainState:
        """The state on every device; of several processes that of the first."""
        state = hosts.told(state)
        if self.kind == "pmap":
            count = self._local_count
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), state)
        return jax.make_array_from_process_local_data(self._replicated, state)

    def put_batch(self, batch: Batch) -> Batch:
        """This process's rows of a batch, each device its part."""
        if self.kind == "pmap":
            count = self._local_count
            return jax.tree.map(lambda x: np.reshape(x, (count, len(x) // count, *x.shape[1:])), batch)
        return jax.make_array_from_process_local_data(self._sharded, batch)

    def one(self, tree: Tree) -> Tree:
        """One device's copy of a replicated tree (a state or metrics)."""
        return jax.tree.map(lambda x: x[0], tree) if self.kind == "pmap" else tree

    def agreed(self, asked: bool) -> bool:
        """Whether any process asks; call it once a step. All get the same answer.

        Of several processes it tells what they asked when it was called before, so that no step waits for it.
        """
        if jax.process_count() == 1:
            return asked
        flags = jax.make_array_from_process_local_data(self._sharded, np.full(self._local_count, asked))
        before, self._asked = self._asked, self._any(flags)
        return bool(before)
