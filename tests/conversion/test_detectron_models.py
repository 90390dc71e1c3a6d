"""`fsis convert CONFIG.yaml`: what each kind of Detectron's models is in our keys."""

import pytest
from detectron_files import (
    AUGMENTED,
    C4_1X,
    C4_MASKS,
    C4_VALUES,
    C5,
    DETECTOR,
    FASTER_1X,
    FPN_MASKS,
    GROUP_NORM,
    HALF_RATE,
    HALVED,
    KEYPOINTS,
    LONG,
    MASKS,
    ONE_IMAGE,
    P2,
    PLAIN,
    PYRAMID,
    S1X,
    TWICE,
    X_32X8D,
    X_64X4D,
    merged,
    values,
    write,
)

from fsis_jax.coco_names import PERSON
from fsis_jax.conversion.detectron.yaml_file import import_yaml


def changed(found, start):
    return {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}


def test_faster_rcnn(tmp_path):
    wanted = PLAIN | {"model.mask_head.kind": "none"}
    assert values(tmp_path, DETECTOR, FASTER_1X, PYRAMID) == wanted
    assert values(tmp_path, DETECTOR, TWICE, PYRAMID) == wanted | LONG


def test_mask_rcnn_has_the_masks_of_our_own_recipe(tmp_path):
    assert values(tmp_path, *FPN_MASKS) == PLAIN
    assert values(tmp_path, DETECTOR, TWICE, PYRAMID, MASKS) == PLAIN | LONG
    deeper = "MODEL: {CONV_BODY: FPN.add_fpn_ResNet101_conv5_body}"
    assert values(tmp_path, *FPN_MASKS, deeper) == PLAIN | {"model.backbone.depth": 101}


def test_several_training_scales_are_a_jitter_about_the_scale_of_tests(tmp_path):
    imported = import_yaml(write(tmp_path, DETECTOR, S1X, PYRAMID, MASKS))
    differing = {"training.reference_steps": 130000, "optimizer.decay_steps": (100000, 120000)}
    assert imported.values == PLAIN | differing | {"data.transform.scale_jitter": pytest.approx(1.118)}
    assert any(note.startswith("TRAIN.SCALES: ") for note in imported.notes)


def test_c4(tmp_path):
    wanted = PLAIN | LONG | HALVED | C4_VALUES
    assert values(tmp_path, *C4_1X) == wanted | {"model.mask_head.kind": "none"}
    assert values(tmp_path, *C4_1X, C4_MASKS) == wanted | {"model.mask_head.kind": "shared_res5"}
    own = "MRCNN: {ROI_MASK_HEAD: mask_rcnn_heads.mask_rcnn_fcn_head_v0up}"
    assert values(tmp_path, *C4_1X, C4_MASKS, own) == wanted | {"model.mask_head.kind": "res5"}


def test_resnext(tmp_path):
    wanted = PLAIN | LONG | HALVED | {"model.backbone.depth": 101, "model.backbone.stride_in_1x1": False}
    common = (*FPN_MASKS, ONE_IMAGE, HALF_RATE)
    groups = {"model.backbone.groups": 32, "model.backbone.group_width": 8}
    assert values(tmp_path, *common, X_32X8D) == wanted | groups
    groups = {"model.backbone.groups": 64, "model.backbone.group_width": 4}
    assert values(tmp_path, *common, X_64X4D) == wanted | groups


def test_resnext_152_with_its_options_at_test(tmp_path):
    found = values(tmp_path, *FPN_MASKS, ONE_IMAGE, HALF_RATE, X_32X8D, AUGMENTED)
    assert (found["model.backbone.depth"], found["training.reference_steps"]) == (152, 260000)
    assert changed(found, "model.detections.") == {
        "nms_method": "gaussian",
        "sigma": 0.4,
        "box_voting": 0.9,
        "max_instances": 100,
    }
    assert changed(found, "eval.") == {
        "split": "all",
        "repeats": 1,
        "flip": True,
        "scales": (0.5, 0.625, 0.75, 0.875, 1.125, 1.25, 1.375, 1.5),
    }
    assert found["data.train_canvases"] == PLAIN["data.train_canvases"]
    assert {(800, 1344), (416, 672), (1216, 2016), (2016, 1216)} <= set(found["data.test_canvases"])


