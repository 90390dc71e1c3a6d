"""Region proposal network (Ren et al. 2015) on a pyramid, as modeling/FPN.py and rpn_heads.py of the PyTorch project.

Anchors of a level are ordered (row, column, anchor); logits and deltas follow that order.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fsis_jax import ops
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import conv, relu, small_normal
from fsis_jax.ops.dispatch import Backend


class RPN(nnx.Module):
    """A 3x3 convolution, then objectness and box deltas per anchor; one set of weights for all levels.

    Args:
        channels: C.
        anchors: A, anchors per position.
        hidden: channels of the 3x3 convolution; 0: C.
        softmax: two outputs per anchor, all of the background and then all of the foreground. Their difference is the
            logit of a sigmoid with the same probability and the same cross entropy.
    """

    def __init__(
        self,
        channels: int,
        anchors: int,
        *,
        hidden: int = 0,
        softmax: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        hidden = hidden or channels
        self.softmax = softmax
        self.conv = conv(channels, hidden, 3, dtype=dtype, rngs=rngs)
        self.objectness = conv(hidden, (1 + softmax) * anchors, 1, dtype=dtype, rngs=rngs, kernel_init=small_normal)
        self.deltas = conv(hidden, 4 * anchors, 1, dtype=dtype, rngs=rngs, kernel_init=small_normal)

    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, h, w, C) -> logits (B, h * w * A) and deltas (B, h * w * A, 4), float32."""
        x = relu(self.conv(features))
        logits = self.objectness(x).astype(jnp.float32)
        if self.softmax:
            background, foreground = jnp.split(logits, 2, axis=-1)
            logits = foreground - background
        deltas = self.deltas(x).astype(jnp.float32)
        batch = features.shape[0]
        return logits.reshape(batch, -1), deltas.reshape(batch, -1, 4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposals:
    """R proposals of each of B images, by descending score."""

    boxes: jax.Array
    """(B, R, 4) float32."""
    scores: jax.Array
    """(B, R) objectness logits."""
    valid: jax.Array
    """(B, R) bool."""


@dataclasses.dataclass(frozen=True)
class ProposalSettings:
    """How many proposals are kept, and which."""

    pre_nms: int
    """Best anchors of a level that are decoded."""
    post_nms: int
    """Proposals that a level keeps after NMS, and all levels together after the merge."""
    nms_threshold: float
    min_size: float
    """Least width and height in canvas pixels."""
    offset: int
    """Box convention."""
    backend: Backend = "xla"
    """What runs NMS; see ops/dispatch.py."""


def anchors_inside(extent: Extent | None, features: jax.Array, level: int, per_position: int) -> jax.Array | None:
    """(B, h * w * A) bool: whether the anchor's position is in the image's extent; None if all are."""
    if extent is None:
        return None
    mask = extent.mask(features, 2**level)[..., 0] > 0  # (B, h, w)
    return jnp.repeat(mask.reshape(mask.shape[0], -1), per_position, axis=1)


def propose(
    logits: dict[int, jax.Array],
    deltas: dict[int, jax.Array],
    anchors: dict[int, jax.Array],
    inside: dict[int, jax.Array | None],
    image_sizes: jax.Array,
    settings: ProposalSettings,
) -> Proposals:
    """Decode, clip, filter and suppress, per image.

    Args:
        logits, deltas: per level (B, N) and (B, N, 4).
        anchors: per level (N, 4).
        inside: per level (B, N) bool or None; anchors outside are never proposed.
        image_sizes: (B, 2), boxes are clipped to it.
    """
    per_level = []
    for level, level_logits in logits.items():
        masked = level_logits
        within = inside[level]
        if within is not None:
            masked = jnp.where(within, level_logits, -jnp.inf)
        per_level.append(
            jax.vmap(_propose_level, in_axes=(0, 0, None, 0, None))(
                masked, deltas[level], anchors[level], image_sizes, settings
            )
        )
    boxes, scores, valid = (jnp.concatenate(parts, axis=1) for parts in zip(*per_level, strict=True))
    count = min(settings.post_nms, scores.shape[1])
    _, order = jax.lax.top_k(jnp.where(valid, scores, -jnp.inf), count)  # (B, R)
    return Proposals(
        boxes=jnp.take_along_axis(boxes, order[..., None], 1),
        scores=jnp.take_along_axis(scores, order, 1),
        valid=jnp.take_along_axis(valid, order, 1),
    )


def _propose_level(
    logits: jax.Array, deltas: jax.Array, anchors: jax.Array, image_size: jax.Array, settings: ProposalSettings
) -> tuple[jax.Array, jax.Array, jax.Array]:
    count = min(settings.pre_nms, logits.shape[0])
    scores, order = jax.lax.top_k(logits, count)
    decoded = ops.decode(deltas[order], anchors[order], offset=settings.offset)
    boxes = ops.clip(decoded, image_size, offset=settings.offset)
    sides = boxes[:, 2:] - boxes[:, :2] + settings.offset
    centres = boxes[:, :2] + sides / 2
    valid = jnp.isfinite(scores) & (sides >= settings.min_size).all(-1) & (centres < image_size[::-1]).all(-1)
    kept, kept_valid = ops.nms(
        boxes,
        scores,
        valid,
        iou_threshold=settings.nms_threshold,
        max_outputs=min(settings.post_nms, count),
        offset=settings.offset,
        backend=settings.backend,
    )
    return boxes[kept], scores[kept], kept_valid
