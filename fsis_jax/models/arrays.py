"""What a detector is given and what it gives, for those who only hold it: no module is imported here."""

import dataclasses

import jax

Pyramid = dict[int, jax.Array]
"""{level: (B, h, w, C)}, h = H / 2**level. Level 1, where it is there, is the stem, which the votes alone read."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """D instances of each of B images, by descending score."""

    boxes: jax.Array
    """(B, D, 4) float32, pixels of the original image."""
    scores: jax.Array
    """(B, D)."""
    valid: jax.Array
    """(B, D) bool."""
    classes: jax.Array
    """(B, D) int32, 1 to C of a closed-set detector; 1 with references."""
    masks: jax.Array | None
    """(B, D, M, M) probabilities over each instance's own box; None without a mask head."""
    keypoints: jax.Array | None = None
    """(B, D, P, 3), x and y in pixels of the original image, and the score; None without a keypoint head."""
    kind_logits: jax.Array | None = None
    """(B, D, K) log odds that each is a cell like the references of each of K kinds; None of one kind."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """B images as the network is shown them."""

    images: jax.Array
    """(B, H, W, 3) normalised float32, zero outside the image."""
    image_sizes: jax.Array
    """(B, 2) int32."""
    scales: jax.Array | float = 1.0
    """(B,) float32, canvas pixels per pixel of the original image; or one number for all."""
    flipped: bool = dataclasses.field(default=False, metadata={"static": True})
    """Left and right have changed places."""
