"""`fsis convert` of Detectron's detectors: every number of a network, and what it finds, against a plain reference."""

import re

import detectron_reference as reference
import drawn_blobs
import jax
import numpy as np
import pytest
import torch_bytes

from fsis_jax.checkpoints.runs import Checkpoints, load_run
from fsis_jax.conversion.convert import convert
from fsis_jax.conversion.torch_writer import write_file
from fsis_jax.errors import FsisError
from fsis_jax.models.detection import View, detect
from fsis_jax.models.normalise import normalise

pytestmark = pytest.mark.usefixtures("quick_compile")

SIZE, ORIGINAL, SCALE = (96, 128), (77, 102), 1.25


@pytest.fixture(scope="module")
def image():
    """(H, W, 3) uint8 with shapes of several sizes."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 60, (*SIZE, 3))
    for _ in range(12):
        y, x = rng.integers(0, 80, 2)
        picture[y : y + rng.integers(8, 50), x : x + rng.integers(8, 50)] += rng.integers(20, 190, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write(path, blobs):
    path.write_bytes(torch_bytes.python2_dict({"blobs": blobs, "cfg": b"MODEL: {}"}, 2))
    return path


@jax.jit
def everything(model, image, rois, boxes):
    """The features, the RPN's logits, what the heads say of `rois` and `boxes`, and the detections."""
    config = model.config
    pixels = normalise(image[None], np.array([SIZE], np.int32), mean=config.image_mean)
    sizes = np.array([SIZE], np.int32)
    extent = model.extent(sizes)
    pyramid = model.pyramid(pixels, extent)
    matched = model.match(pyramid, {}, extent)
    logits, deltas = model.box_head(model.pool(matched, rois[None], config.box_head.pooled))
    masks = heat_maps = None
    if model.mask_head is not None:
        side = config.mask_head.pooled
        masks = model.mask_head.predict(model.pool_for(model.mask_head.trunk, matched, boxes[None], side))[0]
    if model.keypoint_head is not None:
        heat_maps = model.keypoint_head(model.pool_for(None, matched, boxes[None], config.keypoint_head.pooled).rois)[0]
    view = View(pixels, sizes, np.full(1, SCALE, np.float32))
    found = detect(model, [view], [{}], original_sizes=np.array([ORIGINAL], np.int32))
    return pyramid, matched.logits, logits[0], deltas[0], masks, heat_maps, found


def close(found, wanted, message):
    assert found.shape == wanted.shape, message
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max(), err_msg=message)


SLOW = ("Faster R-CNN C4", "Mask R-CNN FPN", "Mask R-CNN X-101 FPN")
"""Of whose parts most are in the others."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in drawn_blobs.KINDS]
)
def test_a_detector_of_detectron_finds_the_same(tmp_path, image, kind):
    blobs = drawn_blobs.draw(kind)
    converted = convert(write(tmp_path / "model_final.pkl", blobs), tmp_path / "run")
    assert converted.whole
    assert converted.source.kind == "detectron"
    assert all(name.startswith(("pred_", "kps_score_")) or name.endswith("_b") for name in converted.source.left_out)
    model_config = converted.source.config.model
    pyramid, group, grouped = "FPN" in kind, "group" in kind, "X-101" in kind
    assert model_config.architecture == ("fpn" if pyramid else "c4")
    assert model_config.backbone.depth == (101 if grouped else 50)
    wanted = reference.run(
        blobs,
        image,
        SCALE,
        ORIGINAL,
        stride_in_1x1=not (group or grouped),
        sampling_ratio=2 if pyramid else 0,
        groups=4 if grouped else 1,
    )
    assert 15 < len(wanted.boxes) <= 100
    model = load_run(tmp_path / "run").model
    rois, boxes = (x.astype(np.float32) for x in (wanted.rois, wanted.boxes * SCALE))
    levels, rpn, logits, deltas, masks, heat_maps, found = jax.device_get(everything(model, image, rois, boxes))

    for level, features in wanted.features.items():
        close(levels[level][0].transpose(2, 0, 1), features, f"level {level}")
        close(rpn[level][0], wanted.rpn[level].transpose(1, 2, 0).reshape(-1), f"RPN at level {level}")
    close(logits, wanted.scores, "class logits")
    close(deltas, wanted.deltas, "box deltas")
    if wanted.masks is not None:
        close(masks[np.arange(len(boxes)), ..., wanted.classes], wanted.masks, "masks")
    if wanted.heat_maps is not None:
        close(heat_maps.transpose(0, 3, 1, 2), wanted.heat_maps, "heat maps")

    valid = found.valid[0]
    assert valid.sum() == len(wanted.boxes)
    np.testing.assert_array_equal(found.classes[0][valid], wanted.classes)
    np.testing.assert_allclose(found.scores[0][valid], wanted.box_scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes[0][valid], wanted.boxes, atol=0.02)


# -- Detectron.pytorch --


def their_name(blob, blobs):
    """Detectron.pytorch's name of a blob, after its modules."""
    start, _, ending = blob.rpartition("_")
    norm = start.endswith(("_bn", "_gn"))
    tensor = {"w": "weight", "s": "weight", "b": "bias"}[ending]
    pyramid = any(name.startswith("fpn_") for name in blobs)
    body = "Conv_Body.conv_body" if pyramid else "Conv_Body"
    start, kind = (start[:-3], start[-2:]) if norm else (start, "")
    grouped = f"{start}_gn_s" in blobs
    if start in ("conv1", "res_conv1"):
        return f"{body}.res1.{f'{kind}1' if norm else 'conv1'}.{tensor}"
    if found := re.match(r"res(\d)_(\d+)_branch(1|2[abc])$", start):
        stage, block, branch = found.groups()
        module = "Box_Head" if stage == "5" and not pyramid else body
        part = f"downsample.{int(norm)}" if branch == "1" else f"{kind or 'conv'}{'abc'.index(branch[1]) + 1}"
        return f"{module}.res{stage}.{block}.{part}.{tensor}"
    part = f".{int(norm)}" if grouped else ""
    if found := re.match(r"fpn_(inner_)?res(\d)_\d+_sum(_lateral)?$", start):
        row = 5 - int(found[2])
        if not found[1]:
            return f"Conv_Body.posthoc_modules.{row}{part}.{tensor}"
        return f"Conv_Body.{f'topdown_lateral_modules.{row - 1}.conv_lateral' if row else 'conv_top'}{part}.{tensor}"
    if found := re.match(r"(head_conv|_\[mask\]_fcn|_mask_fcn|conv_fcn)(\d)$", start):
        module = {"head_conv": "Box_Head.convs", "conv_fcn": "Keypoint_Head.conv_fcn"}.get(
            found[1], "Mask_Head.conv_fcn"
        )
        return f"{module}.{(int(found[2]) - 1) * (3 if grouped else 2) + norm}.{tensor}"
    layers = {
        "fc6": "Box_Head.fc" if "head_conv1_w" in blobs else "Box_Head.fc1",
        "fc7": "Box_Head.fc2",
        "cls_score": "Box_Outs.cls_score",
        "bbox_pred": "Box_Outs.bbox_pred",
        "conv5_mask": f"Mask_Head.upconv{'' if pyramid else 5}",
        "mask_fcn_logits": "Mask_Outs.classify",
        "kps_score_lowres": "Keypoint_Outs.classify",
        "kps_score": "Keypoint_Outs.upsample.upconv",
        **{f"conv_rpn{e}": f"RPN.{p}RPN_conv" for e, p in (("", ""), ("_fpn2", "FPN_"))},
        **{f"rpn_cls_logits{e}": f"RPN.{p}RPN_cls_score" for e, p in (("", ""), ("_fpn2", "FPN_"))},
        **{f"rpn_bbox_pred{e}": f"RPN.{p}RPN_bbox_pred" for e, p in (("", ""), ("_fpn2", "FPN_"))},
    }
    return f"{layers[start]}.{tensor}"


