"""NMS, soft-NMS, voting, the choice of detections and of proposals against the PyTorch project's."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import largest, relative, unequal
from golden_files import Vectors, load
from parity_table import Figures

from fsis_jax import ops
from fsis_jax.config import base_config
from fsis_jax.models.rpn import ProposalSettings, propose

DETECTIONS = base_config().model.detections


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "ops.npz")


def all_valid(boxes: np.ndarray) -> np.ndarray:
    return np.ones(len(boxes), bool)


def kept_by_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices by descending score."""
    indices, valid = ops.nms(boxes, scores, all_valid(boxes), iou_threshold=threshold, max_outputs=len(boxes), offset=1)
    return np.asarray(indices)[np.asarray(valid)]


def differing(ours: np.ndarray, theirs: np.ndarray) -> int:
    """How many indices only one of two sets has."""
    return len(np.setxor1d(ours, theirs))


def test_nms(vectors: Vectors, figures: Figures) -> None:
    """The cython function and the compiled one of csrc."""
    detections = vectors["nms/dets"]
    for name in vectors.starting("nms/keep_"):
        found = kept_by_nms(detections[:, :4], detections[:, 4], float(name.rpartition("_")[2]))
        figures.check("NMS, wrong boxes", "", differing(found, vectors[name]), 0)


def test_nms_of_equal_scores(vectors: Vectors, figures: Figures) -> None:
    """In the order that the original's unstable sort happened to take (quirk Q19)."""
    boxes, order = vectors["nms/ties_dets"][:, :4], vectors["nms/ties_order_used"]
    scores = np.empty(len(order), np.float32)
    scores[order] = np.arange(len(order), 0, -1)
    for name in vectors.starting("nms/ties_keep_"):
        found = kept_by_nms(boxes, scores, float(name.rpartition("_")[2]))
        figures.check("NMS, wrong boxes", "", differing(found, vectors[name]), 0)


@pytest.mark.parametrize("method", ["linear", "gaussian", "hard"])
def test_soft_nms(vectors: Vectors, figures: Figures, method: str) -> None:
    detections = vectors["softnms/dets"]
    for name in vectors.starting(f"softnms/{method}_"):
        if not name.endswith("_dets"):
            continue
        sigma, threshold, floor = map(float, re.findall(r"[\d.]+(?=_)", name))
        indices, scores, valid = ops.soft_nms(
            detections[:, :4],
            detections[:, 4],
            all_valid(detections),
            method=method,
            iou_threshold=threshold,
            sigma=sigma,
            score_threshold=floor,
            max_outputs=len(detections),
            offset=1,
        )
        count = int(valid.sum())
        order = vectors[name.replace("_dets", "_inds")]
        assert count == len(order)
        figures.check("soft-NMS, boxes out of place", "", unequal(indices[:count], order), 0)
        figures.check("soft-NMS, scores", "", largest(scores[:count], vectors[name][:, 4]), 1e-5)


def exponent(vectors: Vectors, name: str, threshold: float) -> float:
    """The beta that the voting vectors were made with, which they do not say: sum of n scores / n^beta."""
    kept, voters = vectors["vote/top"], vectors["vote/all"]
    votes = np.asarray(ops.pairwise_iou(kept[:, :4], voters[:, :4], offset=1)) >= threshold
    total, count = (votes * voters[:, 4]).sum(1), votes.sum(1)
    several = count > 1
    if not several.any():
        pytest.skip("no box has two voters")
    return float(np.round(np.median(np.log(total / vectors[name][:, 4])[several] / np.log(count[several])), 3))


@pytest.mark.parametrize("method", ["id", "temp_avg", "avg", "iou_avg", "generalized_avg", "quasi_sum"])
def test_box_voting(vectors: Vectors, figures: Figures, method: str) -> None:
    kept, voters = vectors["vote/top"], vectors["vote/all"]
    for name in vectors.starting(f"vote/{method.upper()}_"):
        threshold = name.rpartition("_")[2]
        boxes, scores = ops.box_voting(
            kept[:, :4],
            kept[:, 4],
            voters[:, :4],
            voters[:, 4],
            all_valid(voters),
            iou_threshold=float(threshold),
            method=method,
            beta=exponent(vectors, f"vote/QUASI_SUM_{threshold}", float(threshold)),
            offset=1,
        )
        figures.check("box voting, px", "", largest(boxes, vectors[name][:, :4]), 0.01)
        figures.check("box voting, scores", "", largest(scores, vectors[name][:, 4]), 1e-5)


