"""The keys of Detectron's YAML configs: their defaults, those that have one value here, and those that have no place.

The defaults are those of detectron/core/config.py and of Detectron.pytorch's lib/core/config.py, which agree; keys of
only one of the two stand among the others. A key is in DEFAULTS, in FIXED, in IGNORED, or unknown.
"""

import math

Value = bool | int | float | str | tuple["Value", ...]
"""What a key may be; lists are read as tuples."""

_ROI: dict[str, Value] = {"ROI_XFORM_METHOD": "RoIAlign", "ROI_XFORM_RESOLUTION": 7, "ROI_XFORM_SAMPLING_RATIO": 0}
_AUGMENTATION: dict[str, Value] = {"ENABLED": False, "H_FLIP": False, "SCALES": (), "SCALE_H_FLIP": False}

_DEFAULTS: dict[str, dict[str, Value]] = {
    "": {"NUM_GPUS": 1, "RNG_SEED": 3, "CROP_RESIZE_WITH_MAX_POOL": True},
    "MODEL.": {
        "TYPE": "",
        "CONV_BODY": "",
        "NUM_CLASSES": -1,
        "CLS_AGNOSTIC_BBOX_REG": False,
        "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
        "FASTER_RCNN": False,
        "MASK_ON": False,
        "KEYPOINTS_ON": False,
        "RPN_ONLY": False,
        "LOAD_IMAGENET_PRETRAINED_WEIGHTS": True,
        "USE_DEFORM": False,
    },
    "RETINANET.": {"RETINANET_ON": False},
    "RESNETS.": {
        "NUM_GROUPS": 1,
        "WIDTH_PER_GROUP": 64,
        "STRIDE_1X1": True,
        "TRANS_FUNC": "bottleneck_transformation",
        "STEM_FUNC": "basic_bn_stem",
        "SHORTCUT_FUNC": "basic_bn_shortcut",
        "USE_GN": False,
        "RES5_DILATION": 1,
        "FREEZE_AT": 2,
        "IMAGENET_PRETRAINED_WEIGHTS": "",
    },
    "FPN.": {
        "FPN_ON": False,
        "DIM": 256,
        "USE_GN": False,
        "MULTILEVEL_ROIS": False,
        "MULTILEVEL_RPN": False,
        "ROI_CANONICAL_SCALE": 224,
        "ROI_CANONICAL_LEVEL": 4,
        "RPN_MAX_LEVEL": 6,
        "RPN_ASPECT_RATIOS": (0.5, 1, 2),
        "RPN_ANCHOR_START_SIZE": 32,
    },
    "RPN.": {
        "SIZES": (64, 128, 256, 512),
        "ASPECT_RATIOS": (0.5, 1, 2),
        "STRIDE": 16,
        "OUT_DIM_AS_IN_DIM": True,
        "OUT_DIM": 512,
        "CLS_ACTIVATION": "sigmoid",
    },
    "FAST_RCNN.": {
        "ROI_BOX_HEAD": "",
        "MLP_HEAD_DIM": 1024,
        "CONV_HEAD_DIM": 256,
        "NUM_STACKED_CONVS": 4,
        **_ROI,
        "ROI_XFORM_METHOD": "RoIPoolF",
        "ROI_XFORM_RESOLUTION": 14,
    },
    "MRCNN.": {
        "ROI_MASK_HEAD": "",
        "RESOLUTION": 14,
        **_ROI,
        "DIM_REDUCED": 256,
        "DILATION": 2,
        "CLS_SPECIFIC_MASK": True,
    },
    "KRCNN.": {
        "ROI_KEYPOINTS_HEAD": "",
        "HEATMAP_SIZE": -1,
        "UP_SCALE": -1,
        "USE_DECONV_OUTPUT": False,
        "NUM_KEYPOINTS": -1,
        "NUM_STACKED_CONVS": 8,
        "CONV_HEAD_DIM": 256,
        "NMS_OKS": False,
        **_ROI,
        "LOSS_WEIGHT": 1.0,
    },
    "TRAIN.": {
        "WEIGHTS": "",
        "SCALES": (600,),
        "MAX_SIZE": 1000,
        "IMS_PER_BATCH": 2,
        "BATCH_SIZE_PER_IM": 64,
        "FG_FRACTION": 0.25,
        "FG_THRESH": 0.5,
        "BG_THRESH_HI": 0.5,
        "BBOX_THRESH": 0.5,
        "USE_FLIPPED": True,
        "SNAPSHOT_ITERS": 20000,
        "ASPECT_CROPPING": False,
        "ASPECT_HI": 2.0,
        "ASPECT_LO": 0.5,
        "RPN_POSITIVE_OVERLAP": 0.7,
        "RPN_NEGATIVE_OVERLAP": 0.3,
        "RPN_FG_FRACTION": 0.5,
        "RPN_BATCH_SIZE_PER_IM": 256,
        "RPN_NMS_THRESH": 0.7,
        "RPN_PRE_NMS_TOP_N": 12000,
        "RPN_POST_NMS_TOP_N": 2000,
        "RPN_STRADDLE_THRESH": 0.0,
        "FREEZE_CONV_BODY": False,
        "FREEZE_AT": 2,
    },
    "TEST.": {
        "SCALE": 600,
        "MAX_SIZE": 1000,
        "NMS": 0.3,
        "BBOX_REG": True,
        "RPN_NMS_THRESH": 0.7,
        "RPN_PRE_NMS_TOP_N": 12000,
        "RPN_POST_NMS_TOP_N": 2000,
        "DETECTIONS_PER_IM": 100,
        "SCORE_THRESH": 0.05,
    },
    "TEST.SOFT_NMS.": {"ENABLED": False, "METHOD": "linear", "SIGMA": 0.5},
    "TEST.BBOX_VOTE.": {"ENABLED": False, "VOTE_TH": 0.8, "SCORING_METHOD": "ID", "SCORING_METHOD_BETA": 1.0},
    "TEST.BBOX_AUG.": _AUGMENTATION,
    "TEST.MASK_AUG.": _AUGMENTATION,
    "TEST.KPS_AUG.": _AUGMENTATION,
    "SOLVER.": {
        "TYPE": "SGD",
        "BASE_LR": 0.001,
        "LR_POLICY": "step",
        "GAMMA": 0.1,
        "STEP_SIZE": 30000,
        "STEPS": (),
        "LRS": (),
        "MAX_ITER": 40000,
        "WEIGHT_DECAY": 0.0005,
        "BIAS_DOUBLE_LR": True,
        "WARM_UP_ITERS": 500,
        "WARM_UP_FACTOR": 1 / 3,
    },
}
_FIXED: dict[str, dict[str, Value]] = {
    "": {"BBOX_XFORM_CLIP": math.log(1000 / 16)},
    "MODEL.": {"UNSUPERVISED_POSE": False, "USE_DEFORM_v2": False, "USE_DEFORM_3PARTY": False},
    "GROUP_NORM.": {"DIM_PER_GP": -1, "NUM_GROUPS": 32, "EPSILON": 1e-5},
    "FPN.": {
        "EXTRA_CONV_LEVELS": False,
        "COARSEST_STRIDE": 32,
        "ROI_MIN_LEVEL": 2,
        "ROI_MAX_LEVEL": 5,
        "RPN_MIN_LEVEL": 2,
    },
    "MRCNN.": {"USE_FC_OUTPUT": False, "UPSAMPLE_RATIO": 1, "WEIGHT_LOSS_MASK": 1.0, "THRESH_BINARIZE": 0.5},
    "KRCNN.": {
        "UP_SCALE": 2,
        "USE_DECONV": False,
        "USE_DECONV_OUTPUT": True,
        "DECONV_KERNEL": 4,
        "DILATION": 1,
        "CONV_HEAD_KERNEL": 3,
        "KEYPOINT_CONFIDENCE": "bbox",
        "INFERENCE_MIN_SIZE": 0,
        "NORMALIZE_BY_VISIBLE_KEYPOINTS": True,
    },
    "TRAIN.": {"BG_THRESH_LO": 0.0, "RPN_MIN_SIZE": 0, "GT_MIN_AREA": -1, "FREEZE_BN": True},
    "TEST.": {"RPN_MIN_SIZE": 0, "ASPECT_CROPPING": False},
    "TEST.BBOX_AUG.": {"SCORE_HEUR": "UNION", "COORD_HEUR": "UNION", "SCALE_SIZE_DEP": False, "ASPECT_RATIOS": ()},
    "TEST.MASK_AUG.": {"HEUR": "SOFT_AVG", "SCALE_SIZE_DEP": False, "ASPECT_RATIOS": ()},
    "TEST.KPS_AUG.": {"HEUR": "HM_AVG", "SCALE_SIZE_DEP": False, "ASPECT_RATIOS": ()},
    "SOLVER.": {"MOMENTUM": 0.9, "WEIGHT_DECAY_GN": 0.0, "BIAS_WEIGHT_DECAY": False, "WARM_UP_METHOD": "linear"},
}
FIXED = {section + name: value for section, keys in _FIXED.items() for name, value in keys.items()}
"""Key -> the one value that our models have; another one is an error where the key counts."""

