"""Masks against the PyTorch project's: from polygons, as targets of a mask head, and pasted into the image."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
from differences import largest, one_minus_iou, relative, unequal
from golden_files import VARIANTS, Vectors, load
from parity_table import Figures

from fsis_jax import ops
from fsis_jax.data.instance import read_instance
from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.records import Annotations
from fsis_jax.preprocess.segmentation import compressed_counts
from fsis_jax.preprocess.windows import VisibleInstances, Window, decode_columns, visible_instances

GRID = 56
"""Side of the grid on which a batch holds an instance's mask."""
DISAGREEMENT = 0.05
"""What our resampled targets may differ from rasterised polygons, as 1 - mean IoU."""


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "ops.npz")


def instances_of(polygons: Sequence[list[float]], boxes: np.ndarray, size: tuple[int, int]) -> VisibleInstances:
    """As the data pipeline holds them, from one polygon each and inclusive boxes (n, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    rows = [
        {"id": row, "category_id": 1, "segmentation": [polygon], "bbox": [*box[:2].tolist(), *side.tolist()]}
        for row, (polygon, box, side) in enumerate(zip(polygons, boxes.astype(float), sides.astype(float), strict=True))
    ]
    found = [read_instance(row, *size)[0] for row in rows]
    annotations = Annotations(
        image_id=1,
        file_name="image",
        height=size[0],
        width=size[1],
        boxes=np.array([instance.box for instance in found]),
        classes=np.ones(len(found), np.int32),
        crowd=np.zeros(len(found), bool),
        areas=np.array([instance.area for instance in found], np.float32),
        annotation_ids=np.arange(len(found)),
        rles=tuple(instance.counts for instance in found),
    )
    visible = visible_instances(annotations, Window(0, 0, size[1], size[0]), GRID)
    assert len(visible.rows) == len(polygons)
    return visible


def test_masks_of_polygons(vectors: Vectors, figures: Figures) -> None:
    """And the tight boxes of the masks: ours end one pixel further."""
    polygons, expected = json.loads(str(vectors["poly/polys_json"])), vectors["poly/full_masks"]
    count, height, width = expected.shape
    counts = [compressed_counts([polygon], height, width) for polygon in polygons[:count]]
    masks = np.stack([decode_columns(rle, height, 0, width) for rle in counts])
    figures.check("masks of polygons, wrong pixels", "", unequal(masks, expected), 0)
    boxes = Instances.from_rles(counts, (height, width)).boxes - np.array([0, 0, 1, 1])
    figures.check("boxes of masks, px", "", largest(boxes, vectors["poly/bbox_of_mask"]), 0)


def test_mask_targets_of_boxes(vectors: Vectors, figures: Figures) -> None:
    """The original rasterises polygons inside the roi; ours resamples the instance's mask on its grid."""
    rois = vectors["poly/boxes"]
    proper = (rois[:, 2:] > rois[:, :2]).all(1)  # an empty roi has no target worth comparing
    polygons = json.loads(str(vectors["poly/polys_json"]))
    height, width = vectors["poly/full_masks"].shape[1:]
    instances = instances_of(polygons, vectors["poly/to_boxes"], (height, width))
    for name in vectors.starting("poly/mask"):
        expected = vectors[name]
        targets = ops.roi_mask_targets(
            instances.masks, instances.boxes, rois, np.arange(len(rois)), size=expected.shape[-1]
        )
        error = one_minus_iou(np.asarray(targets) > 0, expected > 0)[proper].mean()
        figures.check("mask targets, 1 - mean IoU", "", error, DISAGREEMENT)


