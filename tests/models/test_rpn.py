"""From logits and deltas to proposals."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.extent import Extent
from fsis_jax.models.rpn import RPN, Proposals, ProposalSettings, anchors_inside
from fsis_jax.models.rpn import propose as eager_propose

propose = jax.jit(eager_propose, static_argnames="settings")

SETTINGS = ProposalSettings(pre_nms=4, post_nms=3, nms_threshold=0.7, min_size=2.0, offset=0)

ANCHORS = {
    2: jnp.array([[0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30], [40, 40, 50, 50], [0, 30, 10, 40.0]]),
    3: jnp.array([[0, 0, 10, 10], [60, 0, 80, 20], [5, 5, 6, 40.0]]),
}
SIZE = jnp.array([[48, 64]])


def run(logits: dict[int, list[float]], **changes: float) -> Proposals:
    settings = dataclasses.replace(SETTINGS, **changes)
    scores = {level: jnp.array([values]) for level, values in logits.items()}
    deltas = {level: jnp.zeros((1, len(values), 4)) for level, values in logits.items()}
    anchors = {level: ANCHORS[level] for level in logits}
    return propose(scores, deltas, anchors, dict.fromkeys(logits), SIZE, settings=settings)


def test_two_levels() -> None:
    """On level 2 the second anchor overlaps the first by 90 / 110 and goes; the last is not among the best four.
    On level 3 the same box as on level 2 stays (levels do not suppress each other), the second is clipped, the third
    is too narrow. Of all levels the best three are kept."""
    found = run({2: [2.0, 1.0, -1.0, 3.0, -2.0], 3: [0.0, 1.5, 5.0]})
    np.testing.assert_array_equal(found.valid, [[True] * 3])
    np.testing.assert_array_equal(found.scores, [[3.0, 2.0, 1.5]])
    np.testing.assert_array_equal(found.boxes, [[[40, 40, 50, 48], [0, 0, 10, 10], [60, 0, 64, 20]]])
    more = run({2: [2.0, 1.0, -1.0, 3.0, -2.0], 3: [0.0, 1.5, 5.0]}, post_nms=8)
    np.testing.assert_array_equal(more.scores[more.valid], [3.0, 2.0, 1.5, 0.0, -1.0])


def test_too_few() -> None:
    found = run({3: [0.0, 1.0, 5.0]}, min_size=30.0)
    assert not found.valid.any()


def test_centres_beyond_the_image_go() -> None:
    anchors = {2: jnp.array([[60.0, 0, 100, 40], [56, 0, 66, 40]])}
    arrays = ({2: jnp.zeros((1, 2))}, {2: jnp.zeros((1, 2, 4))}, anchors, {2: None}, SIZE)
    # Clipping comes first, so that both centres end up inside, as in Detectron.
    assert propose(*arrays, settings=SETTINGS).valid.sum() == 2
    shifted = {2: anchors[2] + jnp.array([20.0, 0, 20, 0])}
    found = propose(*arrays[:2], shifted, *arrays[3:], settings=SETTINGS)
    assert not found.valid.any()  # nothing is left of them but an edge


def test_deltas_and_outside_positions() -> None:
    deltas = jnp.zeros((1, 2, 4)).at[0, 0].set(jnp.array([0.5, 0.0, 0.0, math.log(2.0)]))
    inside = {2: jnp.array([[True, False]])}
    found = propose({2: jnp.array([[0.0, 9.0]])}, {2: deltas}, {2: ANCHORS[2][2:4]}, inside, SIZE, settings=SETTINGS)
    np.testing.assert_array_equal(found.valid, [[True, False]])
    np.testing.assert_allclose(found.boxes[0, 0], [25, 15, 35, 35], atol=1e-5)


def test_positions_outside_the_extent() -> None:
    extent = Extent.of(jnp.array([[32, 64]]), 32)
    inside = anchors_inside(extent, jnp.zeros((1, 2, 3, 1)), 5, 2)
    np.testing.assert_array_equal(inside, [[True] * 4 + [False] * 8])
    assert anchors_inside(None, jnp.zeros((1, 2, 3, 1)), 5, 2) is None


@pytest.mark.parametrize("anchors", [1, 3])
def test_order_of_the_outputs(anchors: int) -> None:
    """Rows run over rows, columns, then anchors, as the anchors' own rows do."""
    rpn = randomise(nnx.eval_shape(lambda: RPN(4, anchors, dtype=jnp.float32, rngs=nnx.Rngs(0))))
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    logits, deltas = jax.jit(rpn)(x)
    assert logits.shape == (2, 15 * anchors)
    hidden = nnx.relu(rpn.conv(x))
    np.testing.assert_allclose(logits.reshape(2, 3, 5, anchors), rpn.objectness(hidden), atol=1e-5)
    np.testing.assert_allclose(deltas.reshape(2, 3, 5, anchors * 4), rpn.deltas(hidden), atol=1e-5)
