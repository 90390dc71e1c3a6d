"""Loops under `jax.shard_map`.

There (with `check_vma=True`, its default) the type of an array says over which mesh axes it varies, and a loop must
carry the same type in and out. A constant varies over none, so one that starts a loop over sharded data must be cast.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def varying_like(start: T, data: Any) -> T:
    """The arrays of `start`, unchanged, but of a type that varies over every mesh axis that those of `data` vary over.

    The attribute of the type that names these axes changed between releases of JAX. A select by a condition that
    depends on the data has the wanted type everywhere, and as both its branches are the same, XLA drops it.
    """
    nothing = sum(jnp.sum(leaf.ravel()[:0]).astype(jnp.float32) for leaf in jax.tree.leaves(data))
    return jax.tree.map(lambda leaf: jnp.where(nothing == 0.0, leaf, leaf), start)
