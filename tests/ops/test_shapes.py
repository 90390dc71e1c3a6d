"""What the ops refuse by themselves, and that the tests execute their annotations."""

import jax.numpy as jnp
import jaxtyping
import pytest

from fsis_jax import ops
from fsis_jax.ops.shapes import check_shapes

MAP = jnp.zeros((8, 9, 3))
BOXES = jnp.zeros((5, 4))
WITH_BATCH = jnp.zeros((5, 5))
"""torchvision's rois: the number of the image in front."""
SCORES, VALID = jnp.zeros(5), jnp.ones(5, bool)


def test_shapes_by_hand():
    check_shapes("op", a=(jnp.zeros((2, 3, 4)), "... 4"), b=(jnp.zeros(4), "... 4"), c=(jnp.zeros((0, 4)), "N 4"))
    check_shapes("op", a=(jnp.zeros((2, 3)), "N M"), b=(jnp.zeros((3, 2)), "M N"))
    with pytest.raises(ValueError, match=r"^op: a has shape \(3, 5\), expected \(N, 4\)$"):
        check_shapes("op", a=(jnp.zeros((3, 5)), "N 4"))
    with pytest.raises(ValueError, match=r"^op: b has shape \(2, 2\), expected \(M, N\) with M = 3, N = 2$"):
        check_shapes("op", a=(jnp.zeros((2, 3)), "N M"), b=(jnp.zeros((2, 2)), "M N"))
    with pytest.raises(ValueError, match=r"^op: a has shape \(\), expected \(\.\.\., 4\)$"):
        check_shapes("op", a=(jnp.zeros(()), "... 4"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.area(WITH_BATCH), r"area: boxes has shape \(5, 5\), expected \(\.\.\., 4\)"),
        (lambda: ops.pairwise_iou(BOXES, BOXES[0]), r"pairwise_iou: b has shape \(4,\), expected \(M, 4\)"),
        (lambda: ops.pairwise_ioa(WITH_BATCH, BOXES), r"pairwise_ioa: a has"),
        (lambda: ops.paired_iou(BOXES, WITH_BATCH), r"paired_iou: b has"),
        (lambda: ops.paired_giou(BOXES, WITH_BATCH), r"paired_giou: b has"),
        (lambda: ops.paired_diou(BOXES, WITH_BATCH), r"paired_diou: b has"),
        (lambda: ops.paired_ciou(BOXES, WITH_BATCH), r"paired_ciou: b has"),
        (lambda: ops.box_convert(WITH_BATCH, "xyxy", "xywh"), r"box_convert: boxes has"),
        (lambda: ops.encode(WITH_BATCH, BOXES), r"encode: boxes has"),
        (lambda: ops.decode(BOXES, WITH_BATCH), r"decode: anchors has"),
        (lambda: ops.clip(WITH_BATCH, (8, 8)), r"clip: boxes has"),
        (lambda: ops.grid_anchors(BOXES[0], (2, 2), 4.0), r"grid_anchors: cell has shape \(4,\), expected \(A, 4\)"),
        (
            lambda: ops.assign(BOXES, BOXES, VALID[:4], positive_iou=0.5, negative_iou=0.5),
            r"assign: gt_valid has shape \(4,\), expected \(G,\) with G = 5",
        ),
        (
            lambda: ops.nms(BOXES, SCORES[:, None], VALID, iou_threshold=0.5, max_outputs=5),
            r"nms: scores has shape \(5, 1\), expected \(N,\) with N = 5",
        ),
        (
            lambda: ops.batched_nms(BOXES, SCORES, VALID[:3] * 1, VALID, iou_threshold=0.5, max_outputs=5),
            r"batched_nms: classes has shape \(3,\), expected \(N,\) with N = 5",
        ),
        (lambda: ops.soft_nms(WITH_BATCH, SCORES, VALID, max_outputs=5), r"soft_nms: boxes has"),
        (
            lambda: ops.box_voting(BOXES, SCORES, BOXES, SCORES[:2], VALID, iou_threshold=0.5),
            r"box_voting: all_scores has shape \(2,\), expected \(N,\) with N = 5",
        ),
        (
            lambda: ops.roi_align(MAP, WITH_BATCH, spatial_scale=1.0, output_size=2),
            r"roi_align: rois has shape \(5, 5\), expected \(R, 4\)",
        ),
        (
            lambda: ops.roi_align(MAP[None], BOXES, spatial_scale=1.0, output_size=2),
            r"roi_align: features has shape \(1, 8, 9, 3\), expected \(h, w, C\)",
        ),
        (lambda: ops.roi_pool(MAP, WITH_BATCH, spatial_scale=1.0, output_size=2), r"roi_pool: rois has"),
        (lambda: ops.roi_crop(MAP, WITH_BATCH, spatial_scale=1.0, output_size=2), r"roi_crop: rois has"),
        (
            # A pyramid with channels first: the last axes differ.
            lambda: ops.multilevel_roi_align(
                {2: jnp.zeros((3, 8, 8)), 3: jnp.zeros((3, 4, 4))}, BOXES, VALID * 2, output_size=2
            ),
            r"multilevel_roi_align: features\[3\] has shape \(3, 4, 4\), expected \(h3, w3, C\) with C = 8",
        ),
        (
            lambda: ops.multilevel_roi_pool({2: MAP}, BOXES, VALID[:2] * 2, method="pool", output_size=2),
            r"multilevel_roi_pool: levels has shape \(2,\), expected \(R,\) with R = 5",
        ),
        (
            lambda: ops.multilevel_roi_align(
                {2: MAP}, BOXES, VALID * 2, output_size=2, limits=jnp.array([[8, 8], [4, 4]])
            ),
            r"multilevel_roi_align: limits has shape \(2, 2\), expected \(1, 2\)",
        ),
        (lambda: ops.assign_levels(WITH_BATCH, min_level=2, max_level=5), r"assign_levels: rois has"),
        (
            lambda: ops.roi_mask_targets(jnp.zeros((5, 7, 7)), BOXES[:3], BOXES, VALID * 0, size=7),
            r"roi_mask_targets: gt_boxes has shape \(3, 4\), expected \(G, 4\) with G = 5",
        ),
        (lambda: ops.owner_map(MAP, BOXES[:3], VALID, size=(4, 4), stride=2), r"owner_map: boxes has .* with G = 8"),
        (lambda: ops.paste_masks(MAP[0], BOXES, size=(4, 4)), r"paste_masks: masks has shape \(9, 3\)"),
        (lambda: ops.masks_to_boxes(MAP[0]), r"masks_to_boxes: masks has shape \(9, 3\), expected \(G, H, W\)"),
        (
            lambda: ops.pairwise_oks(jnp.zeros((2, 17, 2)), jnp.zeros((5, 17, 3)), BOXES, SCORES),
            r"pairwise_oks: keypoints has shape \(2, 17, 2\), expected \(N, P, 3\)",
        ),
        (
            lambda: ops.oks_nms(jnp.zeros((2, 17, 3)), BOXES, SCORES, VALID, threshold=0.5, max_outputs=5),
            r"oks_nms: boxes has shape \(5, 4\), expected \(N, 4\) with N = 2",
        ),
        (lambda: ops.conv2d(MAP, jnp.zeros((1, 1, 3, 2))), r"conv2d: x has shape \(8, 9, 3\), expected \(N, h, w, C\)"),
        (
            # A kernel as PyTorch has it, (O, C, k, k).
            lambda: ops.conv2d(MAP[None], jnp.zeros((2, 3, 1, 1))),
            r"conv2d: kernel has shape \(2, 3, 1, 1\), expected \(k, k, 3, O\)",
        ),
        (lambda: ops.transform_kernel(jnp.zeros((2, 3, 3, 3))), r"transform_kernel: kernel has"),
        (lambda: ops.conv3x3(MAP, jnp.zeros((25, 3, 2))), r"conv3x3: x has shape \(8, 9, 3\)"),
        (lambda: ops.sample_at_offsets(MAP[None], MAP, layout="split"), r"sample_at_offsets: features has"),
    ],
)
def test_wrong_shapes_are_errors(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_annotations_are_executed():
    """With a type that `nms` itself would take, for an array that it does not look at in another way."""
    with pytest.raises(jaxtyping.TypeCheckError, match="valid"):
        ops.nms(BOXES, SCORES, SCORES, iou_threshold=0.5, max_outputs=5)
    with pytest.raises(jaxtyping.TypeCheckError, match="boxes"):
        ops.area(WITH_BATCH)
