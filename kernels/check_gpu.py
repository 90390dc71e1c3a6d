"""Check the kernels on a GPU against XLA's form of the ops, and time them: `python -m fsis_jax.kernels.check_gpu`.

Needs nothing but the installed package; if torch with CUDA and torchvision can be imported, they are timed too. Prints
two tables. Times are milliseconds per call over calls issued back to back, launches included, the best of several
rounds. Exit status: 0, 1 if results differ, 2 without a GPU.
"""

import functools
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsis_jax import ops
from fsis_jax.ops import dispatch

CHANNELS, CELLS = 256, 7
IMAGE = 640


def main() -> int:
    """The whole check; returns the exit status."""
    device = jax.devices()[0]
    if device.platform not in ("gpu", "cuda"):
        print(f"No GPU: JAX sees {device.device_kind} ({device.platform}). The kernels were neither checked nor timed.")
        return 2
    capability = getattr(device, "compute_capability", "unknown")
    print(f"{device.device_kind}, compute capability {capability}, jax {jax.__version__}")
    if dispatch.choose("auto", "nms", 1) is None:
        print('"auto" takes XLA on this device; the kernels are forced here.')
    print(f"\n{'differs from XLA by':<44}{'found':>12}{'allowed':>12}")
    wrong = 0
    for name, found, allowed in differences():
        bad = not found <= allowed  # a NaN is bad
        wrong += bad
        print(f"{name:<44}{found:>12.2e}{allowed:>12.2e}{'  WRONG' if bad else ''}")
    print(f"\n{'ms per call':<44}{'XLA':>10}{'kernel':>10}{'torchvision':>13}")
    for name, xla, kernel, torch in times():
        print(f"{name:<44}{xla:>10.3f}{kernel:>10.3f}" + (f"{torch:>13.3f}" if torch is not None else f"{'-':>13}"))
    return 1 if wrong else 0


