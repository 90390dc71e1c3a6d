"""The focal loss, a binary cross entropy in which what is easy counts little.

Source: RetinaNet (arXiv 1708.02002), section 3.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Num, Shaped

from fsis_jax.ops.shapes import Scalar


@functools.partial(jax.jit, static_argnames=("gamma",))
def sigmoid_focal_loss(
    logits: Num[Array, "*batch"],
    targets: Shaped[Array, "*batch"],
    *,
    alpha: Scalar | None = 0.25,
    gamma: float = 2.0,
) -> Float32[Array, "*batch"]:
    """-alpha_t (1 - p_t)^gamma log(p_t) of each element (...), neither summed nor averaged.

    p_t is the probability, sigmoid(logits), that is given to the target.

    Args:
      targets: of the shape of the logits, 0 or 1 (of any type), or a probability in between: the cross entropy
        then takes the place of -log(p_t), and p_t and alpha_t are means weighted with it.
      alpha: weight of the targets 1; those that are 0 have 1 - alpha. None: 1 for both.
      gamma: 0 is the cross entropy; between 0 and 1 the gradient is infinite where p_t is 1.

    Raises:
      ValueError: targets of another shape.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"sigmoid_focal_loss: targets have shape {targets.shape}, expected {logits.shape}")
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    entropy = -targets * jax.nn.log_sigmoid(logits) - (1.0 - targets) * jax.nn.log_sigmoid(-logits)
    # 1 - p_t without a difference of numbers near 1.
    missed = targets * jax.nn.sigmoid(-logits) + (1.0 - targets) * jax.nn.sigmoid(logits)
    loss = entropy * missed**gamma
    return loss if alpha is None else loss * (alpha * targets + (1.0 - alpha) * (1.0 - targets))
