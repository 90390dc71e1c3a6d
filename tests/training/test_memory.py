"""What a compiled step needs beside its state and its batch."""

import jax
import jax.numpy as jnp

from fsis_jax.training.parallel import DataParallel


def _temporary(*, remat: bool) -> int:
    """Bytes of a step of four blocks of six layers each."""

    def block(x: jax.Array, weights: jax.Array) -> jax.Array:
        for _ in range(6):
            x = jnp.tanh(x @ weights) + x
        return x

    call = jax.checkpoint(block) if remat else block

    def step(weights: jax.Array, batch: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        def loss(weights: jax.Array) -> jax.Array:
            x = batch[0]
            for _ in range(4):
                x = call(x, weights)
            return x.sum()

        return weights - jax.grad(loss)(weights), {}

    parallel = DataParallel(step, "shard_map", batch_size=1, devices=jax.devices()[:1])
    program = parallel.step.lower(jnp.ones((64, 64)), jnp.ones((1, 20_000, 64))).compile()
    return program.memory_analysis().temp_size_in_bytes


def test_what_is_computed_again_is_not_kept() -> None:
    """XLA for CPUs undoes `model.remat` if it is left to itself."""
    assert _temporary(remat=True) < 0.7 * _temporary(remat=False)
