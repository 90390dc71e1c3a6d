"""The batch: the one structure that crosses from the host to the devices.

A flat pytree with static shapes. Letters as everywhere: B batch, K shots, S reference side, H W canvas,
G ground-truth instances (padded), m side of a cropped mask, P keypoints.

The annotations hold for a batch of arrays (tests/test_batch.py); trees of the same form may hold anything, such as the
shardings of its arrays.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

Array = jax.Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """B episodes on one canvas. Every array has the batch axis first, so it shards along that axis."""

    images: UInt8[Array, "B H W 3"]
    """(B, H, W, 3) uint8 RGB; zero outside `image_sizes`."""
    image_sizes: Int32[Array, "B 2"]
    """(B, 2) int32, height and width of the part of the canvas that the resized image covers."""
    references: UInt8[Array, "B K S S 3"]
    """(B, K, S, S, 3) uint8 RGB, square crops of example cells."""
    reference_present: Bool[Array, " B"]
    """(B,) bool, whether the category of the references is in the target."""
    contrast_references: UInt8[Array, "B contrast_K S S 3"]
    """(B, K, S, S, 3) uint8, crops of cells of another category; K is 0 where they are not used."""
    contrast_classes: Int32[Array, " B"]
    """(B,) int32, the category of `contrast_references`, numbered as `gt_classes`; 0 where not used."""
    gt_boxes: Float32[Array, "B G 4"]
    """(B, G, 4) float32 (x1, y1, x2, y2) in canvas pixels."""
    gt_valid: Bool[Array, "B G"]
    """(B, G) bool, false where the row is padding."""
    gt_classes: Int32[Array, "B G"]
    """(B, G) int32, 1 ... n for the n categories that training may learn, in their order; 0 for others and padding."""
    gt_matches: Bool[Array, "B G"]
    """(B, G) bool, whether the category of the instance is that of the references."""
    gt_ignore: Bool[Array, "B G"]
    """(B, G) bool, neither positive nor negative: crowds, and categories held out of training."""
    gt_masks: UInt8[Array, "B G m m"]
    """(B, G, m, m) uint8 in 0..255, coverage of each cell of the m x m grid laid over the instance's own box."""
    gt_keypoints: Float32[Array, "B G P 3"]
    """(B, G, P, 3) float32 x, y in canvas pixels (the middle of pixel i is i + 0.5, whatever the convention of the
    boxes), and 2 (visible), 1 (hidden), or 0 (not labelled or not in the image); P is 0 where there are none."""
    targets: Int32[Array, " B"]
    """(B,) int32, positions of the targets among the training images, for messages."""
    sample_ids: Int32[Array, " B"]
    """(B,) int32, position of the episode in the whole run; random keys on the device derive from it."""
