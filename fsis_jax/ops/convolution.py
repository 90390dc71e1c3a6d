"""Convolution of maps with channels last: the plain sum of products, by the form that is fast where it runs.

XLA's own convolution is the form on GPUs and TPUs. On CPUs these have better ones:

- A 1x1 convolution is a matrix product, also in its gradients, of which XLA's kernel gradient is 5 to 10 times slower.
  (This form is as good as any elsewhere, so it is taken everywhere.)
- The gradient of a 3x3 kernel over a large map: XLA builds a matrix of all patches, here it is a sum of matrix products
  over blocks of positions that stay in cache, twice to five times as fast.
- A 3x3 convolution of many channels in float32, and its gradient of x: Winograd's algorithm, see winograd.py.
- An image of three channels is read faster with a fourth of zeros beside them.

Letters: N images, h w map, C channels, O output channels.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fsis_jax.ops.shapes import check_shapes
from fsis_jax.ops.varying import varying_like
from fsis_jax.ops.winograd import TILE, conv3x3_by_chunks

_WINOGRAD_CHANNELS = 256
_WINOGRAD_TILES = 768
"""From so many channels, in and out, and so many tiles of outputs on."""

_BLOCK = 1024
"""Positions that a matrix product of the kernel's gradient sums over: more leave the cache, fewer keep no core busy."""


@functools.partial(jax.jit, static_argnames=("stride", "groups"))
def conv2d(
    x: Float[Array, "N h w C"], kernel: Float[Array, "k k group O"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "N h_out w_out O"]:
    """(N, h, w, C) with a kernel (k, k, C / groups, O) of odd side k: (N, ceil(h / stride), ceil(w / stride), O).

    Padded by k // 2 zeros on every side, as PyTorch's `padding=k // 2`. Both of one dtype. Differentiable once, in
    reverse mode.
    """
    check_shapes("conv2d", x=(x, "N h w C"), kernel=(kernel, f"k k {x.shape[-1] // groups} O"))
    if kernel.shape[:2] == (1, 1) and groups == 1:
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    if _suits_blocks(stride, groups, x, kernel):
        kernel = varying_like(kernel, x)  # the gradients of both forms then have one type
    return _conv(stride, groups, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(stride: int, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    direct = functools.partial(_direct, stride, groups)
    if x.shape[-1] == 3 and groups == 1:

        def with_fourth(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return direct(jnp.pad(x, [(0, 0)] * 3 + [(0, 1)]), jnp.pad(kernel, [(0, 0)] * 2 + [(0, 1), (0, 0)]))

        return jax.lax.platform_dependent(x, kernel, cpu=with_fourth, default=direct)
    if _suits_winograd(stride, groups, x, kernel):
        return jax.lax.platform_dependent(x, kernel, cpu=conv3x3_by_chunks, default=direct)
    return direct(x, kernel)


def _suits_winograd(stride: int, groups: int, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the additions of Winograd's algorithm cost less than the products that it saves."""
    number, height, width, channels = x.shape
    tiles = number * -(-height // TILE) * -(-width // TILE)
    wide = min(channels, kernel.shape[-1]) >= _WINOGRAD_CHANNELS and tiles >= _WINOGRAD_TILES
    return wide and kernel.shape[0] == 3 and (stride, groups) == (1, 1) and x.dtype == jnp.float32


def _suits_blocks(stride: int, groups: int, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the kernel's gradient has more than one block."""
    positions = x.shape[0] * x.shape[1] * x.shape[2]
    return kernel.shape[:2] == (3, 3) and (stride, groups) == (1, 1) and positions >= 2 * _BLOCK


def _direct(stride: int, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _forward(
    stride: int, groups: int, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(stride, groups, x, kernel), (x, kernel)


def _backward(
    stride: int, groups: int, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    direct = functools.partial(_direct, stride, groups)

    if _suits_winograd(stride, groups, x, kernel):
        # It is a convolution too, of the same shape but for the order of the channels.
        of_x = _conv(stride, groups, cotangent, kernel[::-1, ::-1].swapaxes(2, 3))
    else:
        (of_x,) = jax.linear_transpose(lambda x: direct(x, kernel), x)(cotangent)

    def transposed(x: jax.Array, cotangent: jax.Array) -> jax.Array:
        (of_kernel,) = jax.linear_transpose(lambda kernel: direct(x, kernel), kernel)(cotangent)
        return of_kernel

    if _suits_blocks(stride, groups, x, kernel):
        return of_x, jax.lax.platform_dependent(x, cotangent, cpu=_kernel_gradient_3x3, default=transposed)
    return of_x, transposed(x, cotangent)


_conv.defvjp(_forward, _backward)


def _kernel_gradient_3x3(x: Float[Array, "N h w C"], cotangent: Float[Array, "N h w O"]) -> Float[Array, "3 3 C O"]:
    """(3, 3, C, O) from x (N, h, w, C) and the gradient of the output (N, h, w, O): sums are float32.

    Kernel column j pairs column q of the padded x with column q - j of the cotangent. The three shifted cotangents lie
    side by side, so that a block takes three large matrix products, one for each kernel row.
    """
    number, height, width, channels = x.shape
    outputs = cotangent.shape[-1]
    rows = min(max(_BLOCK // width, 1), height)
    images = min(max(_BLOCK // (rows * width), 1), number)
    down, along = -(-height // rows), -(-number // images)
    # Zeros fill up the last blocks; a block reads one row before and one after its own.
    spare = (0, along * images - number), (0, down * rows - height)
    x = jnp.pad(x, [spare[0], (1, 1 + spare[1][1]), (1, 1), (0, 0)])
    cotangent = jnp.pad(cotangent, [*spare, (0, 0), (0, 0)])

    def add(total: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        start = block // down * images, block % down * rows, 0, 0
        seen = jax.lax.dynamic_slice(x, start, (images, rows + 2, width + 2, channels))
        wanted = jax.lax.dynamic_slice(cotangent, start, (images, rows, width, outputs))
        shifted = [jnp.pad(wanted, [(0, 0), (0, 0), (j, 2 - j), (0, 0)]) for j in range(3)]
        # Without the barrier XLA makes the columns again for each of the products.
        columns = jax.lax.optimization_barrier(jnp.concatenate(shifted, -1)).reshape(-1, 3 * outputs)
        sums = [
            jnp.matmul(seen[:, i : i + rows].reshape(-1, channels).T, columns, preferred_element_type=jnp.float32)
            for i in range(3)
        ]
        return total + jnp.stack(sums), None

    zeros = varying_like(jnp.zeros((3, channels, 3 * outputs), jnp.float32), (x, cotangent))
    total, _ = jax.lax.scan(add, zeros, jnp.arange(along * down))
    return total.reshape(3, channels, 3, outputs).transpose(0, 2, 1, 3).astype(x.dtype)
