"""Every configuration key, once, with its meaning. Files in configs/ start from here and change what differs.

The defaults are the PyTorch project's R50-FPN recipe on FIS-Cell, apart from its bugs. A key that is not listed
here does not exist; `--config.a.b=value` on an unknown key is an error.
"""

import functools
import pathlib

from ml_collections import ConfigDict

from fsis_jax.errors import FsisError


def base_config() -> ConfigDict:
    """The full tree of keys with the parity defaults."""
    config = ConfigDict()
    config.seed = 0
    # Start from the parameters of another model: "cells-small", a weights file, or a run (its workdir, or one of its
    # step folders).
    config.init_from = ""
    # How the step is mapped over devices: "shard_map" (jax.jit of jax.shard_map) or "pmap" (jax.pmap).
    config.parallel = "shard_map"

    config.data = _data()
    config.model = _model()
    config.optimizer = _optimizer()
    config.training = _training()
    config.eval = _evaluation()
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    # A COCO folder (images/, annotations/train.json, test.json, folds.json), the FIS-Cell layout, or a prepared
    # array_record data set.
    data.root = "data/fis_cell"
    # Make synthetic cells under `root` if nothing is there yet.
    data.synthetic = False
    # Fold whose categories are held out of training; 0 holds out none.
    data.fold = 1
    # References per episode, K.
    data.shots = 1
    # Probability of an episode whose references' category is in the target, and of background patches as
    # references; the rest are episodes with references of a category that is absent.
    data.present = 0.8
    data.background = 0.1
    # Also show each target references of another category, and train the box head to tell the two apart (the two-way
    # contrastive training of Fan et al. 2020). Teaches to heed the references; makes a step a little longer.
    data.contrast = False
    # Probability that targets of other categories are shown beside the target, in a mosaic of two or four.
    data.mosaic = 0.0
    # Where training references come from: "other" images of the category (where there are any), the "target"
    # itself, or "any".
    data.reference_source = "other"
    # Least mask area of a reference, pixels of the stored image.
    data.min_reference_area = 20.0
    # Share of the training images that is kept for validation. 0 validates on the training images themselves.
    data.validation_fraction = 0.1
    # Canvas shapes (height, width). Training uses `train_canvases`; evaluation and segmentation `test_canvases`.
    data.train_canvases = ((608, 800), (608, 1024), (800, 608), (1024, 608), (608, 608))
    data.test_canvases = ((608, 800), (608, 1024), (800, 608), (1024, 608), (608, 608))
    # Overlap of the tiles that a large image is read in, in longest sides of a reference (of the largest one). A cell
    # that is longer than the overlap may be cut; half a tile is the most.
    data.tile_overlap = 2.0
    # A tile of a large image is background, and not given to the network, if the means over squares of a quarter of a
    # cell differ by no more than this, in levels of 0 to 255. 0: all tiles are.
    data.background_contrast = 8.0
    # Worker processes of the pipeline; 0: a thread of the main process.
    data.workers = 0
    data.transform = _transform()
    return data


def _transform() -> ConfigDict:
    """The fields of data.transforms.TransformConfig, which says what each means; box_offset comes from the model."""
    transform = ConfigDict()
    transform.scale = "shortest_side"
    transform.shortest_side = 600
    transform.longest_side = 1000
    transform.reference_pixels = 32.0
    transform.min_scale = 0.125
    transform.max_scale = 4.0
    transform.intensity = "none"
    transform.percentiles = (1.0, 99.8)
    transform.reference_size = 128
    transform.antialias = False
    transform.legacy_reference_crop = False
    transform.mask_size = 56
    transform.max_instances = 300
    transform.min_visible = 0.3
    transform.scale_jitter = 1.0
    transform.reference_context = 1.35
    transform.flip = 0.5
    transform.rot90 = False
    transform.gamma = 1.0
    transform.contrast = 0.0
    transform.brightness = 0.0
    transform.colour = 0.0
    transform.noise = 0.0
    transform.invert = 0.0
    transform.grey = 0.0
    return transform


