"""Losses, gradients and batch statistics of one training forward against the PyTorch project's (V1, R50-FPN).

The random choices (which anchors, which rois) are the golden ones; two images, the first with references of its own
category, the second with references of an absent one.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_weights import build, golden_values, our_layout, our_path, tensor_names

from fsis_jax import ops
from fsis_jax.config import base_config
from fsis_jax.models import losses
from fsis_jax.models.detector import Detector
from fsis_jax.models.extent import Extent
from fsis_jax.models.layers import BatchStatistic
from fsis_jax.models.targets import Roles, SamplingSettings, rpn_targets
from fsis_jax.training.optimizer import make_optimizer, trainable

pytestmark = pytest.mark.slow

LEVELS = (2, 3, 4, 5, 6)
IMAGES = 2
ROIS = 64
"""Sampled per image."""
NOISE = {"match_net.W.0.bias", "match_net.Q.0.bias"}
"""A bias before batch statistics: its gradient is 0 but for rounding."""

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def expected(golden: pathlib.Path) -> Arrays:
    with np.load(golden / "V1_fpn_full" / "train.npz") as file:
        return dict(file)


def rows(expected: Arrays, key: str, columns: int) -> np.ndarray:
    """All levels of (B, A * columns, h, w) arrays in our order: (B, N, columns)."""
    parts = []
    for level in LEVELS:
        x = expected[f"{key}_fpn{level}"]
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels // columns, columns, height, width).transpose(0, 3, 4, 1, 2)
        parts.append(x.reshape(batch, -1, columns))
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def inputs(expected: Arrays) -> Arrays:
    """What a training step samples, and the images."""
    image = expected["blob/mask_rois"][:, 0]
    masks = expected["blob/masks_int32"][:, 28 * 28 :].reshape(-1, 28, 28)
    most = int(np.bincount(image.astype(int)).max())
    mask_rois, mask_targets = np.zeros((IMAGES, most, 4), np.float32), np.zeros((IMAGES, most, 28, 28), np.float32)
    mask_valid = np.zeros((IMAGES, most), bool)
    for row in range(IMAGES):
        count = (image == row).sum()
        mask_rois[row, :count] = expected["blob/mask_rois"][image == row, 1:]
        mask_targets[row, :count] = masks[image == row]
        mask_valid[row, :count] = True
    return {
        "images": expected["data"].transpose(0, 2, 3, 1),
        "references": expected["query"].transpose(1, 0, 3, 4, 2),
        "rpn_labels": rows(expected, "rpnblob/labels_int32", 1)[..., 0].astype(np.int32),
        "rpn_targets": rows(expected, "rpnblob/bbox_targets", 4),
        "rois": expected["blob/rois"][:, 1:].reshape(IMAGES, ROIS, 4),
        "labels": expected["blob/labels_int32"].reshape(IMAGES, ROIS),
        "box_targets": expected["blob/bbox_targets"].reshape(IMAGES, ROIS, 8)[..., 4:],
        "mask_rois": mask_rois,
        "mask_valid": mask_valid,
        "masks": mask_targets,
    }


@pytest.fixture(scope="module")
def found(golden: pathlib.Path, expected: Arrays, inputs: Arrays) -> dict[str, Any]:
    """Outputs, losses, statistics, and the gradients without and with the mask loss."""
    config = base_config()
    config.model.rpn.train_post_nms = 500
    graph, state = build(config, golden_values(golden))
    params, others = nnx.split_state(state, nnx.Param, ...)
    sizes = jnp.asarray(expected["im_info"][:, :2].astype(np.int32))
    present = jnp.asarray(expected["query_type"] == 1)

    def loss(params: nnx.State, others: nnx.State, x: Arrays, mask_weight: float) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, others, copy=True)
        extent = Extent.of(sizes)
        pyramid = model.pyramid(x["images"], extent)
        matched = model.match(pyramid, model.encode_references(x["references"]), extent, train=True)
        rpn_class, rpn_box = losses.rpn_losses(
            jnp.concatenate(list(matched.logits.values()), 1),
            jnp.concatenate(list(matched.deltas.values()), 1),
            x["rpn_labels"],
            x["rpn_targets"],
            samples_per_image=config.model.rpn.samples,
            axis_name=None,
        )
        logits, deltas = model.classify(matched, x["rois"])
        valid = jnp.ones(logits.shape[:2], bool)
        box_class, box = losses.box_losses(
            logits, deltas, x["labels"], valid, x["box_targets"], present, axis_name=None
        )
        masks = model.segment(matched, x["mask_rois"])
        mask = losses.mask_loss(masks, x["masks"], x["mask_valid"] & present[:, None], axis_name=None)
        outputs = {
            "matched": matched, "logits": logits, "deltas": deltas, "masks": masks,
            "proposals": model.proposals(matched, pyramid, extent, sizes, train=True),
            "rpn_class": rpn_class, "rpn_box": rpn_box, "box_class": box_class, "box": box, "mask": mask,
            "statistics": nnx.state(model, BatchStatistic),
        }  # fmt: skip
        return rpn_class + rpn_box + box_class + box + mask_weight * mask, outputs

    run = jax.jit(jax.grad(loss, has_aux=True))
    gradients, outputs = run(params, others, inputs, 0.0)
    outputs["state"], outputs["gradient_state"] = state, gradients
    outputs["gradients"] = {path: np.asarray(v[...]) for path, v in nnx.to_flat_state(gradients)}
    gradients, _ = run(params, others, inputs, 1.0)
    outputs["gradients_with_mask"] = {path: np.asarray(v[...]) for path, v in nnx.to_flat_state(gradients)}
    return outputs


def test_losses(found: dict[str, Any], expected: Arrays) -> None:
    def total(name: str) -> float:
        return sum(float(expected[f"loss/loss_{name}_fpn{level}"]) for level in LEVELS)

    terms = {
        "rpn_class": total("rpn_cls"),
        "rpn_box": total("rpn_bbox"),
        "box_class": float(expected["loss/loss_cls"]),
        "box": float(expected["loss/loss_bbox"]),
        "mask": float(expected["loss_mask"]),
    }
    np.testing.assert_allclose([found[term] for term in terms], list(terms.values()), rtol=1e-5)


def test_outputs(found: dict[str, Any], expected: Arrays) -> None:
    np.testing.assert_allclose(found["logits"].reshape(-1, 2), expected["cls_score_logits"], atol=1e-4)
    np.testing.assert_allclose(found["deltas"].reshape(-1, 4), expected["bbox_pred"][:, 4:], atol=1e-4)
    np.testing.assert_allclose(found["masks"][0, :4], expected["mask_pred_first4"][:, 1], atol=1e-4)
    for level in (4, 5):
        match, key = found["matched"].matches[level], f"match/{{}}_P{level}"
        for name, ours in (("rpn_feat", match.rpn), ("act_feat", match.target), ("act_aim", match.reference)):
            theirs = expected[key.format(name)]
            np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), theirs, atol=1e-4 * np.abs(theirs).max())


def test_batch_statistics(found: dict[str, Any], expected: Arrays) -> None:
    """The running statistics after the four levels, from the coarsest to the finest."""
    statistics = dict(nnx.to_flat_state(found["statistics"]))
    for name in expected["bn_changed_names"]:
        ours = statistics.pop(our_path(str(name), (256,)))
        theirs = expected[f"bn_after/{name}"]
        np.testing.assert_allclose(ours[...], theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    assert not statistics


def test_proposals(found: dict[str, Any], expected: Arrays) -> None:
    """The PyTorch project takes the best 500 of both images together; ours, per image, contain them."""
    boxes = np.asarray(found["proposals"].boxes)
    scores = np.where(found["proposals"].valid, found["proposals"].scores, -np.inf)
    image, place = np.unravel_index(np.argsort(-scores, axis=None)[:500], scores.shape)
    theirs = expected["proposals_all"]
    for row in range(IMAGES):
        ours, those = boxes[row, place[image == row]], theirs[theirs[:, 0] == row, 1:]
        assert len(ours) == len(those)
        assert np.abs(ours[:, None] - those[None]).max(-1).min(0).max() < 0.01


@pytest.mark.parametrize("with_mask", [False, True])
def test_gradients(found: dict[str, Any], expected: Arrays, golden: pathlib.Path, with_mask: bool) -> None:
    """L2 norm, sum and largest entry of the gradient of every trained tensor, and some gradients in full."""
    suffix = "_with_mask" if with_mask else ""
    ours = found[f"gradients{suffix}"]
    shapes = tensor_names(golden)
    names = [str(name) for name in expected[f"grad{suffix}_names"]]
    assert len(names) == (106 if with_mask else 94)
    for name, theirs in zip(names, expected[f"grad{suffix}_norm_sum_max"], strict=True):
        gradient = ours[our_path(name, shapes[name])].astype(np.float64)
        norm, largest = np.linalg.norm(gradient), np.abs(gradient).max()
        if name in NOISE:
            assert norm < 1e-4
            continue
        np.testing.assert_allclose([norm, largest], theirs[[0, 2]], rtol=1e-3, atol=1e-6, err_msg=name)
        # A sum of large terms of both signs: its rounding follows the norm.
        assert abs(gradient.sum() - theirs[1]) < 1e-3 * norm * np.sqrt(gradient.size) + 1e-6, name
    for key in expected:
        if key.startswith(f"gradfull{suffix}/"):
            name = key.split("/")[1]
            theirs = our_layout(name, expected[key])
            gradient = ours[our_path(name, shapes[name])]
            np.testing.assert_allclose(gradient, theirs, rtol=0, atol=1e-3 * np.abs(theirs).max(), err_msg=name)


def test_mask_head_learns_only_from_the_mask_loss(found: dict[str, Any]) -> None:
    for path, gradient in found["gradients"].items():
        if path[0] == "mask_head":
            assert not gradient.any()
            assert found["gradients_with_mask"][path].any()


def test_sgd_step(found: dict[str, Any], expected: Arrays, golden: pathlib.Path) -> None:
    """What is trained, and how far one step moves it: clipping, weight decay, twice the rate for biases."""
    config = base_config()
    config.optimizer.learning_rate = float(expected["sgd_lr"][0])
    config.optimizer.warmup_steps = 0
    shapes = tensor_names(golden)
    params, _ = nnx.split_state(found["state"], trainable(config), ...)
    moved = {our_path(str(name), shapes[str(name)]) for name in expected["grad_with_mask_names"]}
    assert {path for path, _ in nnx.to_flat_state(params)} == moved
    gradients, _ = nnx.split_state(found["gradient_state"], trainable(config), ...)
    optimizer = make_optimizer(config, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    norms = {path: np.linalg.norm(value[...]) for path, value in nnx.to_flat_state(updates)}
    deltas = dict(zip(expected["sgd_delta_names"], expected["sgd_delta_norm"], strict=True))
    for name in map(str, expected["grad_names"]):
        # The golden step is the difference of rounded parameters.
        np.testing.assert_allclose(
            norms[our_path(name, shapes[name])], deltas[name], rtol=2e-3, atol=1e-7, err_msg=name
        )


def test_anchor_labels_and_targets(expected: Arrays, inputs: Arrays) -> None:
    """The PyTorch project's sample of anchors is one that ours could have drawn."""
    model = nnx.eval_shape(lambda: Detector(base_config().model, rngs=nnx.Rngs(0)))
    maps = {level: np.empty((IMAGES, *expected[f"rpnblob/labels_int32_fpn{level}"].shape[2:], 1)) for level in LEVELS}
    anchors = jnp.concatenate(list(model.anchors(maps).values()))
    sizes = jnp.asarray(expected["im_info"][:, :2].astype(np.int32))
    inside = model._trainable_anchors(anchors, sizes)
    everything = SamplingSettings(
        positive_iou=0.7, negative_iou=0.3, samples=2 * len(anchors), positive_fraction=0.5, offset=1
    )
    for row in range(IMAGES):
        boxes = jnp.asarray(expected[f"gt_boxes_{row}"] * np.float32(1.2))
        none, all_ = jnp.zeros(len(boxes), bool), jnp.ones(len(boxes), bool)
        roles = Roles(boxes=boxes, positive=all_, other=none, ignore=none)
        labels, targets = rpn_targets(jax.random.key(0), anchors, inside[row], roles, everything)
        sampled = inputs["rpn_labels"][row]
        positive = sampled == ops.POSITIVE
        assert 0 < positive.sum() < 128  # fewer than the limit: none was left out
        np.testing.assert_array_equal(labels == ops.POSITIVE, positive)
        assert (labels[sampled == ops.NEGATIVE] == ops.NEGATIVE).all()
        assert 250 < (sampled != ops.IGNORE).sum() <= 256  # it draws negatives with replacement
        np.testing.assert_allclose(targets[positive], inputs["rpn_targets"][row, positive], atol=1e-5)


def test_roi_assignment(expected: Arrays) -> None:
    """Proposals against the ground truth, in pixels of the raw image."""
    for row in range(IMAGES):
        gt = expected[f"gt_boxes_{row}"]
        boxes = expected[f"merged_boxes_{row}"]
        assigned = ops.assign(boxes, gt, np.ones(len(gt), bool), positive_iou=0.5, negative_iou=0.5, offset=1)
        np.testing.assert_allclose(assigned.iou, expected[f"merged_max_overlaps_{row}"], atol=1e-5)
        np.testing.assert_array_equal(assigned.labels, expected[f"merged_max_overlaps_{row}"] >= 0.5)
        overlapping = expected[f"merged_max_overlaps_{row}"] > 0.01
        np.testing.assert_array_equal(assigned.matched[overlapping], expected[f"merged_gt_ind_{row}"][overlapping])
