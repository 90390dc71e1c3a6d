"""How a kernel starts: on the GPU by Mosaic GPU, on a CPU by an interpreter, from one and the same body.

A body is `body(block, *inputs, *outputs, *scratch)`: the index of its block (int32, a scalar), then references to whole
arrays. It runs as one Mosaic GPU thread, a group of 128 CUDA threads that hold vectors together, so the length of a
vector must be a multiple of `LANES`. All blocks lie on one axis: the CUDA grid's first, the only one without a limit of
65535. `jax.vmap` adds a second.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from fsis_jax.ops.varying import varying_like

LANES = 128
"""CUDA threads of a Mosaic GPU thread."""


def launch(
    body: Callable[..., None],
    out: jax.ShapeDtypeStruct,
    *,
    blocks: int,
    scratch: Sequence[Any] = (),
    barriers: bool = True,
    interpret: Any = False,
) -> Callable[..., jax.Array]:
    """A function from the inputs to the output.

    Args:
      body: see above.
      out: shape and dtype of the output.
      blocks: at least 1.
      scratch: types of the scratch references, in shared memory.
      barriers: False where no memory is both read and written, which spares a barrier before every store.
      interpret: False compiles; True takes Pallas's own interpreter, which knows no GPU but is quick; the parameters
        of JAX's interpreter of Mosaic GPU kernels (`InterpretGPUParams`, private in JAX 0.10) run that one.
    """
    if interpret is True:

        def numbered(*refs: Any) -> None:
            body(pl.program_id(0), *refs)

        # No good under shard_map with check_vma=True, which the interpreter's own loops do not pass.
        return pl.pallas_call(numbered, out, grid=(blocks,), scratch_shapes=list(scratch), interpret=True)

    def named(*refs: Any) -> None:
        body(lax.axis_index("block"), *refs)

    kernel = plgpu.kernel(
        named,
        out_type=out,
        grid=(blocks,),
        grid_names=("block",),
        scratch_types=list(scratch),
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=not barriers),
        interpret=interpret or None,
        kernel_name=body.__name__,
    )
    # Under shard_map the type of the kernel's result says that it is the same on all devices.
    return lambda *inputs: varying_like(kernel(*inputs), inputs)


def zeros_like(vector: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Zeros of the shape of `vector`, spread over the CUDA threads in the same way, so that a loop may carry them.

    A constant has another layout than a vector read from memory, and a loop must keep the layout. The compiler drops
    the comparison.
    """
    zero = jnp.zeros((), dtype)
    return jnp.where(vector == vector, zero, zero)
