"""Random choice of positives and negatives with static shapes.

Labels are those of `assignment`. Source of the scheme: Fast R-CNN (arXiv 1504.08083), section 2.3.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int32

from fsis_jax.ops.assignment import IGNORE, NEGATIVE, POSITIVE
from fsis_jax.ops.shapes import check_shapes


def most_positives(num: int, positive_fraction: float) -> int:
    """How many of `num` samples may be positives: num * positive_fraction, rounded down but for the error of floats."""
    return int(num * positive_fraction + 1e-6)


@functools.partial(jax.jit, static_argnames=("num", "positive_fraction"))
def sample_indices(
    key: jax.Array, labels: Int[Array, " N"], *, num: int, positive_fraction: float
) -> tuple[Int32[Array, " {num}"], Bool[Array, " {num}"]]:
    """Chooses up to `num` of the N labelled boxes uniformly at random, without replacement.

    Returns indices (num,) int32 and valid (num,) bool: first the positives, at most `most_positives` of them,
    then negatives up to `num`, then padding (index 0) if there are too few.
    """
    check_shapes("sample_indices", labels=(labels, "N"))
    dice = jax.random.uniform(key, labels.shape)
    # Two rows, one top_k: row 0 puts the positives in random order in front, row 1 the negatives.
    wanted = labels[None, :] == jnp.array([[POSITIVE], [NEGATIVE]])  # (2, N)
    _, order = jax.lax.top_k(jnp.where(wanted, dice, -1.0), min(num, labels.shape[0]))
    existing = wanted.sum(axis=1)
    num_positives = jnp.minimum(existing[0], most_positives(num, positive_fraction))
    num_negatives = jnp.minimum(existing[1], num - num_positives)

    slot = jnp.arange(num)
    last = order.shape[1] - 1
    positives = order[0, jnp.minimum(slot, last)]
    negatives = order[1, jnp.clip(slot - num_positives, 0, last)]
    valid = slot < num_positives + num_negatives
    indices = jnp.where(slot < num_positives, positives, negatives)
    return jnp.where(valid, indices, 0).astype(jnp.int32), valid


@functools.partial(jax.jit, static_argnames=("num", "positive_fraction"))
def sample_labels(key: jax.Array, labels: Int[Array, " N"], *, num: int, positive_fraction: float) -> Int[Array, " N"]:
    """Labels (N,) int32 with every box that `sample_indices` does not choose set to IGNORE."""
    indices, valid = sample_indices(key, labels, num=num, positive_fraction=positive_fraction)
    number = labels.shape[0]
    chosen = jnp.full(number, IGNORE, labels.dtype)
    return chosen.at[jnp.where(valid, indices, number)].set(labels[indices], mode="drop")
