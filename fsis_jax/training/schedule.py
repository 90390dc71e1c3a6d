"""Learning rate and length of a run: the linear scaling rule as the PyTorch project's train_net_step.py applies it.

The rate scales with the batch size; decay steps and length with the inverse of the effective batch size (batch
size times accumulated passes); the warm-up is never rescaled.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Schedule:
    """Update number -> rate: linear warm-up from a third, then steps or a cosine to zero.

    Its values are arguments of a compiled step, not part of it, so that a longer run is the same program.
    """

    rate: jax.Array
    """After warm-up, float32."""
    warmup: jax.Array
    """Updates of warm-up, float32, as are the following."""
    length: jax.Array
    """Updates of the run, which a cosine spans."""
    boundaries: jax.Array
    """(N,) updates from which the rate is a tenth of that before."""
    cosine: bool = dataclasses.field(metadata={"static": True})

    def __call__(self, update: ArrayLike) -> jax.Array:
        """The rate of the update of this number, the first is 0."""
        update = jnp.asarray(update, jnp.float32)
        progress = jnp.where(self.warmup > 0, jnp.minimum(update / jnp.maximum(self.warmup, 1), 1.0), 1.0)
        factor = (1 - progress) / 3 + progress
        if self.cosine:
            factor *= 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(update / self.length, 1.0)))
        else:
            factor *= 0.1 ** (update >= self.boundaries).astype(jnp.float32).sum()
        return self.rate * factor


def learning_rate(config: ConfigDict) -> Schedule:
    """The schedule of a run."""
    optimizer = config.optimizer
    return Schedule(
        rate=jnp.float32(base_rate(config)),
        warmup=jnp.float32(optimizer.warmup_steps),
        length=jnp.float32(total_steps(config)),
        boundaries=jnp.array([scaled_steps(config, step) for step in optimizer.decay_steps], jnp.float32),
        cosine=optimizer.schedule == "cosine",
    )