DEFAULTS = FIXED | {section + name: value for section, keys in _DEFAULTS.items() for name, value in keys.items()}
"""Key -> Detectron's default."""

_REASONS = {
    "`fsis convert` turns the weights themselves into a folder; give it as config.init_from": (
        "TRAIN.WEIGHTS TEST.WEIGHTS MODEL.LOAD_IMAGENET_PRETRAINED_WEIGHTS RESNETS.IMAGENET_PRETRAINED "
        "RESNETS.IMAGENET_PRETRAINED_WEIGHTS RESNETS.LOAD_IMAGENET TRAIN.LOAD_IMAGENET_PRETRAINED_WEIGHTS"
    ),
    "initial values are ours; trained ones come by config.init_from": (
        "MRCNN.CONV_INIT KRCNN.CONV_INIT FPN.ZERO_INIT_LATERAL"
    ),
    "config.data.root says where the images are": "TRAIN.DATASETS TEST.DATASETS TRAIN.DATASET TEST.DATASET DATA_DIR",
    "of precomputed proposals; the RPN makes them here": (
        "TRAIN.PROPOSAL_FILES TEST.PROPOSAL_FILES TRAIN.PROPOSAL_FILE TEST.PROPOSAL_FILE TEST.PROPOSAL_LIMIT "
        "DEDUP_BOXES"
    ),
    "follows from other keys": (
        "TEST.PRECOMPUTED_PROPOSALS RPN.RPN_ON MODEL.SHARE_RES5 FPN.RPN_COLLECT_SCALE CUDA "
        "PYTORCH_VERSION_LESS_THAN_040"
    ),
    "Detectron itself no longer reads it": (
        "FINAL_MSG MODEL.DILATION ROOT_GPU_ID RPN.ON TRAIN.DROPOUT USE_GPU_NMS TEST.NUM_TEST_IMAGES POOLING_MODE "
        "POOLING_SIZE TRAIN.TRIM_HEIGHT TRAIN.TRIM_WIDTH TRAIN.BBOX_INSIDE_WEIGHTS"
    ),
    "boxes are normalised by MODEL.BBOX_REG_WEIGHTS": (
        "TRAIN.BBOX_NORMALIZE_TARGETS TRAIN.BBOX_NORMALIZE_TARGETS_PRECOMPUTED TRAIN.BBOX_NORMALIZE_MEANS "
        "TRAIN.BBOX_NORMALIZE_STDS"
    ),
    "images share the canvases of config.data.train_canvases, by their shape": "TRAIN.ASPECT_GROUPING",
    "crowds count neither as objects nor as background here": "TRAIN.CROWD_FILTER_THRESH",
    "a run goes on from the last checkpoint in its workdir": "TRAIN.AUTO_RESUME",
    "results are always written": "TEST.COMPETITION_MODE",
    "AP is always COCO's": "TEST.FORCE_JSON_DATASET_EVAL",
    "the longest side grows with the scale": "TEST.BBOX_AUG.MAX_SIZE TEST.MASK_AUG.MAX_SIZE TEST.KPS_AUG.MAX_SIZE",
    "without SCALE_SIZE_DEP or ASPECT_RATIOS of no effect": (
        "TEST.BBOX_AUG.AREA_TH_LO TEST.BBOX_AUG.AREA_TH_HI TEST.MASK_AUG.AREA_TH TEST.KPS_AUG.AREA_TH "
        "TEST.BBOX_AUG.ASPECT_RATIO_H_FLIP TEST.MASK_AUG.ASPECT_RATIO_H_FLIP TEST.KPS_AUG.ASPECT_RATIO_H_FLIP"
    ),
    "the loss does not depend on it": "MRCNN.MEMORY_EFFICIENT_LOSS",
    "without KRCNN.USE_DECONV of no effect": "KRCNN.DECONV_DIM",
    "no batch is thrown away": "KRCNN.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH",
    "the rate comes after the momentum here, as optimizer.scale_momentum tells": (
        "SOLVER.SCALE_MOMENTUM SOLVER.SCALE_MOMENTUM_THRESHOLD"
    ),
    "the rate is logged every config.training.log_every steps": "SOLVER.LOG_LR_CHANGE_THRESHOLD",
    "config.data.workers is the number of worker processes": "DATA_LOADER.NUM_THREADS",
    "of the machine, not of the model": (
        "DATA_LOADER.MINIBATCH_QUEUE_SIZE DATA_LOADER.BLOBS_QUEUE_CAPACITY CLUSTER.ON_CLUSTER ROOT_DIR "
        "DOWNLOAD_CACHE MATLAB"
    ),
    "images lose the means that Detectron's files have (model.image_mean)": "PIXEL_MEANS",
    "of Caffe2": "MODEL.EXECUTION_TYPE USE_NCCL MEMONGER MEMONGER_SHARE_ACTIVATIONS",
    "--workdir is the folder of a run": "OUTPUT_DIR",
    "every operation has its own": "EPS",
    "config.debug asks for a quick look": "DEBUG",
    "config.training.overlays and config.eval.overlays ask for pictures": "VIS VIS_TH",
    "results are written, not compared": (
        "EXPECTED_RESULTS EXPECTED_RESULTS_RTOL EXPECTED_RESULTS_ATOL EXPECTED_RESULTS_EMAIL"
    ),
    "this is no RetinaNet (RETINANET.RETINANET_ON is False)": (
        "RETINANET.ASPECT_RATIOS RETINANET.SCALES_PER_OCTAVE RETINANET.ANCHOR_SCALE RETINANET.NUM_CONVS "
        "RETINANET.BBOX_REG_WEIGHT RETINANET.BBOX_REG_BETA RETINANET.PRE_NMS_TOP_N RETINANET.POSITIVE_OVERLAP "
        "RETINANET.NEGATIVE_OVERLAP RETINANET.LOSS_ALPHA RETINANET.LOSS_GAMMA RETINANET.PRIOR_PROB "
        "RETINANET.SHARE_CLS_BBOX_TOWER RETINANET.CLASS_SPECIFIC_BBOX RETINANET.SOFTMAX RETINANET.INFERENCE_TH"
    ),
    "this is no R-FCN": "RFCN.PS_GRID_SIZE MODEL.PS_GRID_SIZE",
}
"""Why -> the keys that have no counterpart for it."""