@pytest.mark.parametrize(
    ("variant", "prefix"), [("V1_fpn_full", "blob"), ("V2_c4_full", "blob"), ("V2_c4_full", "res14")]
)
def test_mask_targets_in_training(golden: pathlib.Path, figures: Figures, variant: str, prefix: str) -> None:
    """Of the rois that the original sampled. It takes a roi as x1 to x2 here, not to x2 + 1."""
    vectors = load(golden, variant, "train.npz")
    rois, masks = vectors[f"{prefix}/mask_rois"], vectors[f"{prefix}/masks_int32"]
    side = round((masks.shape[1] / 2) ** 0.5)
    expected = masks.reshape(len(rois), 2, side, side)[:, 1]
    errors = []
    for image, (_, _, scale) in enumerate(vectors["im_info"]):
        polygons = json.loads(str(vectors[f"gt_polys_json_{image}"]))
        boxes = vectors[f"gt_boxes_{image}"]
        instances = instances_of(polygons, boxes, vectors[f"im_u8_{image}"].shape[:2])
        mine = (rois[:, 0] == image) & (expected >= 0).all((1, 2))
        found = rois[mine, 1:]
        matched = np.asarray(ops.pairwise_iou(found / scale, boxes, offset=1)).argmax(1)
        targets = ops.roi_mask_targets(instances.masks, instances.boxes * scale, found, matched, size=side)
        errors.append(one_minus_iou(np.asarray(targets) > 0, expected[mine] > 0))
    figures.check("mask targets, 1 - mean IoU", variant, np.concatenate(errors).mean(), DISAGREEMENT)


def pasted(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], *, legacy: bool) -> np.ndarray:
    """(n, H, W) bool from probabilities (n, M, M) and inclusive boxes (n, 4) in pixels of the image."""
    scores = np.arange(len(boxes), 0, -1, dtype=np.float32)  # keep the order
    found = Instances.from_padded(boxes, scores, scores > 0, masks, size, offset=1, legacy=legacy)
    full = np.zeros((len(found), *size), bool)
    for image, crop in zip(full, found.masks, strict=True):
        image[crop.slices] = crop.mask
    return full


def test_pasted_masks(vectors: Vectors, figures: Figures) -> None:
    """With the original's truncation (quirk Q18): boxes that leave the image, a tiny one, the whole image."""
    height, width = (int(side) for side in vectors["paste/hw"])
    expected = np.unpackbits(vectors["paste/out_bits"], axis=-1)[..., :width].astype(bool)
    found = pasted(vectors["paste/masks"][:, 1], vectors["paste/boxes"], (height, width), legacy=True)
    figures.check("pasted masks, 1 - IoU", "", one_minus_iou(found, expected).max(), 1e-3)
    # The same with the function on the device: a border of zeros, and the box grown alike and truncated.
    padded = np.pad(vectors["paste/masks"][:, 1], ((0, 0), (1, 1), (1, 1)))
    boxes = vectors["paste/boxes"]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * np.float32(padded.shape[-1] / (padded.shape[-1] - 2))
    whole = np.trunc(np.concatenate([centre - half, centre + half], axis=1))
    found = np.asarray(ops.paste_masks(padded, whole, size=(height, width), offset=1))
    figures.check("pasted masks, 1 - IoU", "", one_minus_iou(found, expected).max(), 1e-3)


@pytest.mark.parametrize("shots", ["k1", "k3", "c56"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_of_detections(golden: pathlib.Path, figures: Figures, variant: str, shots: str) -> None:
    """Pasted from the golden 28 x 28 probabilities."""
    vectors = load(golden, variant, "infer.npz")
    masks, counts = vectors[f"{shots}_masks28_top20"], vectors[f"{shots}_rle_top20"]
    height, width = vectors["im_u8"].shape[:2]
    expected = np.stack([decode_columns(str(rle).encode(), height, 0, width) for rle in counts])
    found = pasted(masks, vectors[f"{shots}_dets"][: len(masks), :4], (height, width), legacy=True)
    figures.check("pasted masks, 1 - IoU", variant, one_minus_iou(found, expected).max(), 1e-3)
    key = f"{shots}_mask_area_all"
    if key in vectors:
        error = relative(found.sum((1, 2)), vectors[key][: len(masks)])
        figures.check("areas of masks, relative", variant, error, 1e-3)


def test_our_own_pasting_is_near(vectors: Vectors, figures: Figures) -> None:
    """Ours truncates nothing. These masks are noise with long borders, which shift by up to a pixel: hence so far."""
    height, width = (int(side) for side in vectors["paste/hw"])
    expected = np.unpackbits(vectors["paste/out_bits"], axis=-1)[..., :width].astype(bool)
    found = pasted(vectors["paste/masks"][:, 1], vectors["paste/boxes"], (height, width), legacy=False)
    filled = expected.any((1, 2)) & found.any((1, 2))
    error = one_minus_iou(found, expected)[filled].mean()
    figures.check("masks pasted by our own rule, noise, 1 - mean IoU", "", error, 0.25)