def _model() -> ConfigDict:
    model = ConfigDict()
    # "fpn": a feature pyramid. "c4": level 4 of the backbone alone, its last stage as the trunk of both heads.
    model.architecture = "fpn"
    # How the heads see the references: "concat" (the original), "compare", or "none" (they are blind to them).
    model.relation = "concat"
    model.compute_dtype = "float32"
    # Keep only the inputs of residual blocks in training and compute the rest again for the gradient (gradient
    # checkpointing): less memory, a longer step.
    model.remat = False
    # What runs RoIAlign and NMS: "xla", "pallas" (GPU kernels; on a CPU interpreted, for tests) or "auto": the kernels
    # on an NVIDIA GPU that they support, else XLA. "auto" is to become the default once they have run on a GPU.
    model.ops = "xla"
    # The PyTorch weights' box convention: width = x2 - x1 + 1, RoIAlign without the half-pixel shift.
    model.legacy_boxes = True
    # Heads with a background box and mask output beside the foreground's (the PyTorch weights have them).
    model.background_outputs = True
    # Every instance is a positive whatever the reference (the original), which teaches to ignore references.
    model.all_gt_positive = False
    # Proposals may reach into the padding up to a multiple of 32, as at the original's test.
    model.clip_to_padding = False
    # At test, masks are made from target features matched with the references' next coarser level, by mistake.
    model.shifted_mask_references = False

    model.backbone = ConfigDict()
    model.backbone.depth = 50
    model.backbone.width = 64
    # "frozen" batch norm (needs `init_from`) or "group" norm (from scratch).
    model.backbone.norm = "frozen"
    # Where a bottleneck's stride sits: on its first 1x1 convolution (the original) or on the 3x3 (torchvision).
    model.backbone.stride_in_1x1 = True
    # The stem's max pool is padded by one pixel (torchvision), or not at all (the original).
    model.backbone.padded_pool = False
    # Groups of the 3x3 convolutions, and channels of a group in the first stage (0: the width). ResNeXt: 32 and 8.
    model.backbone.groups = 1
    model.backbone.group_width = 0
    # Learned offsets ahead of the convolutions of res3 to res5: "none", "interleaved" (the layout of the original's
    # weights) or "split" (a vertical and a horizontal one per channel).
    model.backbone.deformable = "none"

    model.fpn = ConfigDict()
    model.fpn.channels = 256
    model.fpn.norm = "none"
    model.fpn.coarsest = 6

    model.matching = ConfigDict()
    # "co_attention"; "l1": target features beside their distance from the mean reference (an ablation); or "none":
    # with model.relation "none" a Mask R-CNN that is blind to the references.
    model.matching.kind = "co_attention"
    # After the projections of co-attention: "batch" (the original) or "group".
    model.matching.norm = "batch"

    model.rpn = ConfigDict()
    # One size per level, finest first ("c4": all sizes of its level); ratios are height / width.
    model.rpn.anchor_sizes = (32, 64, 128, 256, 512)
    model.rpn.anchor_ratios = (0.2, 0.5, 1.0, 2.0, 5.0)
    model.rpn.train_pre_nms = 2000
    model.rpn.train_post_nms = 2000
    model.rpn.test_pre_nms = 1000
    model.rpn.test_post_nms = 1000
    model.rpn.nms_threshold = 0.7
    model.rpn.min_size = 1.0
    # Anchors that reach further than this out of the image are not trained; -1 trains all.
    model.rpn.straddle = 0.0
    model.rpn.positive_iou = 0.7
    model.rpn.negative_iou = 0.3
    model.rpn.samples = 256
    model.rpn.positive_fraction = 0.5

    model.box_head = ConfigDict()
    model.box_head.hidden = 1024
    model.box_head.pooled = 7
    # Of res5 ("c4"): "frozen", "group", or "batch": in training the statistics of the rois (the original).
    model.box_head.norm = "frozen"
    model.box_head.sampling_ratio = 2
    # A roi of this size is pooled from this level.
    model.box_head.canonical_size = 224.0
    model.box_head.canonical_level = 4
    model.box_head.box_weights = (10.0, 10.0, 5.0, 5.0)
    model.box_head.positive_iou = 0.5
    model.box_head.negative_iou = 0.5
    model.box_head.samples = 256
    model.box_head.positive_fraction = 0.25

    model.mask_head = ConfigDict()
    model.mask_head.channels = 256
    model.mask_head.convs = 4
    model.mask_head.pooled = 14

    model.detections = ConfigDict()
    model.detections.score_threshold = 0.05
    # "linear", "gaussian" or "hard" suppression; decayed scores above the floor stay.
    model.detections.nms_method = "linear"
    model.detections.nms_threshold = 0.5
    model.detections.decayed_score_threshold = 1e-4
    model.detections.max_instances = 500
    # Masks are pasted at whole pixels, as the original does.
    model.detections.legacy_pasting = False
    return model


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    # "sgd" (momentum 0.9, the original) or "adamw".
    optimizer.name = "sgd"
    # Rate for a batch of `reference_batch_size`; it scales with the batch size.
    optimizer.learning_rate = 0.02
    optimizer.reference_batch_size = 16
    # "steps" (times 0.1 at each of `decay_steps`) or "cosine" (to 0 at the end).
    optimizer.schedule = "steps"
    # Steps for the reference batch size; they scale with its inverse.
    optimizer.decay_steps = (5000, 8000)
    # Linear warm-up from a third of the rate; never rescaled.
    optimizer.warmup_steps = 500
    optimizer.weight_decay = 1e-4
    optimizer.bias_rate = 2.0
    # Gradient values are clipped to +-this after every backward pass.
    optimizer.clip_value = 0.4
    # Backward passes whose gradients are summed before one update.
    optimizer.accumulate = 1
    return optimizer


