import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from fsis_jax import ops

LOGITS = jnp.log(jnp.array([1.0, 3.0, 3.0, 1 / 3]))
TARGETS = jnp.array([1, 1, 0, 0])
"""Probabilities 1/2, 3/4, 3/4, 1/4, so that p_t is 1/2, 3/4, 1/4, 3/4."""


def test_by_hand():
    p_t = np.array([1 / 2, 3 / 4, 1 / 4, 3 / 4])
    plain = -np.log(p_t)
    alpha = np.array([1 / 4, 1 / 4, 3 / 4, 3 / 4])
    np.testing.assert_allclose(ops.sigmoid_focal_loss(LOGITS, TARGETS), alpha * (1 - p_t) ** 2 * plain, rtol=1e-6)
    found = ops.sigmoid_focal_loss(LOGITS, TARGETS, alpha=None, gamma=1.0)
    np.testing.assert_allclose(found, (1 - p_t) * plain, rtol=1e-6)
    np.testing.assert_allclose(ops.sigmoid_focal_loss(LOGITS, TARGETS, alpha=None, gamma=0), plain, rtol=1e-6)


def test_soft_targets_by_hand():
    """Probability 3/4, wanted 0.5: the entropy is the mean of both, p_t = 0.5 and alpha_t = 0.5."""
    entropy = -0.5 * (np.log(3 / 4) + np.log(1 / 4))
    found = ops.sigmoid_focal_loss(LOGITS[1], jnp.float32(0.5))
    np.testing.assert_allclose(found, 0.5 * 0.5**2 * entropy, rtol=1e-6)


def test_gradient_by_hand():
    """Of (1 - p)^2 * -log(p) by the logit at p = 1/2: (2 p log(p) - (1 - p)) (1 - p)^2."""
    gradient = jax.grad(lambda x: ops.sigmoid_focal_loss(x, jnp.float32(1.0), alpha=None))(0.0)
    np.testing.assert_allclose(gradient, (np.log(0.5) - 0.5) / 4, rtol=1e-6)
    check_grads(lambda x: ops.sigmoid_focal_loss(x, TARGETS), (LOGITS,), order=1, atol=1e-2, rtol=1e-2)


def test_large_logits_are_finite():
    logits = jnp.array([200.0, -200.0, 200.0, -200.0])
    found = ops.sigmoid_focal_loss(logits, TARGETS)
    np.testing.assert_allclose(found, [0, 50, 150, 0], atol=1e-6)  # 200 alpha_t where wrong
    gradient = jax.grad(lambda x: ops.sigmoid_focal_loss(x, TARGETS).sum())(logits)
    np.testing.assert_allclose(gradient, [0, -0.25, 0.75, 0], atol=1e-6)


def test_against_optax():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 5, (4, 50)).astype(np.float32), rng.random((4, 50)) < 0.3
    expected = optax.sigmoid_focal_loss(logits, targets.astype(np.float32), alpha=0.4, gamma=1.5)
    batched = jax.jit(jax.vmap(lambda *pair: ops.sigmoid_focal_loss(*pair, alpha=0.4, gamma=1.5)))
    np.testing.assert_allclose(batched(logits, targets), expected, rtol=1e-4, atol=1e-6)
    half = ops.sigmoid_focal_loss(jnp.asarray(logits, jnp.float16), targets)
    assert half.dtype == jnp.float32


def test_targets_of_another_shape_are_an_error(unchecked):
    with pytest.raises(ValueError, match=r"targets have shape \(4,\), expected \(4, 1\)"):
        ops.sigmoid_focal_loss(LOGITS[:, None], TARGETS)
