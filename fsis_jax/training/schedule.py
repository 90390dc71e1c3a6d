"""Learning rate and length of a run: the linear scaling rule as the PyTorch project's train_net_step.py applies it.

The rate scales with the batch size; decay steps and length with the inverse of the effective batch size (batch
size times accumulated passes); the warm-up is never rescaled.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def scaled_steps(config: ConfigDict, steps: int) -> int:
    """`steps` of the reference batch size as steps of this config's effective batch size."""
    optimizer = config.optimizer
    effective = config.training.batch_size * optimizer.accumulate
    return int(steps * optimizer.reference_batch_size / effective + 0.5)


def total_steps(config: ConfigDict) -> int:
    """Updates in the whole run, at least one."""
    return config.training.steps or max(1, scaled_steps(config, config.training.reference_steps))


def base_rate(config: ConfigDict) -> float:
    """The rate after warm-up."""
    optimizer = config.optimizer
    return optimizer.learning_rate * config.training.batch_size / optimizer.reference_batch_size


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Update number -> rate: linear warm-up from a third, then steps or a cosine to zero."""
    optimizer = config.optimizer
    rate, length, warmup = base_rate(config), total_steps(config), optimizer.warmup_steps
    boundaries = [scaled_steps(config, step) for step in optimizer.decay_steps]

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.minimum(step / max(warmup, 1), 1.0)
        factor = (1 - progress) / 3 + progress if warmup else jnp.float32(1.0)
        if optimizer.schedule == "cosine":
            factor *= 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / length, 1.0)))
        else:
            factor *= 0.1 ** sum((step >= boundary).astype(jnp.float32) for boundary in boundaries)
        return rate * factor

    return schedule