def differences(rois: int = 300, boxes: int = 2000, image: int = 160) -> Iterator[tuple[str, float, float]]:
    """(what, largest difference, what is allowed) of the kernels from XLA's form."""
    for dtype, allowed in (("float32", 1e-4), ("bfloat16", 2e-2)):
        for aligned in (True, False):
            features, boxes_, levels, cotangent = _pyramid(rois, image=image, dtype=dtype)
            limits = np.array([(image * 3 // 4 >> level, image >> level) for level in features], np.int32)
            kind = f"{dtype}, {'aligned' if aligned else 'legacy'}"
            both = []
            for backend in ("xla", "pallas"):
                align = functools.partial(_align, aligned=aligned, limits=limits, backend=backend)
                forward, backward = _passes(align, boxes_, levels)
                both.append((forward(features), backward(features, cotangent)))
            (expected, expected_gradient), (found, gradient) = both
            yield f"roi_align, {kind}", _largest(found, expected), allowed
            yield f"roi_align gradient, {kind}", _largest(gradient, expected_gradient), allowed
            again = backward(features, cotangent)
            yield f"roi_align gradient, {kind}, run again", _largest(again, gradient), 0.0
    # Whole numbers, for which the IoU has no rounding that could differ before its division.
    images = [_crowd(boxes, seed) for seed in range(5)]
    arguments = tuple(jnp.stack(parts) for parts in zip(*images, strict=True))
    for threshold in (0.3, 0.5, 0.7):
        (expected_nms, found_nms) = (_nms(threshold, backend)(*arguments) for backend in ("xla", "pallas"))
        yield f"nms of 5 x {boxes}, IoU {threshold}", _largest(found_nms, expected_nms), 0.0


def times(rois: int = 1000, boxes: int = 2000, image: int = IMAGE) -> Iterator[tuple[str, float, float, float | None]]:
    """(what, ms of XLA, of the kernels, of torchvision or None)."""
    torch = _torch()
    for dtype in ("float32", "bfloat16"):
        features, boxes_, levels, cotangent = _pyramid(rois, image=image, dtype=dtype)
        # torchvision's op reads one map, so the first rows have all rois on the finest level.
        for kind, of_roi in (("one map", jnp.full_like(levels, 2)), ("pyramid", levels)):
            taken = {2: features[2]} if kind == "one map" else features
            rows: list[list[float]] = []
            for backend in ("xla", "pallas"):
                passes = _passes(functools.partial(_align, backend=backend), boxes_, of_roi)
                rows.append([_time_jax(passes[0], taken), _time_jax(passes[1], taken, cotangent)])
            beside: tuple[float | None, float | None] = (None, None)
            if torch is not None and kind == "one map":
                beside = _time_torch_roi_align(*torch, features[2], boxes_, cotangent)
            for which, (direction, other) in enumerate(zip(("forward", "backward"), beside, strict=True)):
                yield f"roi_align {direction}, {kind}, {dtype}, R={rois}", rows[0][which], rows[1][which], other
    arguments = tuple(jnp.stack(parts) for parts in zip(*(_crowd(boxes, seed) for seed in range(5)), strict=True))
    xla, kernel = (_time_jax(_nms(0.7, backend), *arguments) for backend in ("xla", "pallas"))
    yield f"nms of 5 x {boxes}", xla, kernel, None if torch is None else _time_torch_nms(*torch, *arguments)


def _align(features: dict[int, jax.Array], rois: jax.Array, levels: jax.Array, **settings: Any) -> jax.Array:
    return ops.multilevel_roi_align(features, rois, levels, output_size=CELLS, **settings)


def _passes(align: Callable[..., jax.Array], rois: jax.Array, levels: jax.Array) -> tuple[Any, Any]:
    """The forward pass of features, and the backward pass of features and a cotangent."""

    def backward(features: dict[int, jax.Array], cotangent: jax.Array) -> Any:
        return jax.vjp(lambda features: align(features, rois, levels), features)[1](cotangent)[0]

    return jax.jit(lambda features: align(features, rois, levels)), jax.jit(backward)


def _nms(threshold: float, backend: dispatch.Backend) -> Any:
    def one_image(boxes: jax.Array, scores: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        number = boxes.shape[0]
        return ops.nms(boxes, scores, valid, iou_threshold=threshold, max_outputs=number, backend=backend)

    return jax.jit(jax.vmap(one_image))


def _pyramid(number: int, *, image: int, dtype: str) -> tuple[dict[int, jax.Array], jax.Array, jax.Array, jax.Array]:
    """Features of levels 2 to 5, rois with some beyond the border, their levels, and a cotangent."""
    rng = np.random.default_rng(0)
    features = {
        level: jnp.asarray(rng.standard_normal((image >> level, image >> level, CHANNELS)), dtype)
        for level in (2, 3, 4, 5)
    }
    low = rng.uniform(-0.1 * image, 0.9 * image, (number, 2))
    sides = np.exp(rng.uniform(np.log(8), np.log(image / 2), (number, 2)))
    rois = jnp.asarray(np.concatenate([low, low + sides], axis=1), jnp.float32)
    cotangent = jnp.asarray(rng.standard_normal((number, CELLS, CELLS, CHANNELS)), dtype)
    return features, rois, ops.assign_levels(rois, min_level=2, max_level=5, canonical_size=image / 3), cotangent


def _crowd(number: int, seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Boxes (N, 4) of whole coordinates, scores with ties, valid."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, IMAGE, (number, 2))
    boxes = np.concatenate([low, low + rng.integers(8, 80, low.shape)], axis=1)
    scores = rng.integers(0, number // 2, number)
    return jnp.asarray(boxes, jnp.float32), jnp.asarray(scores, jnp.float32), jnp.asarray(rng.random(number) < 0.95)


def _largest(found: Any, expected: Any) -> float:
    """Largest absolute difference, in units of the largest value where that is above 1."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    values = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    return float(max(np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in values))


def _best(call: Callable[[], Any], wait: Callable[[Any], Any], calls: int = 20, rounds: int = 5) -> float:
    for _ in range(3):
        wait(call())
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        found.append((time.perf_counter() - start) / calls * 1e3)
    return min(found)


def _time_jax(function: Callable[..., Any], *arguments: Any) -> float:
    return _best(lambda: function(*arguments), jax.block_until_ready)


def _torch() -> tuple[Any, Any] | None:
    """torch and torchvision.ops, if they are there and see the GPU."""
    try:
        torch, vision = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
    except (ImportError, RuntimeError) as error:
        print(f"torchvision is not timed: {error}")
        return None
    if not torch.cuda.is_available():
        print("torchvision is not timed: its torch sees no GPU")
        return None
    return torch, vision


def _time_torch_roi_align(
    torch: Any, vision: Any, features: jax.Array, rois: jax.Array, cotangent: jax.Array
) -> tuple[float, float]:
    """Forward and backward ms of torchvision on one map."""

    def to_torch(x: jax.Array) -> Any:
        half = x.dtype == jnp.bfloat16
        return torch.tensor(np.asarray(x, np.float32)).to("cuda", torch.bfloat16 if half else torch.float32)

    maps = to_torch(features).permute(2, 0, 1)[None].contiguous().requires_grad_()
    boxes = torch.tensor(np.asarray(rois), device="cuda", dtype=maps.dtype)
    boxes = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    gradient = to_torch(cotangent).permute(0, 3, 1, 2).contiguous()

    def forward() -> Any:
        return vision.roi_align(maps, boxes, CELLS, spatial_scale=0.25, sampling_ratio=2, aligned=True)

    def wait(_: Any) -> None:
        torch.cuda.synchronize()

    try:
        pooled = forward()
        return _best(forward, wait), _best(lambda: torch.autograd.grad(pooled, maps, gradient, retain_graph=True), wait)
    except RuntimeError as error:  # no kernel for this dtype
        print(f"torchvision's roi_align in {maps.dtype}: {str(error).splitlines()[0]}")
        return float("nan"), float("nan")


def _time_torch_nms(torch: Any, vision: Any, boxes: jax.Array, scores: jax.Array, valid: jax.Array) -> float:
    """ms of torchvision's batched_nms over all images at once, of the valid boxes."""
    images = np.nonzero(np.asarray(valid))[0]
    kept = [torch.tensor(np.asarray(x)[np.asarray(valid)], device="cuda") for x in (boxes, scores)]
    index = torch.tensor(images, device="cuda")
    return _best(lambda: vision.batched_nms(*kept, index, 0.7), lambda _: torch.cuda.synchronize())


if __name__ == "__main__":
    sys.exit(main())
