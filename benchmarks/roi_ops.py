"""RoIAlign, ours beside two plain forms of the same sum, forward and backward.

Letters as in `fsis_jax/ops/roi_align.py`; all forms take S = 2 samples per cell and axis.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, cell_boxes
from benchmarks.measure import Row, best_times, compiled
from fsis_jax import ops

MAP = (152, 200, 256)
"""The finest level of the r50 model at 608x800: rows, columns, channels."""
STRIDE = 4
ROIS = ((1000, 7), (500, 14))
"""R and o of its box head and of its mask head."""
SAMPLES = 2
CHUNK = 50
"""Rois that the einsum form takes at a time, for the sake of memory."""

Pool = Callable[[jax.Array, jax.Array, int], jax.Array]
"""(features (h, w, C), rois (R, 4), o) -> (R, o, o, C)."""


def ours(features: jax.Array, rois: jax.Array, side: int) -> jax.Array:
    """What the package has."""
    return ops.roi_align(features, rois, spatial_scale=1 / STRIDE, output_size=side, sampling_ratio=SAMPLES)


def dense_einsum(features: jax.Array, rois: jax.Array, side: int) -> jax.Array:
    """A dense matrix per roi and axis: rows first, then columns."""
    height, width, _ = features.shape

    def one(roi: jax.Array) -> jax.Array:
        rows = _weights(_positions(roi[1], roi[3], side, height), height)  # (o, h)
        columns = _weights(_positions(roi[0], roi[2], side, width), width)  # (o, w)
        return jnp.einsum("pw,owc->opc", columns, jnp.einsum("oh,hwc->owc", rows, features))

    return jax.lax.map(one, rois, batch_size=CHUNK)


def gathered_samples(features: jax.Array, rois: jax.Array, side: int) -> jax.Array:
    """All samples, each from its four neighbours, then their mean."""
    height, width, _ = features.shape
    y = jax.vmap(lambda roi: _positions(roi[1], roi[3], side, height))(rois)[:, :, None]  # (R, o * S, 1)
    x = jax.vmap(lambda roi: _positions(roi[0], roi[2], side, width))(rois)[:, None, :]
    low_y, low_x = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    high_y, high_x = jnp.minimum(low_y + 1, height - 1), jnp.minimum(low_x + 1, width - 1)
    part_y, part_x = (y - low_y)[..., None], (x - low_x)[..., None]
    sampled = (
        features[low_y, low_x] * (1 - part_y) * (1 - part_x)
        + features[low_y, high_x] * (1 - part_y) * part_x
        + features[high_y, low_x] * part_y * (1 - part_x)
        + features[high_y, high_x] * part_y * part_x
    )  # (R, o * S, o * S, C)
    return sampled.reshape(len(rois), side, SAMPLES, side, SAMPLES, -1).mean((2, 4))


def _positions(low: jax.Array, high: jax.Array, side: int, size: int) -> jax.Array:
    """(o * S,) samples on the scale where feature pixel i has its centre at i."""
    step = (high - low) / STRIDE / (side * SAMPLES)
    return jnp.clip(low / STRIDE - 0.5 + (jnp.arange(side * SAMPLES) + 0.5) * step, 0, size - 1)


def _weights(positions: jax.Array, size: int) -> jax.Array:
    """(o, size) from (o * S,)."""
    hats = jnp.maximum(1 - jnp.abs(positions[:, None] - jnp.arange(size)), 0)
    return hats.reshape(-1, SAMPLES, size).mean(1)


FORMS: dict[str, Pool] = {"ours": ours, "dense einsum": dense_einsum, "gathered samples": gathered_samples}


def rows(case: Case) -> list[Row]:
    """RoIAlign on one map of the r50 model's finest level; --quick: a fifth of the rois. "backward" is the gradient
    with respect to the features alone, the difference is the largest from ours."""
    shape = MAP
    features = jax.random.normal(jax.random.key(0), shape)
    result = []
    for count, side in ROIS:
        count = count // 5 if case.quick else count
        size = (shape[0] * STRIDE, shape[1] * STRIDE)
        rois = jnp.asarray(cell_boxes(np.random.default_rng(0), count, size))
        cotangent = jax.random.normal(jax.random.key(1), (count, side, side, shape[-1]))
        result += _compare("forward", features, rois, cotangent, case.repeats)
        result += _compare("backward", features, rois, cotangent, case.repeats)
    return result


def _compare(direction: str, features: jax.Array, rois: jax.Array, cotangent: jax.Array, repeats: int) -> list[Row]:
    side = cotangent.shape[1]

    def program(pool: Pool) -> Callable[..., jax.Array]:
        if direction == "forward":
            return lambda features, rois, cotangent: pool(features, rois, side)
        return jax.grad(lambda features, rois, cotangent: jnp.sum(pool(features, rois, side) * cotangent))

    arguments = features, rois, cotangent
    programs = {name: compiled(program(pool), *arguments) for name, pool in FORMS.items()}
    results = {name: made.call(*arguments) for name, made in programs.items()}
    contenders = {name: lambda call=made.call: call(*arguments) for name, made in programs.items()}
    seconds = best_times(contenders, repeats, calls=_calls(), warm_up=False)
    shapes = f"{'x'.join(map(str, features.shape))}, {len(rois)} rois, {side}x{side}"
    return [
        {
            "shapes": shapes,
            "direction": direction,
            "form": name,
            "ms": seconds[name] * 1e3,
            "x ours": seconds[name] / seconds["ours"],
            "MB temporary": made.temporary,
            "compile s": made.seconds,
            "difference": float(jnp.max(jnp.abs(results[name] - results["ours"]))),
        }
        for name, made in programs.items()
    ]


def _calls() -> int:
    """Launches in a row: a GPU's are short."""
    return 1 if jax.default_backend() == "cpu" else 20