def test_group_norm(tmp_path):
    found = values(tmp_path, *FPN_MASKS, TWICE, GROUP_NORM)
    groups = {
        "model.backbone.norm": "group",
        "model.backbone.stride_in_1x1": False,
        "model.fpn.norm": "group",
        "model.box_head.kind": "convs",
        "model.box_head.conv_norm": "group",
        "model.mask_head.norm": "group",
    }
    assert found == PLAIN | LONG | groups
    from_scratch = import_yaml(write(tmp_path, *FPN_MASKS, TWICE, GROUP_NORM, "TRAIN: {WEIGHTS: ''}"))
    assert from_scratch.values == PLAIN | LONG | groups | {"model.backbone.freeze_at": 0}
    assert any("all of the backbone is trained" in note for note in from_scratch.notes)
    told = import_yaml(write(tmp_path, *FPN_MASKS, GROUP_NORM, "TRAIN: {WEIGHTS: '', FREEZE_AT: 3}"))
    assert told.config.model.backbone.freeze_at == 3


def test_keypoints(tmp_path):
    found = values(tmp_path, DETECTOR, FASTER_1X, PYRAMID, KEYPOINTS)
    head = {"model.mask_head.kind": "none", "model.keypoint_head.kind": "convs", "model.classes": PERSON}
    assert found == PLAIN | head | {"data.transform.scale_jitter": pytest.approx(1.118)}
    other = "KRCNN: {NMS_OKS: True, LOSS_WEIGHT: 0.5, NUM_KEYPOINTS: 5, NUM_STACKED_CONVS: 4, CONV_HEAD_DIM: 128}"
    assert changed(values(tmp_path, DETECTOR, FASTER_1X, PYRAMID, KEYPOINTS, other), "model.keypoint_head.") == {
        "kind": "convs",
        "keypoints": 5,
        "channels": 128,
        "convs": 4,
        "loss_weight": 0.5,
        "oks_threshold": 0.3,
    }


def test_one_level(tmp_path):
    p2 = values(tmp_path, DETECTOR, FASTER_1X, PYRAMID, P2, "FPN: {DIM: 128, USE_GN: True}")
    assert p2["model.architecture"] == "p2"
    assert changed(p2, "model.fpn.") == {"channels": 128, "norm": "group"}
    assert "model.rpn.anchor_sizes" not in p2
    c5 = values(tmp_path, DETECTOR, FASTER_1X, PYRAMID, C5)
    assert c5 == PLAIN | {"model.architecture": "c5", "model.mask_head.kind": "none"}
    dilated = values(tmp_path, DETECTOR, FASTER_1X, PYRAMID, C5, "RESNETS: {RES5_DILATION: 2}", "RPN: {STRIDE: 16}")
    assert dilated["model.backbone.dilation"] == 2


def test_names_and_options_of_detectron_pytorch(tmp_path):
    plain = import_yaml(write(tmp_path, *FPN_MASKS))
    spelt = """
MODEL: {CONV_BODY: FPN.fpn_ResNet50_conv5_body, LOAD_IMAGENET_PRETRAINED_WEIGHTS: True}
RESNETS: {IMAGENET_PRETRAINED_WEIGHTS: data/pretrained_model/resnet50_caffe.pth}
FAST_RCNN: {ROI_BOX_HEAD: fast_rcnn_heads.roi_2mlp_head}
"""
    content = merged((*FPN_MASKS, spelt))
    del content["MODEL"]["NUM_CLASSES"], content["TRAIN"]["WEIGHTS"]
    path = write(tmp_path, content)
    imported = import_yaml(path)
    assert imported.values == plain.values
    assert {note.partition(":")[0] for note in imported.notes} >= {
        "MODEL.NUM_CLASSES",
        "MODEL.LOAD_IMAGENET_PRETRAINED_WEIGHTS",
        "RESNETS.IMAGENET_PRETRAINED_WEIGHTS",
    }
    c4 = "MODEL: {CONV_BODY: ResNet.ResNet101_conv4_body}\nFAST_RCNN: {ROI_BOX_HEAD: ResNet.ResNet_roi_conv5_head}"
    model = import_yaml(write(tmp_path, *C4_1X, C4_MASKS, c4)).config.model
    assert (model.architecture, model.backbone.depth, model.mask_head.kind) == ("c4", 101, "shared_res5")
