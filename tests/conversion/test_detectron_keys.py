"""`fsis convert CONFIG.yaml`: single keys of Detectron in ours, and its defaults."""

import pytest
from detectron_files import C4_1X, C4_VALUES, FPN_MASKS, HALVED, LONG, PLAIN, merged, values, write

from fsis_jax.conversion.detectron.keys import DEFAULTS, FEW_SHOT, FIXED, IGNORED, RENAMED
from fsis_jax.conversion.detectron.yaml_file import import_yaml


def test_extra_options(tmp_path):
    extras = """
TRAIN: {ASPECT_CROPPING: True, ASPECT_HI: 2, ASPECT_LO: 0.5, FREEZE_CONV_BODY: True}
RPN: {OUT_DIM_AS_IN_DIM: False, OUT_DIM: 512, CLS_ACTIVATION: softmax}
RESNETS: {FREEZE_AT: 4}
SOLVER: {TYPE: Adam, BIAS_DOUBLE_LR: False}
"""
    assert values(tmp_path, *C4_1X, extras) == PLAIN | LONG | HALVED | C4_VALUES | {
        "model.mask_head.kind": "none",
        "data.aspect_bounds": (0.5, 2.0),
        "model.rpn.channels": 512,
        "model.rpn.objectness": "softmax",
        "model.backbone.freeze_at": 4,
        "optimizer.name": "adam",
        "optimizer.bias_rate": 1.0,
        "training.freeze_backbone": True,
    }
    pyramid = import_yaml(write(tmp_path, *FPN_MASKS, "RPN: {OUT_DIM_AS_IN_DIM: False, OUT_DIM: 64}"))
    assert pyramid.config.model.rpn.channels == 0
    assert "RPN.OUT_DIM: of no effect with the file's other values" in pyramid.notes
    assert values(tmp_path, *FPN_MASKS, "MRCNN: {ROI_MASK_HEAD: mask_rcnn_heads.mask_rcnn_fcn_head_v1up}") == PLAIN | {
        "model.mask_head.convs": 2
    }


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ("MODEL: {CLS_AGNOSTIC_BBOX_REG: True}", {"model.box_head.class_specific": False}),
        ("MRCNN: {CLS_SPECIFIC_MASK: False}", {"model.mask_head.class_specific": False}),
        ("MODEL: {BBOX_REG_WEIGHTS: [1, 1, 1, 1]}", {"model.box_head.box_weights": (1.0, 1.0, 1.0, 1.0)}),
        ("MODEL: {USE_DEFORM: True}", {"model.backbone.deformable": "interleaved"}),
        ("FPN: {RPN_MAX_LEVEL: 5, RPN_ANCHOR_START_SIZE: 16}", {"model.fpn.coarsest": 5}),
        ("TRAIN: {RPN_STRADDLE_THRESH: -1}", {"model.rpn.straddle": -1.0}),
        ("TRAIN: {USE_FLIPPED: False}", {"data.transform.flip": 0.0}),
        ("TEST: {SCORE_THRESH: 0.001}", {"model.detections.score_threshold": 0.001}),
        ("TEST: {BBOX_REG: False}", {"model.detections.box_regression": False}),
        ("TEST: {BBOX_VOTE: {ENABLED: True, SCORING_METHOD: IOU_AVG}}", {"model.detections.box_voting": 0.8}),
        ("RNG_SEED: 7", {"seed": 7}),
        ("SOLVER: {WEIGHT_DECAY: 1e-5, WARM_UP_ITERS: 0}", {"optimizer.weight_decay": 1e-5}),
        ("FAST_RCNN: {ROI_XFORM_METHOD: RoIPoolF}\nMRCNN: {ROI_XFORM_METHOD: RoIPoolF}", {"model.roi_method": "pool"}),
        ("FAST_RCNN: {ROI_XFORM_METHOD: RoICrop}\nMRCNN: {ROI_XFORM_METHOD: RoICrop}", {"model.roi_method": "crop"}),
        ("TEST: {SCALES: '(800,)'}", {}),
    ],
)
def test_single_keys(tmp_path, part, wanted):
    content = merged((*FPN_MASKS, part))
    if "SCALES" in content["TEST"]:
        del content["TEST"]["SCALE"]
    path = write(tmp_path, content)
    found = import_yaml(path).values
    assert {key: found[key] for key in wanted} == wanted
    if not wanted:
        assert found == PLAIN


def test_schedules_in_other_words(tmp_path):
    rates = "SOLVER: {LR_POLICY: steps_with_lrs, LRS: [0.02, 0.002, 0.0002], BASE_LR: 1.0}"
    assert values(tmp_path, *FPN_MASKS, rates) == PLAIN
    even = "SOLVER: {LR_POLICY: step, STEP_SIZE: 40000}"
    assert values(tmp_path, *FPN_MASKS, even)["optimizer.decay_steps"] == (40000, 80000)


def test_what_a_file_does_not_say_is_detectrons_default(tmp_path):
    found = values(
        tmp_path,
        """
MODEL: {CONV_BODY: ResNet.add_ResNet50_conv4_body, FASTER_RCNN: True, NUM_CLASSES: 3}
FAST_RCNN: {ROI_BOX_HEAD: ResNet.add_ResNet_roi_conv5_head}
""",
    )
    assert found["model.classes"] == ("category 1", "category 2")
    assert found["model.roi_method"] == "pool"
    assert found["model.rpn.anchor_sizes"] == (64, 128, 256, 512)
    assert found["model.box_head.samples"] == 64
    assert found["model.detections.nms_threshold"] == 0.3
    assert (found["training.batch_size"], found["optimizer.learning_rate"]) == (2, 0.001)
    assert (found["optimizer.weight_decay"], found["optimizer.decay_steps"]) == (0.0005, (30000,))
    assert (found["model.rpn.test_pre_nms"], found["model.rpn.test_post_nms"]) == (12000, 2000)


def test_keys_are_known_in_one_way_only():
    # These tell whether a model is trained from scratch, and no more.
    weights = {"RESNETS.IMAGENET_PRETRAINED_WEIGHTS", "MODEL.LOAD_IMAGENET_PRETRAINED_WEIGHTS", "TRAIN.WEIGHTS"}
    assert set(DEFAULTS) & set(IGNORED) == weights
    assert set(FIXED) <= set(DEFAULTS)
    assert set(RENAMED.values()) <= set(DEFAULTS)
    assert not set(RENAMED) & (set(DEFAULTS) | set(IGNORED) | set(FEW_SHOT))
