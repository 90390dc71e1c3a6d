"""Recipes that several files in configs/ start from: `base_config` with what a kind of model changes."""

from ml_collections import ConfigDict

from fsis_jax.coco_names import COCO_CLASSES
from fsis_jax.config import base_config


def c4_config() -> ConfigDict:
    """The PyTorch project's R50-C4 recipe: no pyramid."""
    config = base_config()
    model = config.model
    model.architecture = "c4"
    model.box_head.kind = "res5"
    model.mask_head.kind = "shared_res5"
    model.rpn.anchor_ratios = (0.5, 1.0, 2.0)
    model.rpn.train_pre_nms = 12000
    model.rpn.test_pre_nms = 6000
    model.rpn.test_post_nms = 1000
    config.optimizer.reference_batch_size = 8
    return config


def compact_config() -> ConfigDict:
    """A compact detector that trains from scratch on two CPU cores, with everything of our own switched on.

    Images are stretched to their own percentiles and brought to the scale at which the references have one size.
    """
    config = base_config()
    model = config.model
    model.legacy_boxes = False
    model.background_outputs = False
    model.backbone.depth = 18
    model.backbone.width = 32
    model.backbone.norm = "group"
    model.backbone.freeze_at = 0
    model.fpn.channels = 64
    model.fpn.norm = "group"
    model.fpn.coarsest = 5
    model.matching.norm = "group"
    # Cells come to about 28 pixels (data.transform.scale = "reference"); the anchors cover a wide range around.
    model.rpn.anchor_sizes = (18, 36, 72, 144)
    model.rpn.anchor_ratios = (0.5, 1.0, 2.0)
    model.rpn.straddle = -1.0
    model.rpn.positive_iou = 0.6
    model.rpn.train_pre_nms = 400
    model.rpn.train_post_nms = 256
    model.rpn.test_pre_nms = 1000
    model.rpn.test_post_nms = 600
    model.rpn.min_size = 2.0
    model.rpn.samples = 128
    model.relation = "compare"
    model.box_head.hidden = 256
    model.box_head.canonical_size = 64.0
    model.box_head.canonical_level = 3
    model.box_head.samples = 64
    model.mask_head.channels = 64
    model.mask_head.convs = 2
    model.detections.max_instances = 400

    config.data.train_canvases = ((256, 256),)
    config.data.test_canvases = ((256, 256), (384, 384), (512, 512), (544, 736), (736, 544), (768, 768), (1024, 1024))
    config.data.workers = 1
    transform = config.data.transform
    transform.scale = "reference"
    transform.reference_pixels = 28.0
    # A reference is read at about the scale of the cells in the target, so that features of a level compare.
    transform.reference_size = 32
    transform.intensity = "percentile"
    transform.antialias = True
    transform.mask_size = 28
    transform.max_instances = 160
    transform.scale_jitter = 1.35
    transform.rot90 = True
    transform.gamma = 1.4
    transform.contrast = 0.2
    transform.brightness = 0.1
    transform.colour = 0.15
    transform.noise = 0.03

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.reference_batch_size = 4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 200
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_value = 1.0
    config.training.batch_size = 4
    return config


def cells_config() -> ConfigDict:
    """The recipe of `cells-small`: the compact detector, taught to follow its references by mosaics and contrast."""
    config = compact_config()
    config.data.contrast = True
    config.data.mosaic = 0.3
    config.data.train_canvases = ((192, 192),)
    config.data.transform.max_instances = 96
    config.data.transform.invert = 0.3
    config.data.transform.grey = 0.2
    return config


def cells_base_config() -> ConfigDict:
    """The recipe of `cells-base`: that of `cells-small`, with dense votes, scores that rank boxes, and larger cells."""
    config = cells_config()
    model = config.model
    model.votes.kind = "dense"
    model.relation = "compare_bags"
    model.rpn.train_post_nms = 192
    model.rpn.test_post_nms = 300
    model.box_head.quality_scores = True
    model.box_head.positive_fraction = 0.4
    # Boxes of cells that touch overlap widely: masks decide what is found twice.
    model.detections.nms_method = "hard"
    model.detections.nms_threshold = 0.7
    model.detections.mask_nms_threshold = 0.4
    model.detections.mask_confidence = 1.0
    model.detections.vote_confidence = 1.0
    model.detections.faintness = 0.75
    transform = config.data.transform
    config.data.repeat_rare = 0.5
    transform.reference_pixels = 36.0
    transform.reference_stretch = "either"
    return config


