"""Losses, gradients and batch statistics of one training forward against the PyTorch project's, for every variant.

The random choices (which anchors, which rois) are the golden ones. The reduced vectors of some variants leave out what
all variants with a pyramid have in common, which is then read from the whole one.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import relative
from flax import nnx
from golden_files import VARIANTS, existing, load
from network_model import build, check_map, converted, empty, misread_maps, parity_config
from parity_table import Figures

from fsis_jax import ops
from fsis_jax.conversion import ca_fsis
from fsis_jax.models import losses
from fsis_jax.models.detector import Detector
from fsis_jax.models.layers import BatchStatistic, Training
from fsis_jax.models.objective import sampling_settings, trainable_anchors
from fsis_jax.models.targets import Roles, rpn_targets
from fsis_jax.training.optimizer import make_optimizer, trainable

pytestmark = pytest.mark.slow

WHOLE = "V1_fpn_full"
FEATURES, HEADS, LOSSES, GRADIENTS = 2e-5, 1e-4, 1e-5, 1e-3
ENTRIES = 1e-2
"""Single entries of a gradient; the original's own rounding moves them by up to 1e-3 of the largest."""
NOISE = ("match_net.W.0.bias", "match_net.Q.0.bias")
"""A bias before batch statistics: its gradient is 0 but for rounding."""


