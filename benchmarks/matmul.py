"""The rate that everything is compared with: what JAX reaches on large matrix products, here and in this run."""

import functools

import jax
import jax.numpy as jnp

from benchmarks.cases import Case
from benchmarks.measure import Row, best_times

SIDES = {"cpu": (1024, 2048), "gpu": (4096, 8192)}
"""Of square matrices."""
TURNS = 5


def rows(case: Case) -> list[Row]:
    """Square matrix products in JAX. The best row of a type is what "% of peak" refers to elsewhere."""
    dtypes = ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")
    return [{"dtype": dtype, "side": side, "GFLOP/s": rate} for dtype in dtypes for side, rate in _rates(dtype).items()]


def peak(dtype: str) -> float:
    """GFLOP/s."""
    return max(_rates(dtype).values())


@functools.cache
def _rates(dtype: str) -> dict[int, float]:
    """Side -> GFLOP/s."""
    product, result = jax.jit(jnp.matmul), {}
    for side in SIDES[jax.default_backend()]:
        x = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
        calls = 1 if jax.default_backend() == "cpu" else 10
        seconds = best_times({"": functools.partial(product, x, x)}, TURNS, calls=calls)[""]
        result[side] = 2 * side**3 / 1e9 / seconds
    return result
