"""NMS and soft-NMS, ours beside plain forms with the same result."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, cell_boxes
from benchmarks.measure import Row, best_times, compiled
from fsis_jax import ops

IMAGE = (600, 800)
NMS_THRESHOLD, SOFT_THRESHOLD = 0.7, 0.5
FLOOR = 1e-4
BOXES_PER_CELL = 8

Suppress = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""Boxes (N, 4) and scores (N,) -> indices (N,) of the kept ones in descending order of score, and how many."""


def crowded_boxes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) and (N,): several boxes around each cell, as a network proposes them."""
    rng = np.random.default_rng(seed)
    cells = cell_boxes(rng, -(-count // BOXES_PER_CELL), IMAGE).repeat(BOXES_PER_CELL, 0)[:count]
    sides = (cells[:, 2:] - cells[:, :2]).repeat(2, 0).reshape(count, 4)
    boxes = (cells + rng.normal(0, 0.06, (count, 4)) * sides).astype(np.float32)
    return boxes, rng.permutation(np.linspace(0.01, 0.99, count, dtype=np.float32))


def ours(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the package has."""
    kept, valid = ops.nms(
        boxes, scores, jnp.ones(len(boxes), bool), iou_threshold=NMS_THRESHOLD, max_outputs=len(boxes)
    )
    return kept, valid.sum()


def sequential_greedy(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Box by box: it goes if one that was kept before overlaps it."""
    order, overlaps = _sorted_overlaps(boxes, scores)
    count = len(boxes)

    def step(i: jax.Array, keep: jax.Array) -> jax.Array:
        return keep.at[i].set(~jnp.any(overlaps[:, i] & keep & (jnp.arange(count) < i)))

    return _compact(order, jax.lax.fori_loop(0, count, step, jnp.ones(count, bool)))


def fixpoint_of_all(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Ours with one tile: rounds over all boxes until nothing changes."""
    order, overlaps = _sorted_overlaps(boxes, scores)
    earlier = jax.lax.optimization_barrier(jnp.triu(overlaps, 1))  # (N, N): row suppresses column

    def round_(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keep, _ = state
        new = ~jnp.any(earlier & keep[:, None], axis=0)
        return new, jnp.any(new != keep)

    start = jnp.ones(len(boxes), bool), jnp.array(True)
    return _compact(order, jax.lax.while_loop(lambda state: state[1], round_, start)[0])


def _sorted_overlaps(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    order = jnp.argsort(scores, descending=True, stable=True)
    return order, ops.pairwise_iou(boxes[order], boxes[order]) >= NMS_THRESHOLD


def _compact(order: jax.Array, keep: jax.Array) -> tuple[jax.Array, jax.Array]:
    return order[jnp.argsort(~keep, stable=True)], keep.sum()


FORMS: dict[str, Suppress] = {
    "ours": ours,
    "sequential greedy": sequential_greedy,
    "fixpoint of all": fixpoint_of_all,
}


def nms_rows(case: Case) -> list[Row]:
    """NMS at IoU 0.7, one call for all images or levels."""
    result = []
    for batch, count in ((1, 1000), (5, 2000)):
        boxes, scores = map(np.stack, zip(*(crowded_boxes(seed, count) for seed in range(batch)), strict=True))
        arguments = jnp.asarray(boxes), jnp.asarray(scores)
        programs = {name: compiled(jax.vmap(form), *arguments) for name, form in FORMS.items()}
        results = {name: jax.device_get(made.call(*arguments)) for name, made in programs.items()}
        contenders = {name: functools.partial(made.call, *arguments) for name, made in programs.items()}
        seconds = best_times(contenders, case.repeats, calls=1 if jax.default_backend() == "cpu" else 20)
        for name, made in programs.items():
            result.append(
                {
                    "boxes": f"{batch} x {count}",
                    "form": name,
                    "ms": seconds[name] * 1e3,
                    "x ours": seconds[name] / seconds["ours"],
                    "compile s": made.seconds,
                    "kept": int(results[name][1].sum()),
                    "same as ours": _same(results[name], results["ours"]),
                }
            )
    return result


def _same(these: Any, those: Any) -> str:
    """Whether the kept indices of every row agree."""
    pairs = zip(*these, *those, strict=True)
    return "yes" if all(n == m and np.array_equal(a[:n], b[:n]) for a, n, b, m in pairs) else "NO"


def soft_matrix(boxes: jax.Array, scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Soft-NMS with all overlaps computed at first."""
    overlaps = ops.pairwise_iou(boxes, boxes)

    def step(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        remaining, indices, taken = state
        best = jnp.argmax(remaining)
        row = overlaps[best]
        lowered = remaining * jnp.where(row > SOFT_THRESHOLD, 1 - row, 1.0)
        left = jnp.where(lowered >= FLOOR, lowered, -jnp.inf).at[best].set(-jnp.inf)
        return left, indices.at[i].set(best), taken.at[i].set(remaining[best])

    start = scores, jnp.zeros(count, jnp.int32), jnp.zeros(count)
    _, indices, taken = jax.lax.fori_loop(0, count, step, start)
    return indices, taken


def soft_numpy(boxes: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Soft-NMS on the host, a vectorised row at a time."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    remaining, indices, taken = scores.copy(), np.zeros(count, np.int32), np.zeros(count, np.float32)
    for i in range(count):
        best = int(np.argmax(remaining))
        indices[i], taken[i] = best, remaining[best]
        low, high = np.maximum(boxes[:, :2], boxes[best, :2]), np.minimum(boxes[:, 2:], boxes[best, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        overlap = shared / (areas + areas[best] - shared)
        remaining *= np.where(overlap > SOFT_THRESHOLD, 1 - overlap, 1)
        remaining[remaining < FLOOR] = -np.inf
        remaining[best] = -np.inf
    return indices, taken


def soft_nms_rows(case: Case) -> list[Row]:
    """Linear soft-NMS of 1000 boxes until 500 are taken. "same as ours" says whether the indices agree."""
    count, most = 1000, 500
    boxes, scores = crowded_boxes(0, count)
    arguments = jnp.asarray(boxes), jnp.asarray(scores)
    forms = {
        "ours": lambda boxes, scores: ops.soft_nms(
            boxes,
            scores,
            jnp.ones(count, bool),
            iou_threshold=SOFT_THRESHOLD,
            score_threshold=FLOOR,
            max_outputs=most,
        )[:2],
        "overlaps at first": lambda boxes, scores: soft_matrix(boxes, scores, most),
    }
    contenders: dict[str, Callable[[], Any]] = {
        name: functools.partial(compiled(form, *arguments).call, *arguments) for name, form in forms.items()
    }
    contenders["numpy on the host"] = lambda: soft_numpy(boxes, scores, most)
    results = {name: np.asarray(call()[0]) for name, call in contenders.items()}
    seconds = best_times(contenders, case.repeats)
    return [
        {
            "boxes": count,
            "form": name,
            "ms": seconds[name] * 1e3,
            "x ours": seconds[name] / seconds["ours"],
            "same as ours": "yes" if np.array_equal(results[name], results["ours"]) else "NO",
        }
        for name in contenders
    ]