def _training() -> ConfigDict:
    training = ConfigDict()
    training.batch_size = 16
    # Steps for the optimizer's reference batch size (they scale with the inverse of the effective batch size), or
    # exactly `steps` where that is not 0.
    training.reference_steps = 10000
    training.steps = 0
    training.log_every = 20
    training.checkpoint_every = 500
    # Evaluate the validation images at every n-th checkpoint, and at the end.
    training.validate_every = 1
    # Validation images with an overlay of what the network finds, written at every validation.
    training.overlays = 4
    return training


def _evaluation() -> ConfigDict:
    evaluation = ConfigDict()
    # "seen": the categories trained on; "unseen": those of the held-out fold; "all". Always the test images.
    evaluation.split = "unseen"
    # References per target; a test for each number.
    evaluation.shots = (1,)
    # Where they come from: "train" (other images: the category's train split), "target" (as the original), or "wrong"
    # (other images of a category that the target does not show: a control).
    evaluation.references = "train"
    # Repeats with other references.
    evaluation.repeats = 3
    # Measure selectivity instead, on so many mosaics of test images of four categories each.
    evaluation.mosaics = 0
    # Test Otsu's threshold and the watershed in place of the model.
    evaluation.otsu = False
    # At most so many test images per category; 0 takes all.
    evaluation.max_images = 0
    # Pictures of what was found, evenly spread over the test images.
    evaluation.overlays = 12
    return evaluation


def c4_config() -> ConfigDict:
    """The PyTorch project's R50-C4 recipe: no pyramid."""
    config = base_config()
    model = config.model
    model.architecture = "c4"
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
    """The recipe of `cells-small`: the compact detector, taught to heed its references by mosaics and contrast."""
    config = compact_config()
    config.data.contrast = True
    config.data.mosaic = 0.3
    config.data.train_canvases = ((192, 192),)
    config.data.transform.max_instances = 96
    config.data.transform.invert = 0.3
    config.data.transform.grey = 0.2
    return config


AT_LEAST = {
    0: (
        "seed",
        "data.fold",
        "data.workers",
        "training.steps",
        "training.overlays",
        "eval.max_images",
        "eval.mosaics",
        "eval.overlays",
        "model.backbone.group_width",
    ),
    1: (
        "data.shots",
        "data.tile_overlap",
        "optimizer.accumulate",
        "optimizer.reference_batch_size",
        "training.batch_size",
        "training.log_every",
        "training.checkpoint_every",
        "training.validate_every",
        "eval.repeats",
        "model.rpn.samples",
        "model.box_head.samples",
        "model.box_head.pooled",
        "model.mask_head.pooled",
        "model.detections.max_instances",
        "model.backbone.groups",
        "model.mask_head.convs",
    ),
}
"""Least values of numbers."""


