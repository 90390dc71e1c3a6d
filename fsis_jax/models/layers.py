"""Convolution and normalisation layers that the other modules are built from.

Norms compute in float32 whatever the compute dtype, and take the mask of `extent.Extent`: positions where it is
0 neither enter the statistics nor keep a value.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax import ops

EPSILON = 1e-5

he_normal = jax.nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
small_normal = jax.nn.initializers.normal(0.01)


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), as `jax.nn.relu`, of which only the result is kept for the gradient."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (tangent,) = tangents
    # Without the barrier XLA keeps what the result is made of, too, and through a stage of residual blocks makes each
    # sum again from the convolutions of all blocks before it.
    y = jax.lax.optimization_barrier(relu(*primals))
    return y, jax.lax.select(y > 0, tangent, jnp.zeros_like(tangent))


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    *,
    stride: int = 1,
    use_bias: bool = True,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
    kernel_init: Callable[..., jax.Array] = he_normal,
    groups: int = 1,
    dilation: int = 1,
) -> nnx.Conv:
    """A square convolution padded symmetrically by dilation * (kernel // 2), so that a stride of 1 keeps the size."""
    pad = dilation * (kernel // 2)
    return nnx.Conv(
        channels_in,
        channels_out,
        (kernel, kernel),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=use_bias,
        dtype=dtype,
        rngs=rngs,
        kernel_init=kernel_init,
        feature_group_count=groups,
        kernel_dilation=dilation,
        conv_general_dilated=_convolve if dilation == 1 else jax.lax.conv_general_dilated,
    )


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], *_: object, feature_group_count: int, **__: object
) -> jax.Array:
    """What `nnx.Conv` calls; the padding and the layout are those that `conv` gives it."""
    return ops.conv2d(x, kernel, stride=strides[0], groups=feature_group_count)


@dataclasses.dataclass(frozen=True)
class Training:
    """Given to norms in training: how batch statistics are gathered. Without it they use the running ones."""

    axis_name: str | None = None
    """Devices over which the batch is spread."""
    weights: jax.Array | None = None
    """(B,) how often each row counts; once if None."""


class FrozenStatistic(nnx.Variable):
    """A tensor that comes with pretrained weights and is never trained nor updated."""


class FrozenBatchNorm(nnx.Module):
    """Batch normalisation with fixed statistics and a fixed affine part: y = x * a + b per channel."""

    def __init__(self, channels: int) -> None:
        self.scale = FrozenStatistic(jnp.ones(channels))
        self.bias = FrozenStatistic(jnp.zeros(channels))
        self.mean = FrozenStatistic(jnp.zeros(channels))
        self.var = FrozenStatistic(jnp.ones(channels))

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, training: Training | None = None) -> jax.Array:
        """(B, h, w, C) -> (B, h, w, C), the same in training."""
        scale = self.scale[...] * jax.lax.rsqrt(self.var[...] + EPSILON)
        y = x.astype(jnp.float32) * scale + (self.bias[...] - self.mean[...] * scale)
        return _masked(y.astype(x.dtype), mask)


