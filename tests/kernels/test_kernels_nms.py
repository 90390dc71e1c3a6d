"""The NMS kernels against XLA's form and against a loop, on a CPU; see test_kernels_roi_align.py."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fsis_jax.kernels import nms as kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic import mosaic_interpreter  # noqa: F401 (a fixture)

from fsis_jax import ops

NUMBER = 45
"""Boxes of a random case: one whole word of bits and a part of another."""


@functools.partial(jax.jit, static_argnames=("backend", "offset"))
def suppress(boxes, scores, valid, threshold, *, backend, offset=0):
    return ops.nms(
        boxes, scores, valid, iou_threshold=threshold, max_outputs=boxes.shape[0], offset=offset, backend=backend
    )


def compare(boxes: Any, scores: Any, valid: Any, threshold: float, offset: int = 0) -> np.ndarray:
    """The kept indices, if both give the same."""
    found, expected = (
        suppress(boxes, scores, valid, np.float32(threshold), backend=backend, offset=offset)
        for backend in ("pallas", "xla")
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    return np.asarray(found[0])[np.asarray(found[1])]


def crowded(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (number, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, low.shape)], axis=-1).astype(np.float32)
    return boxes, rng.random(number).astype(np.float32), rng.random(number) < 0.9


coordinate = st.one_of(st.integers(-3, 12).map(float), st.sampled_from([np.nan, np.inf, -np.inf]))
box = st.lists(coordinate, min_size=4, max_size=4)
score = st.one_of(st.integers(0, 5).map(float), st.sampled_from([np.nan, np.inf, -np.inf]))
"""Few values: many ties of scores, and overlaps that are the threshold itself."""


def check_random(data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    low = rng.integers(0, 12, (NUMBER, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 8, (NUMBER, 2))], axis=1).astype(np.float32)
    odd = np.array(data.draw(st.lists(box, max_size=6)), np.float32).reshape(-1, 4)
    boxes[: len(odd)] = odd
    scores = rng.integers(0, 6, NUMBER).astype(np.float32)
    odd_scores = np.array(data.draw(st.lists(score, max_size=6)), np.float32)
    scores[: len(odd_scores)] = odd_scores
    order = rng.permutation(NUMBER)
    valid = rng.random(NUMBER) < data.draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    threshold = data.draw(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0, 1.1]))
    compare(boxes[order], scores[order], valid, threshold, data.draw(st.sampled_from([0, 1])))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_random_cases(data: Any) -> None:
    check_random(data)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(st.data())
def test_many_random_cases(data: Any) -> None:
    check_random(data)


@pytest.mark.parametrize("number", [1, 2, 31, 32, 33, 300])
def test_numbers_of_boxes(number: int) -> None:
    boxes, scores, valid = crowded(number, number)
    compare(boxes, np.round(scores, 1), valid, 0.3)


def test_a_chain_over_many_words() -> None:
    """Each box overlaps the next only, so every second one survives, across the borders of words."""
    start = np.arange(201.0)[:, None] * 6
    boxes = np.concatenate([start, 0 * start, start + 10, 0 * start + 10], axis=1).astype(np.float32)
    kept = compare(boxes, -np.arange(201.0, dtype=np.float32), np.ones(201, bool), 0.2)
    np.testing.assert_array_equal(kept, np.arange(0, 201, 2))


def test_by_hand() -> None:
    """Box 1 suppresses 0 (IoU 0.6); 0 would have suppressed 2, but it is gone; 3 is not valid; 4 is a tie with 2."""
    boxes = np.array([[2.5, 0, 12.5, 10], [0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10], [5, 0, 15, 10]], np.float32)
    scores, valid = np.array([0.8, 0.9, 0.7, 1.0, 0.7], np.float32), np.array([True, True, True, False, True])
    np.testing.assert_array_equal(compare(boxes, scores, valid, 0.55), [1, 2])


@pytest.mark.slow
def test_more_boxes_than_one_vector_of_words_holds() -> None:
    """Above 4096 boxes a row of the table has two vectors; about every tenth box survives."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 300, (4200, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, low.shape)], axis=-1).astype(np.float32)
    assert len(compare(boxes, rng.random(4200).astype(np.float32), np.ones(4200, bool), 0.3)) > 100


def test_vmap_with_a_threshold_for_each_image() -> None:
    images = [crowded(seed, 70) for seed in range(3)]
    boxes, scores, valid = (np.stack(parts) for parts in zip(*images, strict=True))
    thresholds = np.array([0.1, 0.5, 0.9], np.float32)
    found, expected = (
        jax.vmap(functools.partial(suppress, backend=backend))(boxes, scores, valid, thresholds)
        for backend in ("pallas", "xla")
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert len(set(np.asarray(found[1]).sum(axis=1).tolist())) == 3


@pytest.mark.parametrize("batched", [False, True])
def test_in_the_interpreter_of_mosaic_gpu(mosaic_interpreter: Any, batched: bool) -> None:  # noqa: F811
    boxes, _, valid = crowded(9, 20)
    images = jnp.stack([boxes, boxes[::-1]]), jnp.stack([valid, valid[::-1]])

    def run(interpret: Any) -> jax.Array:
        def keep(boxes: jax.Array, valid: jax.Array) -> jax.Array:
            return kernels.keep_best(boxes, valid, 0.3, interpret=interpret)

        if batched:
            return jax.jit(jax.vmap(keep))(*images)
        return jax.jit(keep)(boxes, valid)

    found = run(mosaic_interpreter)
    np.testing.assert_array_equal(found, run(True))
    assert 0 < np.asarray(found).sum() < found.size