def check_config(config: ConfigDict) -> None:
    """Raise FsisError for values that cannot work, before anything is built."""
    choices = {
        "parallel": (config.parallel, ("shard_map", "pmap")),
        "data.reference_source": (config.data.reference_source, ("other", "target", "any")),
        "model.ops": (config.model.ops, ("auto", "xla", "pallas")),
        "model.compute_dtype": (config.model.compute_dtype, ("float32", "bfloat16", "float16")),
        "model.backbone.norm": (config.model.backbone.norm, ("frozen", "group")),
        "model.backbone.depth": (config.model.backbone.depth, (18, 34, 50, 101, 152)),
        "model.fpn.norm": (config.model.fpn.norm, ("none", "group")),
        "model.architecture": (config.model.architecture, ("fpn", "c4")),
        "model.relation": (config.model.relation, ("concat", "compare", "none")),
        "model.matching.kind": (config.model.matching.kind, ("co_attention", "l1", "none")),
        "model.matching.norm": (config.model.matching.norm, ("batch", "group")),
        "model.backbone.deformable": (config.model.backbone.deformable, ("none", "interleaved", "split")),
        "model.box_head.norm": (config.model.box_head.norm, ("frozen", "batch", "group")),
        "model.detections.nms_method": (config.model.detections.nms_method, ("linear", "gaussian", "hard")),
        "optimizer.name": (config.optimizer.name, ("sgd", "adamw")),
        "optimizer.schedule": (config.optimizer.schedule, ("steps", "cosine")),
        "eval.split": (config.eval.split, ("seen", "unseen", "all")),
        "eval.references": (config.eval.references, ("train", "target", "wrong")),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            options = ", ".join(str(option) for option in allowed)
            raise FsisError(f"config.{key} is {value!r}; use one of: {options}")
    for least, keys in AT_LEAST.items():
        for key in keys:
            value = functools.reduce(lambda part, name: part[name], key.split("."), config)
            if value < least:
                raise FsisError(f"config.{key} is {value}; it must be at least {least}")
    if not 0 <= config.data.background_contrast < 255:
        raise FsisError(
            f"config.data.background_contrast is {config.data.background_contrast}; it must be from 0 to below 255"
        )
    if not 0 <= config.data.mosaic <= 1:
        raise FsisError(f"config.data.mosaic is {config.data.mosaic}; it must be from 0 to 1")
    if config.data.mosaic and config.data.transform.max_instances < 4:
        raise FsisError(
            f"config.data.transform.max_instances is {config.data.transform.max_instances}; the four panels of "
            "config.data.mosaic need at least 4"
        )
    if not 0 <= config.data.validation_fraction < 1:
        raise FsisError(
            f"config.data.validation_fraction is {config.data.validation_fraction}; it must be from 0 to below 1"
        )
    shots = config.eval.shots
    if not isinstance(shots, tuple) or not shots or not all(type(k) is int and k >= 1 for k in shots):
        raise FsisError(f"config.eval.shots is {shots}; give one or more numbers of references: 1,3,5")
    if config.eval.mosaics and config.eval.otsu:
        raise FsisError(
            f"config.eval.mosaics is {config.eval.mosaics} and config.eval.otsu is True: two tests; give one of them"
        )
    if config.eval.mosaics and config.eval.references != "train":
        raise FsisError(
            f"config.eval.mosaics is {config.eval.mosaics}: their references come from the train split; set "
            f"config.eval.references to train, it is {config.eval.references!r}"
        )
    levels = config.model.fpn.coarsest - 1
    if config.model.architecture == "fpn" and len(config.model.rpn.anchor_sizes) != levels:
        raise FsisError(
            f"config.model.rpn.anchor_sizes has {len(config.model.rpn.anchor_sizes)} sizes; "
            f"the pyramid has {levels} levels (2 to {config.model.fpn.coarsest}), give one size for each"
        )
    model = config.model
    if not model.rpn.anchor_sizes:
        raise FsisError("config.model.rpn.anchor_sizes is empty; give at least one size")
    if model.backbone.depth < 50 and (model.backbone.deformable != "none" or model.backbone.groups != 1):
        raise FsisError(
            f"config.model.backbone.depth is {model.backbone.depth}: deformable and grouped convolutions need a "
            "depth of 50 or more"
        )
    if model.architecture == "fpn" and model.shifted_mask_references and model.fpn.coarsest < 6:
        raise FsisError(
            f"config.model.fpn.coarsest is {model.fpn.coarsest}; config.model.shifted_mask_references needs level 6"
        )
    if model.detections.legacy_pasting and not model.legacy_boxes:
        raise FsisError(
            "config.model.detections.legacy_pasting is for the boxes of config.model.legacy_boxes; set both"
        )
    for key in ("train_canvases", "test_canvases"):
        canvases = config.data[key]
        if not isinstance(canvases, tuple) or not canvases or not all(map(_is_canvas, canvases)):
            raise FsisError(
                f"config.data.{key} is {canvases!r}; give (height, width) pairs, multiples of 32: ((256, 256),)"
            )


def _is_canvas(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 and side % 32 == 0 for side in value)
    )


def user_path(path: str) -> pathlib.Path:
    """A path from a config or the command line: absolute, with ~ expanded.

    Raises:
        FsisError: ~NAME of a user who is not known.
    """
    try:
        return pathlib.Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise FsisError(f"{path}: there is no such user, or no home: give the whole path") from error