@pytest.mark.parametrize("kind", drawn_blobs.KINDS)
def test_a_detector_of_detectron_pytorch_is_the_same_network(tmp_path, kind):
    """Its file of the same weights gives the same arrays and the same config, bit for bit."""
    blobs = drawn_blobs.draw(kind)
    kept = [name for name in blobs if not re.match(r"pred_|(conv1|res.*branch\d.?)_b$", name)]
    tensors = {their_name(name, blobs): blobs[name] for name in kept}
    assert len(tensors) == len(kept)
    if kind == "Mask R-CNN C4":  # the mask head's stage is the box head's
        tensors |= {name.replace("Box", "Mask"): x for name, x in tensors.items() if name.startswith("Box_Head.res5")}
    write_file(tmp_path / "model.pth", {"model": {f"module.{name}": x for name, x in tensors.items()}, "step": 3})
    theirs = convert(tmp_path / "model.pth", tmp_path / "theirs")
    assert theirs.whole
    assert theirs.source.kind == "detectron_pytorch"
    ours = convert(write(tmp_path / "model.pkl", blobs), tmp_path / "ours")
    assert theirs.source.config.to_dict() == ours.source.config.to_dict()
    first, second = (Checkpoints(tmp_path / name, read_only=True).arrays(0, "model") for name in ("theirs", "ours"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_what_a_detector_of_detectron_pytorch_lacks_is_named(tmp_path):
    blobs = drawn_blobs.draw("Faster R-CNN C4")
    tensors = {their_name(name, blobs): x for name, x in blobs.items() if not re.match(r"pred_|.*branch\d.?_b$", name)}
    del tensors["Box_Outs.bbox_pred.bias"]
    tensors["Box_Head.attention.weight"] = np.zeros(3, np.float32)
    write_file(tmp_path / "model.pth", {"model": tensors})
    told = r"a detector of Detectron\.pytorch: 1 missing \(bbox_pred_b\); 1 unknown \(Box_Head\.attention\.weight\)"
    with pytest.raises(FsisError, match=told):
        convert(tmp_path / "model.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_boxes_and_masks_for_all_classes_alike(tmp_path):
    """Detectron.pytorch has one box and one mask then: ours of the background, which nothing reads, is zero."""
    blobs = drawn_blobs.draw("Mask R-CNN FPN")
    for name, rows in (("bbox_pred", 4), ("mask_fcn_logits", 1)):
        for ending in "wb":
            blobs[f"{name}_{ending}"] = blobs[f"{name}_{ending}"][:rows]
    converted = convert(write(tmp_path / "model.pkl", blobs), tmp_path / "run")
    model = converted.source.config.model
    assert (model.box_head.class_specific, model.mask_head.class_specific) == (False, False)
    arrays = Checkpoints(tmp_path / "run", read_only=True).arrays(0, "model")
    np.testing.assert_array_equal(arrays["box_head/box_out/bias"], [0, 0, 0, 0, *blobs["bbox_pred_b"]])
    np.testing.assert_array_equal(arrays["mask_head/out/kernel"][0, 0, :, 1], blobs["mask_fcn_logits_w"][0, :, 0, 0])