class Step:
    """One variant: its golden arrays, and what ours makes of the same inputs and samples."""

    def __init__(self, golden: pathlib.Path, variant: str) -> None:
        self.golden, self.variant = golden, variant
        self.own = load(golden, variant, "train.npz")
        self.config = parity_config(golden, variant)
        model = self.config.model
        self.pyramid = model.architecture == "fpn"
        self.levels = (2, 3, 4, 5, 6) if self.pyramid else (4,)
        self.images = len(self["query_type"])
        self.sizes = self["im_info"][:, :2].astype(np.int32)
        self.present = self["query_type"] == 1
        rows = self["blob/rois"][:, 0].astype(int)
        counts = np.bincount(rows, minlength=self.images)
        self.valid = np.arange(counts.max()) < counts[:, None]  # (B, R): an image may have fewer rois than another
        model.rpn.train_post_nms = len(self["proposals_all"])
        if not self.pyramid:
            model.mask_head.pooled = model.box_head.pooled  # the only shape in which the original's can be computed
        self.graph, self.state = build(golden, variant, self.config)
        self.inputs = self._inputs()
        self.found = self._run()

    def __getitem__(self, key: str) -> np.ndarray:
        if key in self.own or not self.pyramid:
            return self.own[key]
        return load(self.golden, WHOLE, "train.npz")[key]

    def level_key(self, key: str, level: int) -> str:
        return f"{key}_fpn{level}" if self.pyramid else key

    def rows(self, key: str, columns: int) -> np.ndarray:
        """All levels of (B, A * columns, h, w) arrays in our order: (B, N, columns)."""
        parts = []
        for level in self.levels:
            x = self[self.level_key(key, level)]
            batch, channels, height, width = x.shape
            x = x.reshape(batch, channels // columns, columns, height, width).transpose(0, 3, 4, 1, 2)
            parts.append(x.reshape(batch, -1, columns))
        return np.concatenate(parts, axis=1)

    @property
    def masks(self) -> str:
        """Prefix of the mask targets of the shape that the head gives."""
        return "blob/" if self.pyramid else "res14/"

    def _inputs(self) -> dict[str, np.ndarray]:
        """What a training step samples, and the images."""
        rois, targets = self[f"{self.masks}mask_rois"], self[f"{self.masks}masks_int32"]
        side = round((targets.shape[1] / 2) ** 0.5)
        targets = targets[:, side * side :].reshape(-1, side, side)
        image = rois[:, 0].astype(int)
        most = int(np.bincount(image, minlength=self.images).max())
        mask_rois = np.zeros((self.images, most, 4), np.float32)
        mask_targets = np.zeros((self.images, most, side, side), np.float32)
        mask_valid = np.zeros((self.images, most), bool)
        for row in range(self.images):
            count = (image == row).sum()
            mask_rois[row, :count] = rois[image == row, 1:]
            mask_targets[row, :count] = targets[image == row]
            mask_valid[row, :count] = (targets[image == row] >= 0).all((1, 2))  # -1: nothing to learn

        def per_image(key: str) -> np.ndarray:
            """(B, R, ...) from an array of all rois, image after image."""
            values = self[key]
            padded = np.zeros((*self.valid.shape, *values.shape[1:]), values.dtype)
            padded[self.valid] = values
            return padded

        return {
            "images": self["data"].transpose(0, 2, 3, 1),
            "references": self["query"].transpose(1, 0, 3, 4, 2),
            "rpn_labels": self.rows("rpnblob/labels_int32", 1)[..., 0].astype(np.int32),
            "rpn_targets": self.rows("rpnblob/bbox_targets", 4),
            "rois": per_image("blob/rois")[..., 1:],
            "labels": per_image("blob/labels_int32").astype(np.int32),
            "box_targets": per_image("blob/bbox_targets")[..., 4:],
            "mask_rois": mask_rois,
            "mask_valid": mask_valid,
            "masks": mask_targets,
        }

    def _run(self) -> dict[str, Any]:
        """Outputs, losses, statistics, and the gradients without and with the mask loss."""
        params, others = nnx.split_state(self.state, nnx.Param, ...)
        sizes, present = jnp.asarray(self.sizes), jnp.asarray(self.present)
        settings = self.config.model
        shared = settings.mask_head.pooled == settings.box_head.pooled

        def loss(
            params: nnx.State, others: nnx.State, x: dict[str, jax.Array], mask_weight: float
        ) -> tuple[jax.Array, Any]:
            model: Detector = nnx.merge(self.graph, params, others, copy=True)
            training = Training()
            extent = model.extent(sizes)
            pyramid = model.pyramid(x["images"], extent)
            matched = model.match(pyramid, model.encode_references(x["references"]), extent, training)
            logits, deltas = (
                jnp.concatenate([part[level] for level in self.levels], 1) for part in (matched.logits, matched.deltas)
            )
            samples = settings.rpn.samples if self.pyramid else None
            rpn_class, rpn_box = losses.rpn_losses(
                logits, deltas, x["rpn_labels"], x["rpn_targets"], samples_per_image=samples, axis_name=None
            )
            valid = jnp.asarray(self.valid)
            features = model.pool(matched, x["rois"], settings.box_head.pooled, valid=valid, training=training)
            scores, boxes = model.classify(features)
            box_class, box = losses.box_losses(
                scores, boxes[:, :, 0], x["labels"], valid, x["box_targets"], present, axis_name=None
            )
            count = x["mask_rois"].shape[1]
            if shared:  # the mask head reads what the box head has computed of the same rois, which come first
                mask_features = features.first(count)
            else:
                mask_features = model.pool(matched, x["mask_rois"], settings.mask_head.pooled)
            masks = model.masks_of(model.mask_head(mask_features))
            mask = losses.mask_loss(masks, x["masks"], x["mask_valid"] & present[:, None], axis_name=None)
            outputs = {
                "matched": matched, "logits": scores, "deltas": boxes[:, :, 0], "masks": masks,
                "proposals": model.proposals(matched, pyramid, extent, sizes, train=True),
                "rpn_class": rpn_class, "rpn_box": rpn_box, "box_class": box_class, "box": box, "mask": mask,
                "statistics": nnx.state(model, BatchStatistic),
            }  # fmt: skip
            return rpn_class + rpn_box + box_class + box + mask_weight * mask, outputs

        run = jax.jit(jax.grad(loss, has_aux=True))
        gradients, outputs = run(params, others, self.inputs, 0.0)
        outputs["gradient_state"] = gradients
        outputs["gradients"] = by_name(gradients)
        if "grad_with_mask_names" in self.own:
            gradients, _ = run(params, others, self.inputs, 1.0)
            outputs["gradients_with_mask"] = by_name(gradients)
        return outputs

    def class_error(self) -> float:
        """Of the class logits."""
        return relative(np.asarray(self.found["logits"])[self.valid], self["cls_score_logits"])

    def our_gradient(self, name: str, suffix: str = "") -> np.ndarray:
        ours = ca_fsis.our_name(name)
        assert ours is not None
        return self.found[f"gradients{suffix}"][ours]


def by_name(state: nnx.State) -> dict[str, np.ndarray]:
    """Flat name -> value."""
    return {"/".join(map(str, path)): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(state)}


@pytest.fixture(params=VARIANTS, scope="module")
def step(golden: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Step]:
    """Kept for the tests of its variant alone."""
    step = Step(golden, request.param)
    if step.config.model.matching.kind == "co_attention" or step.class_error() < HEADS:
        yield step
    else:
        with misread_maps():
            yield Step(golden, request.param)


def test_losses(step: Step, figures: Figures) -> None:
    def total(name: str) -> float:
        return sum(float(step[step.level_key(f"loss/loss_{name}", level)]) for level in step.levels)

    terms = {
        "rpn_class": total("rpn_cls"),
        "rpn_box": total("rpn_bbox"),
        "box_class": float(step["loss/loss_cls"]),
        "box": float(step["loss/loss_bbox"]),
        "mask": float(step["loss_mask" if step.pyramid else "res14/loss_mask"]),
    }
    for name, theirs in terms.items():
        error = abs(float(step.found[name]) - theirs) / max(theirs, 1e-6)
        figures.check(f"loss, {name}, relative", step.variant, error, LOSSES)


def test_outputs(step: Step, figures: Figures) -> None:
    figures.check("training, class logits", step.variant, step.class_error(), HEADS)
    deltas = step["bbox_pred"][:, 4:]
    figures.check(
        "training, box deltas", step.variant, relative(np.asarray(step.found["deltas"])[step.valid], deltas), HEADS
    )
    if "mask_pred_first4" in step.own:
        theirs = step["mask_pred_first4"][:, 1]
        figures.check("training, mask logits", step.variant, relative(step.found["masks"][0, :4], theirs), HEADS)
    fields = {"rpn_feat": "rpn", "act_feat": "target", "act_aim": "reference"}
    for key in [key for key in step.own if key.startswith("match/") and not key.endswith(("__stat", "__shape"))]:
        part, level = key.removeprefix("match/").rsplit("_", 1)
        if part in fields and f"{key}__shape" not in step.own:
            ours = np.asarray(getattr(step.found["matched"].matches[int(level[-1])], fields[part])).transpose(
                0, 3, 1, 2
            )
            if ours.shape == step[key].shape:
                figures.check("training, matching", step.variant, relative(ours, step[key]), FEATURES)
        elif part in fields:
            ours = getattr(step.found["matched"].matches[int(level[-1])], fields[part])
            check_map(figures, "training, matching", step.variant, ours, step.own, key, FEATURES)


def test_batch_statistics(step: Step, figures: Figures) -> None:
    """The running statistics after one step, of every norm that has them and of no other."""
    statistics = by_name(step.found["statistics"])
    for name in map(str, step["bn_changed_names"]):
        theirs = step[f"bn_after/{name}"]
        ours = statistics.pop(ca_fsis.our_name(name))[: len(theirs)]  # long ones are stored in part
        figures.check("running statistics", step.variant, relative(ours, theirs), FEATURES)
    assert not statistics


def test_proposals(step: Step, figures: Figures) -> None:
    """With a pyramid the original takes the best of all images together; ours, per image, contain them."""
    boxes = np.asarray(step.found["proposals"].boxes)
    scores = np.where(step.found["proposals"].valid, step.found["proposals"].scores, -np.inf)
    theirs = step["proposals_all"]
    if step.pyramid:
        image, place = np.unravel_index(np.argsort(-scores, axis=None)[: len(theirs)], scores.shape)
    else:
        image = theirs[:, 0].astype(int)
        place = np.concatenate([np.arange((image == row).sum()) for row in range(step.images)])
    for row in range(step.images):
        ours, those = boxes[row, place[image == row]], theirs[theirs[:, 0] == row, 1:]
        assert len(ours) == len(those)
        distance = np.abs(ours[:, None] - those[None]).max(-1)
        figures.check("training, proposals, px", step.variant, distance.min(0).max(), 0.02)
        figures.check("training, proposals, px", step.variant, distance.min(1).max(), 0.02)


@pytest.mark.parametrize("suffix", ["", "_with_mask"])
def test_gradients(step: Step, figures: Figures, suffix: str) -> None:
    """Norm, sum and largest entry of the gradient of every trained tensor, and some gradients in full."""
    if f"grad{suffix}_names" not in step.own:
        pytest.skip(f"the golden folder has no grad{suffix}_names in {step.variant}/train.npz")
    names = [str(name) for name in step[f"grad{suffix}_names"]]
    for name, theirs in zip(names, step[f"grad{suffix}_norm_sum_max"], strict=True):
        gradient = step.our_gradient(name, suffix).astype(np.float64)
        norm, largest = np.linalg.norm(gradient), np.abs(gradient).max()
        if name in NOISE:
            figures.check("gradients that are 0 but for rounding, norm", step.variant, norm, 1e-4)
            continue
        error = max(abs(norm - theirs[0]) - 1e-6, 0) / max(theirs[0], 1e-6)
        figures.check("gradient norms, relative", step.variant, error, GRADIENTS)
        error = max(abs(largest - theirs[2]) - 1e-6, 0) / max(theirs[2], 1e-6)
        figures.check("largest gradients, relative", step.variant, error, ENTRIES)
        # A sum of large terms of both signs: its rounding follows the norm.
        error = max(abs(gradient.sum() - theirs[1]) - 1e-6, 0) / max(norm * np.sqrt(gradient.size), 1e-6)
        figures.check("sums of gradients, over norm sqrt(n)", step.variant, error, GRADIENTS)
    for key in [key for key in step.own if key.startswith(f"gradfull{suffix}/")]:
        name = key.split("/")[1]
        theirs = converted(name, step[key])[1]
        figures.check("gradients in full", step.variant, relative(step.our_gradient(name, suffix), theirs), ENTRIES)


def test_what_is_trained(step: Step) -> None:
    """All that requires a gradient there and is used, and nothing else; the mask head learns from its loss alone."""
    manifest = json.loads(existing(step.golden, step.variant, "manifest.json").read_text())
    theirs = {
        ca_fsis.our_name(name)
        for name, required in manifest["requires_grad"].items()
        if required and not ca_fsis.is_unused(name)
    }
    params, _ = nnx.split_state(step.state, trainable(step.config), ...)
    assert set(by_name(params)) == theirs
    for name, gradient in step.found["gradients"].items():
        if name.startswith("mask_head"):
            assert not gradient.any()
            if "gradients_with_mask" in step.found:
                assert step.found["gradients_with_mask"][name].any()


def test_sgd_step(step: Step, figures: Figures) -> None:
    """How far one step moves each tensor: clipping, weight decay, twice the rate for biases."""
    config = step.config.copy_and_resolve_references()
    config.optimizer.learning_rate = float(step["sgd_lr"][0])
    config.optimizer.weight_decay = float(step["sgd_wd"])
    config.optimizer.reference_batch_size = config.training.batch_size
    config.optimizer.warmup_steps = 0
    params, _ = nnx.split_state(step.state, trainable(config), ...)
    gradients, _ = nnx.split_state(step.found["gradient_state"], trainable(config), ...)
    optimizer = make_optimizer(config, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    norms = {name: np.linalg.norm(value) for name, value in by_name(updates).items()}
    deltas = dict(zip(map(str, step["sgd_delta_names"]), step["sgd_delta_norm"], strict=True))
    for name in map(str, step["grad_names"]):
        # The golden step is the difference of rounded parameters.
        error = max(abs(norms[ca_fsis.our_name(name)] - deltas[name]) - 1e-7, 0) / max(deltas[name], 1e-7)
        figures.check("SGD step, norm, relative", step.variant, error, 2e-3)


def test_anchor_labels_and_targets(step: Step, figures: Figures) -> None:
    """The original's sample of anchors is one that ours could have drawn."""
    model = empty(step.config)
    maps = {
        level: np.empty((step.images, *step[step.level_key("rpnblob/labels_int32", level)].shape[2:], 1))
        for level in step.levels
    }
    anchors = jnp.concatenate(list(model.anchors(maps).values()))
    inside = trainable_anchors(anchors, jnp.asarray(step.sizes), step.config.model.rpn.straddle)
    config = step.config.copy_and_resolve_references()
    config.model.rpn.samples = 2 * len(anchors)
    for row in range(step.images):
        boxes = jnp.asarray(step[f"gt_boxes_{row}"] * step["im_info"][row, 2])
        none, all_ = jnp.zeros(len(boxes), bool), jnp.ones(len(boxes), bool)
        roles = Roles(boxes=boxes, positive=all_, other=none, ignore=none)
        labels, targets = rpn_targets(
            jax.random.key(0), anchors, inside[row], roles, sampling_settings(config.model, "rpn")
        )
        sampled = step.inputs["rpn_labels"][row]
        positive = sampled == ops.POSITIVE
        assert positive.any()
        assert (labels[positive] == ops.POSITIVE).all()
        if positive.sum() < step.config.model.rpn.samples * step.config.model.rpn.positive_fraction:
            np.testing.assert_array_equal(labels == ops.POSITIVE, positive)  # none was left out
        assert (labels[sampled == ops.NEGATIVE] == ops.NEGATIVE).all()
        theirs = step.inputs["rpn_targets"][row, positive]
        figures.check("anchor targets", step.variant, np.abs(targets[positive] - theirs).max(), 1e-5)


def test_roi_assignment(step: Step, figures: Figures) -> None:
    """Proposals against the ground truth, in pixels of the raw image."""
    for row in range(step.images):
        gt, boxes = step.own[f"gt_boxes_{row}"], step.own[f"merged_boxes_{row}"]
        iou = step.own[f"merged_max_overlaps_{row}"]
        assigned = ops.assign(boxes, gt, np.ones(len(gt), bool), positive_iou=0.5, negative_iou=0.5, offset=1)
        figures.check("IoU of rois and instances", step.variant, np.abs(assigned.iou - iou).max(), 1e-5)
        clear = np.abs(iou - 0.5) > 1e-5
        np.testing.assert_array_equal(assigned.labels[clear], (iou >= 0.5)[clear])
        overlapping = iou > 0.01
        np.testing.assert_array_equal(assigned.matched[overlapping], step.own[f"merged_gt_ind_{row}"][overlapping])
