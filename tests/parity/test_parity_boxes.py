"""Anchors, box arithmetic, levels of rois and the labels of anchors against the PyTorch project's."""

import pathlib
import re

import jax
import numpy as np
import pytest
from differences import largest, relative, unequal
from golden_files import Vectors, load
from parity_table import Figures

from fsis_jax import ops
from fsis_jax.ops import NEGATIVE, POSITIVE
from fsis_jax.preprocess.transforms import Orientation

FPN_RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)
C4_RATIOS = (0.5, 1.0, 2.0)
C4_SIZES = (32, 64, 128, 256, 512)
POSITIVES = 128
"""Anchors of an image that the original samples at most as positives."""
WEIGHTS = {"rpn": (1.0, 1.0, 1.0, 1.0), "head": (10.0, 10.0, 5.0, 5.0)}


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "ops.npz")


def fpn_anchors(level: int) -> np.ndarray:
    return ops.cell_anchors(32.0 * 2 ** (level - 2), FPN_RATIOS, stride=2**level, offset=1)


def test_anchors(vectors: Vectors, figures: Figures) -> None:
    for name in vectors.starting("anchors/fpn_P"):
        figures.check("anchors, px", "", largest(fpn_anchors(int(name[-1])), vectors[name]), 1e-4)
    c4 = ops.cell_anchors(C4_SIZES, C4_RATIOS, stride=16, offset=1)
    for name in ("c4", "default"):
        figures.check("anchors, px", "", largest(c4, vectors[f"anchors/{name}"]), 1e-4)


def test_grid_of_anchors(vectors: Vectors, figures: Figures) -> None:
    """Rows ordered (y, x, anchor)."""
    size = int(vectors["anchors/field_P6_size"])
    grid = jax.jit(lambda: ops.grid_anchors(fpn_anchors(6), (size, size), 2**6))()
    figures.check("anchors, px", "", largest(grid, vectors["anchors/field_P6"]), 1e-3)


def test_areas_and_overlaps(vectors: Vectors, figures: Figures) -> None:
    overlaps = ops.pairwise_iou(vectors["bbox/ov_boxes"], vectors["bbox/gt"], offset=1)
    figures.check("IoU of boxes", "", largest(overlaps, vectors["bbox/overlaps"]), 1e-6)
    inside_out = vectors["bbox/neg_idx"]  # of negative area there; of none here
    areas, ours = vectors["bbox/areas"].copy(), ops.area(vectors["bbox/ov_boxes"], offset=1)
    assert (areas[inside_out] < 0).all()
    areas[inside_out] = 0
    figures.check("areas of boxes, relative", "", relative(ours, areas), 1e-6)


@pytest.mark.parametrize("name", WEIGHTS)
def test_coding(vectors: Vectors, figures: Figures, name: str) -> None:
    anchors, weights = vectors["bbox/ex"], WEIGHTS[name]
    targets = ops.encode(vectors["bbox/gt"], anchors, weights=weights, offset=1)
    figures.check("box targets, relative", "", relative(targets, vectors[f"bbox/targets_{name}"]), 1e-6)
    deltas = vectors[f"bbox/deltas_{name}"]
    per_class = deltas.reshape(len(deltas), -1, 4)
    decoded = ops.decode(per_class, anchors[:, None], weights=weights, offset=1)
    expected = vectors[f"bbox/pred_{name}"].reshape(per_class.shape)
    # Where the golden boxes reach a thousand pixels out of the image, float32 itself has steps of 1e-4.
    figures.check("decoded boxes, relative", "", relative(decoded, expected), 1e-6)
    clipped = vectors[f"bbox/clipped_{name}"].reshape(per_class.shape)
    width, height = (clipped[..., axis].max() + 1 for axis in (2, 3))  # some box reaches every side
    figures.check("clipped boxes, px", "", largest(ops.clip(expected, (height, width), offset=1), clipped), 1e-4)


def test_flipped_boxes(vectors: Vectors, figures: Figures) -> None:
    """Ours end where their last pixel ends, one further than theirs."""
    (name,) = vectors.starting("bbox/flip_w")
    end = np.array([0, 0, 1, 1], np.float32)
    width = int(name.rpartition("w")[2])
    flipped = Orientation(flip=True).boxes(vectors["bbox/ex"] + end, (0, width)) - end
    figures.check("flipped boxes, px", "", largest(flipped, vectors[name]), 1e-4)


def test_levels_of_rois(vectors: Vectors, figures: Figures) -> None:
    (name,) = vectors.starting("fpn/levels_")
    low, high = map(int, re.findall(r"\d+", name))
    levels = ops.assign_levels(vectors["fpn/boxes"], min_level=low, max_level=high, offset=1)
    figures.check("levels of rois, wrong ones", "", unequal(levels, vectors[name].astype(int)), 0)


def test_labels_of_anchors(vectors: Vectors, figures: Figures) -> None:
    """The original samples among its labels: all of its positives are ours, its negatives are among ours."""
    height, width = vectors["rpntgt/im_hw"]
    anchors, labels, targets, weights = [], [], [], []
    for name in vectors.starting("rpntgt/labels_P"):
        level = int(name[-1])
        rows, columns = vectors[name].shape[2:]

        def flat(x: np.ndarray, last: int, rows: int = rows, columns: int = columns) -> np.ndarray:
            return x[0].reshape(-1, last, rows, columns).transpose(2, 3, 0, 1).reshape(-1, last)

        anchors.append(ops.grid_anchors(fpn_anchors(level), (rows, columns), 2**level))
        labels.append(flat(vectors[name], 1)[:, 0])
        targets.append(flat(vectors[f"rpntgt/targets_P{level}"], 4))
        weights.append(flat(vectors[f"rpntgt/w_out_P{level}"], 4))
    boxes, label, target, weight = map(np.concatenate, (anchors, labels, targets, weights))
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] < width) & (boxes[:, 3] < height)
    gt = vectors["rpntgt/gt"]
    found = ops.assign(
        boxes,
        gt,
        np.ones(len(gt), bool),
        positive_iou=0.7,
        negative_iou=0.3,
        force_best=True,
        boxes_valid=inside,
        offset=1,
    )
    ours = np.asarray(found.labels)
    positive = ours == POSITIVE
    assert positive.any()
    missed = np.count_nonzero((label == POSITIVE) & ~positive)
    if np.count_nonzero(label == POSITIVE) < POSITIVES:  # none of them was left out
        missed = unequal(positive, label == POSITIVE)
    figures.check("labels of anchors, wrong positives", "", missed, 0)
    wrong = np.count_nonzero(ours[label == NEGATIVE] != NEGATIVE)
    figures.check("labels of anchors, wrong negatives", "", wrong, 0)
    sampled = label == POSITIVE
    encoded = ops.encode(gt[np.asarray(found.matched)[sampled]], boxes[sampled], offset=1)
    figures.check("box targets, relative", "", relative(encoded, target[sampled]), 1e-5)
    # What the box loss of an image is divided by: its sampled anchors.
    share = np.full((np.count_nonzero(label >= 0), 4), 1 / np.count_nonzero(label >= 0))
    figures.check("weights of anchors, relative", "", relative(weight[label >= 0], share), 1e-6)
