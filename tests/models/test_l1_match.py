"""L1 matching against its formula in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.l1_match import L1Match
from fsis_jax.models.layers import Training

CHANNELS = 5


def build() -> L1Match:
    return randomise(nnx.eval_shape(lambda: L1Match(CHANNELS, dtype=jnp.float32, rngs=nnx.Rngs(0))))


def features(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, CHANNELS)).astype(np.float32)


def test_against_numpy() -> None:
    """The mean runs over the positions of each image's own references; these stay as they are."""
    block = build()
    target, reference = features(0, 2, 4, 6), features(1, 2, 3, 3)
    found = jax.jit(block)(target, reference)
    kernel, bias = np.asarray(block.conv.kernel[...])[0, 0], np.asarray(block.conv.bias[...])
    for row in range(2):
        distance = np.abs(target[row] - reference[row].reshape(-1, CHANNELS).mean(0))
        expected = target[row] @ kernel[:CHANNELS] + distance @ kernel[CHANNELS:] + bias
        np.testing.assert_allclose(found.target[row], expected, atol=1e-5)
        np.testing.assert_allclose(found.rpn[row], expected, atol=1e-5)
    np.testing.assert_array_equal(found.reference, reference)
    assert found.gate is None


def test_nothing_is_left_outside_the_mask() -> None:
    block = build()
    target, reference = features(2, 1, 4, 6), features(3, 1, 3, 3)
    mask = np.zeros((1, 4, 6, 1), np.float32)
    mask[:, :3, :4] = 1
    inside = np.where(mask > 0, target, 0)
    found, alone = block(inside, reference, jnp.asarray(mask)), block(target[:, :3, :4], reference)
    padding = [(0, 0), (0, 1), (0, 2), (0, 0)]
    np.testing.assert_allclose(found.target, np.pad(alone.target, padding), atol=1e-6)
    np.testing.assert_allclose(found.rpn, np.pad(alone.rpn, padding), atol=1e-6)


def test_training_makes_no_difference() -> None:
    block = build()
    target, reference = features(4, 1, 4, 6), features(5, 1, 3, 3)
    np.testing.assert_array_equal(block(target, reference, None, Training()).rpn, block(target, reference).rpn)


def test_both_sides_learn() -> None:
    graph, state = nnx.split(build())

    @jax.jit
    def loss(state: nnx.State, target: jax.Array, reference: jax.Array) -> jax.Array:
        return (nnx.merge(graph, state)(target, reference).rpn ** 2).sum()

    gradients = jax.grad(loss, argnums=(0, 1, 2))(state, features(6, 1, 4, 6), features(7, 1, 3, 3))
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradients))
