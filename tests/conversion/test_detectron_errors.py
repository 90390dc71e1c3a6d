"""`fsis convert CONFIG.yaml`: one line for each value that our models do not have, and for what is no config."""

import pytest
import yaml
from detectron_files import AUGMENTED, C5, FPN_MASKS, GROUP_NORM, KEYPOINTS, MASKS, merged, write

from fsis_jax.conversion.detectron.yaml_file import import_yaml
from fsis_jax.errors import FsisError


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("MODEL: {TYPE: retinanet}\nRETINANET: {RETINANET_ON: True}",), "a RetinaNet"),
        (("MODEL: {TYPE: rfcn}",), "an R-FCN"),
        (("MODEL: {RPN_ONLY: True, FASTER_RCNN: False}",), "an RPN alone"),
        (("MODEL: {FASTER_RCNN: False}\nTRAIN: {PROPOSAL_FILES: [rpn.pkl]}",), "a Fast R-CNN on precomputed prop"),
        (("MODEL: {TYPE: other}",), "MODEL.TYPE is 'other'; use one of: , generalized_rcnn"),
        (("MODEL: {CONV_BODY: VGG16.add_VGG16_conv5_body}",), "MODEL.CONV_BODY is 'VGG16.add_VGG16_conv5_body'; use a"),
        (("MODEL: {CONV_BODY: FPN.add_fpn_ResNet50_conv4_body}",), "MODEL.CONV_BODY is"),
        (("FPN: {FPN_ON: False}",), "FPN.FPN_ON is False; use True, as MODEL.CONV_BODY is FPN.add_fpn_ResNet50"),
        (("FPN: {MULTILEVEL_RPN: False}",), "FPN.MULTILEVEL_RPN is False; use True"),
        (("FPN: {RPN_MAX_LEVEL: 7}",), "FPN.RPN_MAX_LEVEL is 7; use one of: 5, 6"),
        (("FPN: {EXTRA_CONV_LEVELS: True}",), "FPN.EXTRA_CONV_LEVELS is True; use False"),
        (("RESNETS: {STEM_FUNC: basic_gn_stem}",), "RESNETS.STEM_FUNC is 'basic_gn_stem'; use 'basic_bn_stem'"),
        ((GROUP_NORM, "GROUP_NORM: {NUM_GROUPS: 16}"), "GROUP_NORM.NUM_GROUPS is 16; use 32"),
        (("RESNETS: {RES5_DILATION: 2}",), "RESNETS.RES5_DILATION is 2; use 1, or 2 with a ResNet_conv5_body"),
        (("RESNETS: {FREEZE_AT: 1}",), "RESNETS.FREEZE_AT is 1; use one of: 0, 2, 3, 4, 5"),
        ((C5, "RPN: {STRIDE: 16}"), "RPN.STRIDE is 16; use 32"),
        (("RPN: {CLS_ACTIVATION: relu}",), "RPN.CLS_ACTIVATION is 'relu'; use one of: sigmoid, softmax"),
        (("TEST: {RPN_NMS_THRESH: 0.5}",), "TEST.RPN_NMS_THRESH is 0.5; use 0.7, as TRAIN.RPN_NMS_THRESH"),
        (
            ("FAST_RCNN: {ROI_BOX_HEAD: add_roi_3mlp_head}",),
            "FAST_RCNN.ROI_BOX_HEAD is 'add_roi_3mlp_head'; use one of",
        ),
        (("FAST_RCNN: {ROI_BOX_HEAD: ResNet_roi_conv5_head}",), "it goes with a ResNet_conv4_body; use roi_2mlp_head"),
        (("FAST_RCNN: {ROI_BOX_HEAD: fast_rcnn_heads.roi_2mlp_head_co}",), "a few-shot head of CA_FSIS_Cell"),
        (("FAST_RCNN: {ROI_XFORM_METHOD: Other}",), "FAST_RCNN.ROI_XFORM_METHOD is 'Other'; use one of: RoIAlign"),
        (("MRCNN: {ROI_XFORM_METHOD: RoICrop}",), "MRCNN.ROI_XFORM_METHOD is 'RoICrop'; use RoIAlign"),
        (("MRCNN: {ROI_XFORM_SAMPLING_RATIO: 0}",), "MRCNN.ROI_XFORM_SAMPLING_RATIO is 0; use 2"),
        (("MRCNN: {ROI_MASK_HEAD: mask_rcnn_fcn_head_v0upshare}",), "use mask_rcnn_fcn_head_v1up4convs"),
        (("MRCNN: {RESOLUTION: 56}",), "MRCNN.RESOLUTION is 56; use 28"),
        (("MRCNN: {DILATION: 2}",), "MRCNN.DILATION is 2; use 1"),
        (("MRCNN: {USE_FC_OUTPUT: True}",), "MRCNN.USE_FC_OUTPUT is True; use False"),
        ((KEYPOINTS, "KRCNN: {HEATMAP_SIZE: 28}"), "KRCNN.HEATMAP_SIZE is 28; use 56"),
        ((KEYPOINTS, "KRCNN: {USE_DECONV: True}"), "KRCNN.USE_DECONV is True; use False"),
        ((KEYPOINTS, "KRCNN: {NUM_KEYPOINTS: 0}"), "KRCNN.NUM_KEYPOINTS is 0; give the number of keypoints"),
        (("TRAIN: {BG_THRESH_LO: 0.1}",), "TRAIN.BG_THRESH_LO is 0.1; use 0.0"),
        (("TRAIN: {BBOX_THRESH: 0.6}",), "TRAIN.BBOX_THRESH is 0.6; use at most TRAIN.FG_THRESH, 0.5"),
        (("TRAIN: {RPN_MIN_SIZE: 16}",), "TRAIN.RPN_MIN_SIZE is 16; use 0"),
        (("TRAIN: {SCALES: ()}",), "TRAIN.SCALES is (); give lengths"),
        (("TEST: {SCALE: 2000}",), "TEST.SCALE is 2000; give 1 or more, and at most TEST.MAX_SIZE, 1333"),
        (("MODEL: {NUM_CLASSES: 1}",), "MODEL.NUM_CLASSES is 1; give the number of categories and 1"),
        (("NUM_GPUS: 0",), "NUM_GPUS is 0; give 1 or more"),
        (("SOLVER: {GAMMA: 0.5}",), "SOLVER.GAMMA is 0.5; use 0.1"),
        (("SOLVER: {MOMENTUM: 0.8}",), "SOLVER.MOMENTUM is 0.8; use 0.9, the only one that models here have"),
        (("SOLVER: {WARM_UP_METHOD: constant}",), "SOLVER.WARM_UP_METHOD is 'constant'; use 'linear'"),
        (("SOLVER: {LR_POLICY: cosine}",), "SOLVER.LR_POLICY is 'cosine'; use one of: step, steps_with_decay"),
        (("SOLVER: {STEPS: [60000, 80000]}",), "SOLVER.STEPS is (60000, 80000); give ascending iterations from 0"),
        (("SOLVER: {LR_POLICY: steps_with_lrs, LRS: [0.1, 0.05, 0.01]}",), "SOLVER.LRS is (0.1, 0.05, 0.01); each"),
        (("SOLVER: {TYPE: RMSprop}",), "SOLVER.TYPE is 'RMSprop'; use one of: SGD, Adam"),
        (("TEST: {SOFT_NMS: {ENABLED: True, METHOD: cubic}}",), "TEST.SOFT_NMS.METHOD is 'cubic'; use one of: linear"),
        (("TEST: {BBOX_VOTE: {ENABLED: True, SCORING_METHOD: BEST}}",), "TEST.BBOX_VOTE.SCORING_METHOD is 'BEST'"),
        ((AUGMENTED, "TEST: {BBOX_AUG: {COORD_HEUR: AVG}}"), "TEST.BBOX_AUG.COORD_HEUR is 'AVG'; use 'UNION'"),
        ((AUGMENTED, "TEST: {BBOX_AUG: {SCALE_SIZE_DEP: True}}"), "TEST.BBOX_AUG.SCALE_SIZE_DEP is True"),
        ((AUGMENTED, "TEST: {MASK_AUG: {H_FLIP: False}}"), "TEST.MASK_AUG.H_FLIP is False; use True, as TEST.BBOX_AUG"),
        ((AUGMENTED, "TEST: {MASK_AUG: {ENABLED: False}}"), "TEST.MASK_AUG.ENABLED is False; use True"),
        (("TRAIN: {BATCHSIZE: 4}",), "neither Detectron nor Detectron.pytorch has a key 'TRAIN.BATCHSIZE' (it is 4)"),
        (("OTHER: {A: 1}",), "has a key 'OTHER'"),
        (("TRAIN: {CATEGORIES: [1]}",), "TRAIN.CATEGORIES is of CA_FSIS_Cell's few-shot models"),
        (("TRAIN: {USE_FLIPPED: 1}",), "TRAIN.USE_FLIPPED is 1; give True or False"),
        (("TRAIN: {SCALES: 800}",), "TRAIN.SCALES is 800; give numbers: (1, 2)"),
        (("TRAIN: {SCALES: '(a, b)'}",), "TRAIN.SCALES is '(a, b)'; give numbers"),
        (("SOLVER: {MAX_ITER: 0.5}",), "SOLVER.MAX_ITER is 0.5; give a whole number"),
        (("SOLVER: {BASE_LR: fast}",), "SOLVER.BASE_LR is 'fast'; give a number"),
        (("SOLVER: {BASE_LR: .nan}",), "SOLVER.BASE_LR is nan; give a number"),
        (("MODEL: 3",), "MODEL is 3; it is a section"),
        (("TEST: {SCALES: '(800,)'}",), "TEST.SCALES and its other name TEST.SCALE are both given"),
        (
            ("TRAIN: {BATCH_SIZE_PER_IM: 0}",),
            "config.model.box_head.samples is 0; it must be a whole number, at least 1",
        ),
    ],
)
def test_one_line_for_what_is_not_possible(tmp_path, parts, message):
    content = merged(FPN_MASKS)
    for part in parts:
        if part == "MODEL: 3":
            content["MODEL"] = 3
        else:
            content = merged([yaml.safe_dump(content), part])
    path = write(tmp_path, content)
    with pytest.raises(FsisError) as caught:
        import_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_that_are_not_possible_are_named_as_such(tmp_path):
    with pytest.raises(FsisError, match=r"MRCNN\.DILATION is 2 \(Detectron's default\); use 1"):
        import_yaml(write(tmp_path, *FPN_MASKS[:3], MASKS.replace("  DILATION: 1\n", "")))


@pytest.mark.parametrize(
    "text", ["", "just text", "- 1", "MODEL: [", "a: !!python/object:os.system {}", "\x00", "- " * 5000]
)
def test_files_that_are_no_config(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(FsisError, match=r"bad\.yaml: (holds no keys|no plain YAML)") as caught:
        import_yaml(path)
    assert "\n" not in str(caught.value)
