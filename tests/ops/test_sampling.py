import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops
from fsis_jax.ops import IGNORE, NEGATIVE, POSITIVE


def make_labels(positives: int, negatives: int, ignored: int, seed: int = 0) -> np.ndarray:
    labels = np.repeat([POSITIVE, NEGATIVE, IGNORE], [positives, negatives, ignored]).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ((50, 200, 10), (8, 24)),  # enough of both
        ((3, 200, 10), (3, 29)),  # negatives fill up
        ((50, 5, 10), (8, 5)),  # positives do not
        ((0, 40, 0), (0, 32)),
        ((2, 1, 0), (2, 1)),  # fewer boxes than asked for
        ((0, 0, 7), (0, 0)),
    ],
)
def test_counts(available, expected):
    labels = make_labels(*available)
    indices, valid = ops.sample_indices(jax.random.key(1), labels, num=32, positive_fraction=0.25)
    assert indices.shape == valid.shape == (32,)
    chosen = np.asarray(indices)[np.asarray(valid)]
    assert len(set(chosen)) == len(chosen)
    picked = labels[chosen]
    np.testing.assert_array_equal(picked, [POSITIVE] * expected[0] + [NEGATIVE] * expected[1])
    assert (np.asarray(indices)[~np.asarray(valid)] == 0).all()

    sampled = np.asarray(ops.sample_labels(jax.random.key(1), labels, num=32, positive_fraction=0.25))
    assert ((sampled == POSITIVE).sum(), (sampled == NEGATIVE).sum()) == expected
    assert set(np.flatnonzero(sampled != IGNORE)) == set(chosen)
    assert (sampled[chosen] == picked).all()


@pytest.mark.parametrize(
    ("num", "fraction", "expected"),
    [(100, 0.29, 29), (100, 0.299, 29), (256, 0.25, 64), (7, 0.5, 3), (10, 0.0, 0), (10, 1.0, 10)],
)
def test_most_positives(num, fraction, expected):
    """In floats 100 * 0.29 is less than 29."""
    assert ops.most_positives(num, fraction) == expected
    labels = make_labels(200, 200, 0)
    indices, valid = ops.sample_indices(jax.random.key(1), labels, num=num, positive_fraction=fraction)
    assert valid.all()
    np.testing.assert_array_equal(labels[indices], [POSITIVE] * expected + [NEGATIVE] * (num - expected))


def test_uniform():
    """Each of 20 positives is taken 8 times of 20, each of 60 negatives 24 of 60, within 5 standard deviations."""
    labels = make_labels(20, 60, 20)
    keys = jax.random.split(jax.random.key(0), 1000)
    sample = jax.jit(jax.vmap(lambda key: ops.sample_labels(key, labels, num=32, positive_fraction=0.25)))
    frequency = (np.asarray(sample(keys)) != IGNORE).mean(axis=0)
    np.testing.assert_allclose(frequency[labels != IGNORE], 0.4, atol=5 * np.sqrt(0.24 / 1000))
    assert (frequency[labels == IGNORE] == 0).all()


def test_depends_on_the_key_alone():
    labels = jnp.asarray(make_labels(50, 200, 0))
    first, again, other = (
        ops.sample_indices(jax.random.key(seed), labels, num=64, positive_fraction=0.5)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