def coco_config() -> ConfigDict:
    """A plain Mask R-CNN, ResNet-50-FPN, over the 80 categories of COCO: the schedule "1x" of Detectron's baselines.

    For weights of torchvision's layout (`fsis convert`), which the backbone starts from.
    """
    config = base_config()
    model = config.model
    model.classes = COCO_CLASSES
    model.matching.kind = "none"
    model.relation = "none"
    model.legacy_boxes = False
    model.background_outputs = False
    model.backbone.stride_in_1x1 = False
    model.backbone.padded_pool = True
    model.rpn.anchor_ratios = (0.5, 1.0, 2.0)
    model.rpn.min_size = 0.0
    model.box_head.samples = 512
    model.detections.nms_method = "hard"
    model.detections.max_instances = 100

    config.init_from = "runs/resnet50"
    config.data.root = "data/coco"
    config.data.fold = 0
    config.data.validation_fraction = 0.01
    config.data.workers = 8
    # 800 and at most 1333 pixels: square, 4:3, 3:2, longer, and the same upright.
    landscape = ((800, 1088), (800, 1216), (800, 1344))
    config.data.train_canvases = ((800, 800), *landscape, *((width, height) for height, width in landscape))
    config.data.test_canvases = config.data.train_canvases
    config.data.transform.shortest_side = 800
    config.data.transform.longest_side = 1333
    config.data.transform.max_instances = 100

    config.optimizer.decay_steps = (60000, 80000)
    config.training.reference_steps = 90000
    config.training.checkpoint_every = 5000
    config.eval.split = "seen"
    config.eval.repeats = 1
    return config


def overfit_config(side: int, classes: tuple[str, ...] = ()) -> ConfigDict:
    """The compact detector with nothing random but the choice of references, to memorise a few images.

    Args:
        side: to which their longest side is brought, pixels.
        classes: of a closed-set detector, which is shown no references.
    """
    config = compact_config()
    config.data.validation_fraction = 0.0
    config.data.train_canvases = ((side, side),)
    config.data.test_canvases = ((side, side),)
    config.data.workers = 0
    config.data.transform = base_config().data.transform  # without augmentation but for the flip
    transform = config.data.transform
    transform.shortest_side = side
    transform.longest_side = side
    transform.flip = 0.0
    transform.intensity = "percentile"
    transform.antialias = True
    transform.reference_size = 32
    transform.reference_context = 1.0
    transform.mask_size = 28
    transform.max_instances = 64
    if classes:
        config.model.classes = classes
        config.model.matching.kind = "none"
        config.model.relation = "none"
        config.data.fold = 0
        config.eval.split = "seen"
        config.eval.repeats = 1

    config.optimizer.warmup_steps = 20
    config.training.steps = 200
    config.training.checkpoint_every = 100
    return config


def few_images_config(config: ConfigDict, init_from: str) -> ConfigDict:
    """What a model goes on learning with from a few images of one's own, such as ten that were corrected.

    Args:
        config: of the model.
        init_from: the model: a shipped name, a weights file or a run.

    Returns:
        A config of its own, with small steps: thirty for each image do (`suited_steps`).
    """
    config = ConfigDict(config)
    config.init_from = init_from
    config.debug = False
    config.data.synthetic = False
    config.data.root = "data/corrected"
    config.data.fold = 0
    config.data.workers = 0
    config.data.validation_fraction = 0.1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 20
    config.training.steps = 300
    config.training.checkpoint_every = 100
    config.training.validate_every = 1
    config.eval.split = "all"
    config.eval.repeats = 1
    return config