def by_score(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


@pytest.mark.parametrize(("prefix", "method"), [("", "linear"), ("hard_", "hard")])
def test_best_detections(vectors: Vectors, figures: Figures, prefix: str, method: str) -> None:
    """Score threshold, suppression, and no more than so many: as the detector does it after decoding."""
    scores, boxes = vectors["limit/scores_in"][:, 1], vectors["limit/boxes_in"][:, 4:8]
    expected = by_score(vectors[f"limit/{prefix}out_boxes"], vectors[f"limit/{prefix}out_scores"])
    limit = int(vectors["limit/max"])
    valid = scores > DETECTIONS.score_threshold
    if method == "linear":
        kept, found, valid = ops.soft_nms(
            boxes,
            scores,
            valid,
            method=DETECTIONS.nms_method,
            iou_threshold=DETECTIONS.nms_threshold,
            score_threshold=DETECTIONS.decayed_score_threshold,
            max_outputs=limit,
            offset=1,
        )
    else:
        kept, valid = ops.nms(boxes, scores, valid, iou_threshold=DETECTIONS.nms_threshold, max_outputs=limit, offset=1)
        found = scores[kept]
    count = int(valid.sum())
    figures.check("best detections, px", "", largest(boxes[kept[:count]], expected[0]), 0.01)
    figures.check("best detections, scores", "", largest(found[:count], expected[1]), 1e-5)
    if method == "hard":
        # With voting, whose defaults of the original are these.
        voted, _ = ops.box_voting(
            boxes[kept], found, boxes, scores, scores > DETECTIONS.score_threshold, iou_threshold=0.8, offset=1
        )
        expected = by_score(vectors["limit/hardvote_out_boxes"], vectors["limit/hard_out_scores"])
        figures.check("best detections, px", "", largest(voted[:count], expected[0]), 0.01)


def test_proposals_of_one_level(vectors: Vectors, figures: Figures) -> None:
    """Decoding, clipping, least size, NMS: the proposals of each image in their order."""
    probabilities, deltas, info = (vectors[f"genprop/{name}"] for name in ("probs", "deltas", "im_info"))
    pre, post, least, threshold = vectors["genprop/pre_post_min_nms"]
    rois, scores = vectors["genprop/rois"], vectors["genprop/roi_probs"][:, 0]
    images, count, height, width = probabilities.shape
    level = round(np.log2(info[:, 0].max() / height))
    cell = ops.cell_anchors(32.0 * 2 ** (level - 2), (0.2, 0.5, 1.0, 2.0, 5.0), stride=2**level, offset=1)
    anchors = ops.grid_anchors(cell, (height, width), 2**level)
    logits = jnp.asarray(probabilities.transpose(0, 2, 3, 1).reshape(images, -1))  # only their order matters
    flat = jnp.asarray(deltas.reshape(images, count, 4, height, width).transpose(0, 3, 4, 1, 2).reshape(images, -1, 4))
    for row in range(images):
        settings = ProposalSettings(
            pre_nms=int(pre), post_nms=int(post), nms_threshold=threshold,
            min_size=float(max(least, 1) * info[row, 2]), offset=1,
        )  # fmt: skip
        found = jax.jit(
            lambda logits, deltas, size, settings=settings: propose(
                {level: logits}, {level: deltas}, {level: anchors}, {level: None}, size, settings
            )
        )(logits[row : row + 1], flat[row : row + 1], jnp.asarray(info[row : row + 1, :2]))
        mine = rois[:, 0] == row
        kept = np.asarray(found.valid[0])
        figures.check("proposals of a level, px", "", largest(found.boxes[0][kept], rois[mine, 1:]), 0.01)
        figures.check("proposals of a level, scores", "", relative(found.scores[0][kept], scores[mine]), 1e-5)