IGNORED = {key: reason for reason, keys in _REASONS.items() for key in keys.split()}
"""Key -> why it is ignored."""

RENAMED = {
    "TEST.SCALES": "TEST.SCALE",
    "MODEL.ROI_HEAD": "FAST_RCNN.ROI_BOX_HEAD",
    "MRCNN.MASK_HEAD_NAME": "MRCNN.ROI_MASK_HEAD",
}
"""Older names of keys."""

SWITCHES = {
    "MRCNN.": "MODEL.MASK_ON",
    "KRCNN.": "MODEL.KEYPOINTS_ON",
    "FPN.": "FPN.FPN_ON",
    "TRAIN.ASPECT_": "TRAIN.ASPECT_CROPPING",
    "TEST.SOFT_NMS.": "TEST.SOFT_NMS.ENABLED",
    "TEST.BBOX_VOTE.": "TEST.BBOX_VOTE.ENABLED",
    "TEST.BBOX_AUG.": "TEST.BBOX_AUG.ENABLED",
    "TEST.MASK_AUG.": "TEST.MASK_AUG.ENABLED",
    "TEST.KPS_AUG.": "TEST.KPS_AUG.ENABLED",
}
"""Start of keys -> the key without which they have no effect."""

FEW_SHOT = ("SEEN", "CO_ATTEN", "RELATION_RCNN", "FSSUN", "FSSAN", "TRAIN.CATEGORIES", "TEST.CATEGORIES")
"""Keys that only CA_FSIS_Cell has."""
