"""Co-attention against the affinity written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.co_attention import CoAttention, Match

CHANNELS = 8
SHAPES = {"small": (3, 4), "large": (9, 11)}
"""Of the target. The affinity is computed as it stands where that is cheaper, re-associated elsewhere."""


def build(norm: str) -> CoAttention:
    return randomise(nnx.eval_shape(lambda: CoAttention(CHANNELS, norm=norm, dtype=jnp.float32, rngs=nnx.Rngs(0))))


@jax.jit
def run(
    graph_and_state: tuple[nnx.GraphDef, nnx.State], target: jax.Array, reference: jax.Array, mask: jax.Array | None
) -> Match:
    return nnx.merge(*graph_and_state)(target, reference, mask)


def linear(layer: nnx.Conv, x: np.ndarray) -> np.ndarray:
    """A 1x1 convolution."""
    return x @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...])


def naive(model: CoAttention, target: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ungated target (N, C), gated reference (M, C) and gate (C,) of one image, with batch norm in eval mode."""

    def projected(layer: nnx.Conv, norm: nnx.Module, x: np.ndarray) -> np.ndarray:
        mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
        scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
        return (linear(layer, x) - mean) / np.sqrt(var + 1e-5) * scale + bias

    d, a = target.reshape(-1, CHANNELS), reference.reshape(-1, CHANNELS)
    affinity = linear(model.theta, a) @ linear(model.phi, d).T  # (M, N)
    new_a = a + projected(model.reference_out, model.reference_norm, affinity @ linear(model.g, d) / len(d))
    new_d = d + projected(model.target_out, model.target_norm, affinity.T @ linear(model.g, a) / len(a))

    def mlp(x: np.ndarray) -> np.ndarray:
        first, second = model.gate.fc1, model.gate.fc2
        hidden = np.maximum(x @ np.asarray(first.kernel[...]) + np.asarray(first.bias[...]), 0)
        return hidden @ np.asarray(second.kernel[...]) + np.asarray(second.bias[...])

    gate = 1 / (1 + np.exp(-mlp(new_a.mean(0)) - mlp(new_a.max(0))))
    return new_d, new_a * gate, gate


def features(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", list(SHAPES))
def test_against_the_naive_affinity(size: str) -> None:
    model = build("batch")
    target, reference = features(0, 2, *SHAPES[size], CHANNELS), features(1, 2, 5, 4, CHANNELS)
    found = run(nnx.split(model), target, reference, None)
    for row in range(2):
        rpn, aim, gate = naive(model, target[row], reference[row])
        np.testing.assert_allclose(found.gate[row], gate, atol=1e-5)
        np.testing.assert_allclose(found.rpn[row].reshape(-1, CHANNELS), rpn, atol=1e-4)
        np.testing.assert_allclose(found.target[row].reshape(-1, CHANNELS), rpn * gate, atol=1e-4)
        np.testing.assert_allclose(found.reference[row].reshape(-1, CHANNELS), aim, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_padding_is_left_out(norm: str) -> None:
    """A 6 x 7 target on a 9 x 11 canvas gives what it gives alone, and zeros beside it."""
    split = nnx.split(build(norm))
    target, reference = features(2, 1, 6, 7, CHANNELS), features(3, 1, 5, 4, CHANNELS)
    padding = [(0, 0), (0, 3), (0, 4), (0, 0)]
    alone = run(split, target, reference, None)
    padded = run(split, np.pad(target, padding), reference, np.pad(np.ones((1, 6, 7, 1), np.float32), padding))
    np.testing.assert_allclose(padded.reference, alone.reference, atol=1e-5)
    np.testing.assert_allclose(padded.target, np.pad(alone.target, padding), atol=1e-5)
    np.testing.assert_allclose(padded.rpn, np.pad(alone.rpn, padding), atol=1e-5)


def test_a_new_block_changes_nothing_but_the_gate() -> None:
    model = CoAttention(CHANNELS, norm="batch", dtype=jnp.float32, rngs=nnx.Rngs(0))
    target, reference = features(4, 1, 3, 4, CHANNELS), features(5, 1, 5, 4, CHANNELS)
    found = run(nnx.split(model), target, reference, None)
    np.testing.assert_array_equal(found.rpn, target)
    np.testing.assert_allclose(found.target, target * np.asarray(found.gate)[:, None, None], rtol=1e-6)


def test_unknown_norm() -> None:
    with pytest.raises(ValueError, match="norm is 'layer'"):
        CoAttention(CHANNELS, norm="layer", dtype=jnp.float32, rngs=nnx.Rngs(0))
