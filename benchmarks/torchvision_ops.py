"""roi_align and nms beside torchvision's, on a GPU. --suite gpu, where torchvision is installed."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import roi_ops, suppression
from benchmarks.cases import Case, cell_boxes
from benchmarks.measure import Row, best_times, compiled
from benchmarks.torch_side import import_torch, import_torchvision, on_device, waiting

BATCH, BOXES = 5, 2000
DTYPES = {"float32": "float32", "bfloat16": "float16"}
"""Ours -> torchvision's, whose kernels do not take bfloat16."""
CALLS = 20
"""Launches in a row."""


def rows(case: Case) -> list[Row]:
    """RoIAlign of 256 channels forward and backward (gradient of the features, forward included on both sides), and one
    NMS call for 5 x 2000 boxes (`batched_nms` there). Where ours takes bfloat16 theirs takes float16. "x faster" is
    torchvision's time over ours."""
    torch, torchvision = import_torch(), import_torchvision()
    result = []
    for dtype in DTYPES:
        for count, side in roi_ops.ROIS:
            forward, backward = _roi_align(torch, torchvision, dtype, count, side)
            name = f"roi_align {count} rois, {side}x{side}, {dtype}"
            result.append(_row(f"{name}, forward", forward, case, torch))
            result.append(_row(f"{name}, forward and backward", backward, case, torch))
    result.append(_row(f"nms {BATCH} x {BOXES}", _nms(torch, torchvision), case, torch))
    return result


def _row(name: str, contenders: Mapping[str, Callable[[], Any]], case: Case, torch: Any) -> Row:
    seconds = best_times(contenders, case.repeats, calls=CALLS, wait=waiting(torch))
    ours, theirs = seconds["ours"], seconds["torchvision"]
    return {"op": name, "ours ms": ours * 1e3, "torchvision ms": theirs * 1e3, "x faster": theirs / ours}


def _roi_align(
    torch: Any, torchvision: Any, dtype: str, count: int, side: int
) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    height, width, channels = roi_ops.MAP
    size = (height * roi_ops.STRIDE, width * roi_ops.STRIDE)
    boxes = cell_boxes(np.random.default_rng(0), count, size)
    features = jax.random.normal(jax.random.key(0), roi_ops.MAP, jnp.dtype(dtype))
    cotangent = jax.random.normal(jax.random.key(1), (count, side, side, channels), jnp.dtype(dtype))
    rois = jnp.asarray(boxes)

    def value_and_pullback(features: jax.Array, rois: jax.Array, cotangent: jax.Array) -> Any:
        pooled, pullback = jax.vjp(lambda features: roi_ops.ours(features, rois, side), features)
        return pooled, pullback(cotangent)

    pool = compiled(lambda features, rois: roi_ops.ours(features, rois, side), features, rois).call
    both = compiled(value_and_pullback, features, rois, cotangent).call

    tensor = on_device(torch.randn(1, channels, height, width, dtype=getattr(torch, DTYPES[dtype])))
    learnt = tensor.clone().requires_grad_()
    their_rois = on_device(torch.from_numpy(boxes)).to(tensor.dtype)
    outer = on_device(torch.randn(count, channels, side, side, dtype=tensor.dtype))

    def their_pool(features: Any) -> Any:
        return torchvision.ops.roi_align(
            features, [their_rois], side, 1 / roi_ops.STRIDE, roi_ops.SAMPLES, aligned=True
        )

    def their_forward() -> Any:
        with torch.no_grad():
            return their_pool(tensor)

    def their_both() -> Any:
        return torch.autograd.grad(their_pool(learnt), learnt, outer)

    return (
        {"ours": functools.partial(pool, features, rois), "torchvision": their_forward},
        {"ours": functools.partial(both, features, rois, cotangent), "torchvision": their_both},
    )


def _nms(torch: Any, torchvision: Any) -> dict[str, Callable[[], Any]]:
    boxes, scores = map(np.stack, zip(*(suppression.crowded_boxes(seed, BOXES) for seed in range(BATCH)), strict=True))
    ours = compiled(jax.vmap(suppression.ours), jnp.asarray(boxes), jnp.asarray(scores)).call
    flat_boxes = on_device(torch.from_numpy(boxes.reshape(-1, 4)))
    flat_scores = on_device(torch.from_numpy(scores.reshape(-1)))
    groups = on_device(torch.arange(BATCH).repeat_interleave(BOXES))
    nms = torchvision.ops.batched_nms
    return {
        "ours": functools.partial(ours, jnp.asarray(boxes), jnp.asarray(scores)),
        "torchvision": lambda: nms(flat_boxes, flat_scores, groups, suppression.NMS_THRESHOLD),
    }