class UndecayedParam(nnx.Param):
    """A trained tensor that weight decay leaves alone."""


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018) over the masked positions of each image.

    Args:
        channels: C.
        groups: number of groups; the largest divisor of C that does not exceed it is used.
        zero_init: start with scale 0, so that a residual branch starts as nothing.
    """

    def __init__(self, channels: int, *, groups: int = 32, zero_init: bool = False) -> None:
        self.groups = next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)
        self.scale = UndecayedParam(jnp.zeros(channels) if zero_init else jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, training: Training | None = None) -> jax.Array:
        """(B, h, w, C) -> (B, h, w, C), the same in training."""
        batch, height, width, channels = x.shape
        y = _masked(x.astype(jnp.float32), mask)
        positions = height * width if mask is None else mask.astype(jnp.float32).sum((1, 2))  # scalar | (B, 1)
        sums = jnp.stack([y.sum((1, 2)), (y * y).sum((1, 2))])  # (2, B, C)
        sums = sums.reshape(2, batch, self.groups, -1).sum(-1)  # (2, B, groups)
        mean, square = sums / (positions * (channels // self.groups))
        inverse = jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + EPSILON)  # (B, groups)
        repeats = channels // self.groups
        scale = jnp.repeat(inverse, repeats, -1) * self.scale[...]  # (B, C)
        shift = self.bias[...] - jnp.repeat(mean, repeats, -1) * scale
        y = y * scale[:, None, None] + shift[:, None, None]
        return _masked(y.astype(x.dtype), mask)


class BatchStatistic(nnx.Variable):
    """Running statistics of a `BatchNorm`."""


class BatchNorm(nnx.Module):
    """Batch normalisation whose batch statistics run over the masked positions of all images of all devices.

    The running variance is the unbiased one and the momentum 0.1, as in PyTorch.

    Args:
        channels: C.
        zero_init: start with scale 0.
        affine: whether scale and bias are trained; if not, only the statistics change.
    """

    def __init__(self, channels: int, *, zero_init: bool = False, affine: bool = True) -> None:
        kind = nnx.Param if affine else FrozenStatistic
        self.scale = kind(jnp.zeros(channels) if zero_init else jnp.ones(channels))
        self.bias = kind(jnp.zeros(channels))
        self.mean = BatchStatistic(jnp.zeros(channels))
        self.var = BatchStatistic(jnp.ones(channels))

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, training: Training | None = None) -> jax.Array:
        """(B, h, w, C) -> (B, h, w, C); in training, batch statistics are used and the running ones updated."""
        y = _masked(x.astype(jnp.float32), mask)
        if training is None:
            centred, var = y - self.mean[...], self.var[...]
        else:
            centred, var = self._update(y, mask, training)
        y = centred * (jax.lax.rsqrt(var + EPSILON) * self.scale[...]) + self.bias[...]
        return _masked(y.astype(x.dtype), mask)

    def _update(self, y: jax.Array, mask: jax.Array | None, training: Training) -> tuple[jax.Array, jax.Array]:
        """y less the mean of the batch, and its variance (C,); the running ones are moved, too."""
        weights = jnp.ones((*y.shape[:3], 1), jnp.float32) if mask is None else mask.astype(jnp.float32)
        if training.weights is not None:
            weights = weights * training.weights[:, None, None, None]
        axis_name = training.axis_name
        total = device_sum(jnp.append((y * weights).sum((0, 1, 2)), weights.sum()), axis_name)
        some, count = total[-1] > 0, jnp.maximum(total[-1], 1.0)  # there may be no roi that counts
        total = total[:-1]
        mean = total / count
        centred = jax.lax.optimization_barrier(y - mean)  # else XLA keeps y for the gradient too
        var = device_sum((jnp.square(centred) * weights).sum((0, 1, 2)), axis_name) / count
        unbiased = var * count / jnp.maximum(count - 1, 1)
        moved = 0.1 * some
        self.mean[...] = (1 - moved) * self.mean[...] + moved * jax.lax.stop_gradient(mean)
        self.var[...] = (1 - moved) * self.var[...] + moved * jax.lax.stop_gradient(unbiased)
        return centred, var


Norm = FrozenBatchNorm | GroupNorm | BatchNorm


def make_norm(kind: str, channels: int, *, zero_init: bool = False) -> Norm:
    """The normalisation of a residual block: "frozen", "group", or "batch" with a fixed affine part.

    Raises:
        ValueError: for any other kind.
    """
    if kind == "frozen":
        return FrozenBatchNorm(channels)
    if kind == "group":
        return GroupNorm(channels, zero_init=zero_init)
    if kind == "batch":
        return BatchNorm(channels, affine=False)
    raise ValueError(f"norm is {kind!r}; it must be 'frozen' (pretrained weights), 'group' (from scratch) or 'batch'")


def _masked(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return x if mask is None else x * mask.astype(x.dtype)


def device_sum(x: jax.Array, axis_name: str | None) -> jax.Array:
    """The sum of x over the devices along `axis_name`."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def resize_bilinear(x: jax.Array, size: int) -> jax.Array:
    """(B, h, w, C) -> (B, size, size, C) as PyTorch's `interpolate(mode="bilinear", align_corners=False)`.

    Sampled at the two nearest rows and columns of each output centre, without smoothing when shrinking.
    """
    rows = _interpolation_matrix(x.shape[1], size)  # (size, h)
    columns = _interpolation_matrix(x.shape[2], size)  # (size, w)
    y = jnp.einsum("oh,bhwc,pw->bopc", rows, x.astype(jnp.float32), columns)
    return y.astype(x.dtype)


def _interpolation_matrix(length: int, size: int) -> jax.Array:
    centres = jnp.maximum((jnp.arange(size) + 0.5) * (length / size) - 0.5, 0.0)
    low = jnp.minimum(jnp.floor(centres).astype(jnp.int32), length - 1)
    high = jnp.minimum(low + 1, length - 1)
    fraction = (centres - low)[:, None]
    return jax.nn.one_hot(low, length) * (1 - fraction) + jax.nn.one_hot(high, length) * fraction
