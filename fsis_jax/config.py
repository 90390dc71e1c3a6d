"""Every configuration key, once, with its meaning. Files in configs/ start from here and change what differs.

The defaults are the PyTorch project's R50-FPN recipe on FIS-Cell, apart from its bugs. A key that is not listed
here does not exist; `--config.a.b=value` on an unknown key is an error. recipes.py has the recipes that several configs
share, config_rules.py which values a key may have.
"""

import dataclasses

from ml_collections import ConfigDict

from fsis_jax.preprocess.transform_config import TransformConfig


def base_config() -> ConfigDict:
    """The full tree of keys with the parity defaults."""
    config = ConfigDict()
    config.seed = 0
    # A quick look whether everything runs: few images, few steps, and a workdir of its own ("-debug" is appended).
    config.debug = False
    # Start from the parameters of another model: "cells-small", a weights file, or a run (its workdir, or one of its
    # step folders).
    config.init_from = ""
    # How the step is mapped over devices: "shard_map" (jax.jit of jax.shard_map) or "pmap" (jax.pmap).
    config.parallel = "shard_map"
    # Train in several processes, on one host or many, all with the same command: "auto" under SLURM, Open MPI or
    # Kubernetes; elsewhere "ADDRESS:PORT,NUMBER,ID": where process 0 listens, how many there are, which one this is.
    config.distributed = ""

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
    # An epoch shows an image as often as the commonest category has images for one of its rarest, to this power: 0 each
    # image once, 1 each category alike.
    data.repeat_rare = 0.0
    # Also show each target references of another category, and train the box head to tell the two apart (the two-way
    # contrastive training of Fan et al. 2020). Teaches to follow the references; makes a step a little longer.
    data.contrast = False
    # Probability that targets of other categories are shown beside the target, in a mosaic of two or four.
    data.mosaic = 0.0
    # Where training references come from: "other" images of the category (where there are any), the "target"
    # itself, or "any".
    data.reference_source = "other"
    # Least mask area of a reference, pixels of the stored image.
    data.min_reference_area = 20.0
    # Share of the training images that is kept for validation, and three at least of nine or more. 0 validates on the
    # training images themselves.
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
    # Images whose width over height is outside these bounds are cropped at random to the nearest bound in training
    # (with transform.scale "shortest_side"); () crops none.
    data.aspect_bounds = ()
    # Worker processes of the pipeline; 0: a thread of the main process.
    data.workers = 0
    # How images and references are scaled, stretched and varied: preprocess/transform_config.py has these keys, what
    # they mean, and their defaults.
    data.transform = _transform()
    return data


def _transform() -> ConfigDict:
    """The fields of TransformConfig, but for two that stand elsewhere."""
    values = dataclasses.asdict(TransformConfig())
    del values["box_offset"]  # model.legacy_boxes
    del values["aspect_bounds"]  # data.aspect_bounds
    return ConfigDict(values)


def _model() -> ConfigDict:
    model = ConfigDict()
    # What the detector reads: "fpn", a feature pyramid; "p2", the finest level of one; "c4" or "c5", that level of the
    # backbone alone.
    model.architecture = "fpn"
    # Names of the categories of a closed-set detector, which is shown no references (with model.matching.kind and
    # model.relation "none"). (): few-shot, the cells like the references.
    model.classes = ()
    # How heads take features of a roi: "align", "pool" (its maximum in each cell) or "crop" (one bilinear sample each).
    model.roi_method = "align"
    # How the heads see the references: "concat" (the original), "compare", "compare_bags" (see box_head.py), or "none":
    # they are blind to them.
    model.relation = "concat"
    # What of red, green and blue (0 to 1) the network sees as 0: ImageNet's means, which Detectron's differ from a bit.
    model.image_mean = (0.485, 0.456, 0.406)
    model.compute_dtype = "float32"
    # Keep only the inputs of residual blocks in training and compute the rest again for the gradient (gradient
    # checkpointing): less memory, a longer step.
    model.remat = False
    # What runs RoIAlign and NMS: "xla", "pallas" (GPU kernels; on a CPU interpreted, for tests) or "auto": the kernels
    # on an NVIDIA GPU that they support, else XLA. The kernels' README says what they gain and what has been tried.
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
    # Stages that are not trained: 1 the stem, 2 also res2, ... 5 all of the backbone; 0 none.
    model.backbone.freeze_at = 2
    # Of the 3x3 convolutions of res5: with 2 and architecture "c5" it keeps level 4's stride of 16.
    model.backbone.dilation = 1
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
    # Channels of the 3x3 convolution; 0: as many as its input has.
    model.rpn.channels = 0
    # "sigmoid": one output per anchor; "softmax": two, background and foreground.
    model.rpn.objectness = "sigmoid"
    # One size per level, finest first (without a pyramid: all sizes of the one level); ratios are height / width.
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

    model.votes = ConfigDict()
    # "dense": every second pixel votes for the box of the cell that it lies in; the best votes are proposals too, and
    # the heads see those in a roi (see models/votes.py). "none": proposals and heads know of no votes.
    model.votes.kind = "none"
    model.votes.channels = 32
    # Votes that are best of their surroundings, before and after NMS (at the RPN's threshold).
    model.votes.pre_nms = 1000
    model.votes.post_nms = 300

    model.box_head = ConfigDict()
    # "mlp": two fully connected layers; "convs": 3x3 convolutions and one fully connected layer; "res5": the last stage
    # of the backbone ("c4" only).
    model.box_head.kind = "mlp"
    model.box_head.hidden = 1024
    model.box_head.convs = 4
    model.box_head.conv_channels = 256
    # After the convolutions of "convs": "none" or "group".
    model.box_head.conv_norm = "none"
    # A box of its own for each of model.classes.
    model.box_head.class_specific = True
    model.box_head.pooled = 7
    # Of res5: "frozen", "group", or "batch": in training the statistics of the rois (the original).
    model.box_head.norm = "frozen"
    model.box_head.sampling_ratio = 2
    # A roi of this size is pooled from this level.
    model.box_head.canonical_size = 224.0
    model.box_head.canonical_level = 4
    model.box_head.box_weights = (10.0, 10.0, 5.0, 5.0)
    model.box_head.positive_iou = 0.5
    model.box_head.negative_iou = 0.5
    # The score that is learnt for a cell is the IoU of the box that is found for it, instead of 1: it then ranks boxes.
    model.box_head.quality_scores = False
    model.box_head.samples = 256
    model.box_head.positive_fraction = 0.25

    model.mask_head = ConfigDict()
    # "convs": 3x3 convolutions; "shared_res5": the box head's res5 ("res5" there); "res5": one of its own ("c4" only);
    # "none": boxes alone.
    model.mask_head.kind = "convs"
    model.mask_head.channels = 256
    model.mask_head.convs = 4
    # After the convolutions of "convs": "none" or "group".
    model.mask_head.norm = "none"
    # A mask of its own for each of model.classes.
    model.mask_head.class_specific = True
    model.mask_head.pooled = 14

    model.keypoint_head = ConfigDict()
    # "convs": 3x3 convolutions and a heat map per keypoint (a closed-set detector only); "none": no keypoints.
    model.keypoint_head.kind = "none"
    model.keypoint_head.keypoints = 17
    model.keypoint_head.channels = 512
    model.keypoint_head.convs = 8
    model.keypoint_head.pooled = 14
    # Of its loss among the others.
    model.keypoint_head.loss_weight = 1.0
    # Suppress instances whose keypoints are more similar (OKS) to a better one's than this; 0 does not.
    model.keypoint_head.oks_threshold = 0.0

    model.detections = ConfigDict()
    model.detections.score_threshold = 0.05
    # "linear", "gaussian" or "hard" suppression; decayed scores above the floor stay.
    model.detections.nms_method = "linear"
    model.detections.nms_threshold = 0.5
    # Of instances whose boxes are kept, one of whose mask better ones have taken more than this share is dropped; 0
    # drops none. What parts cells whose boxes overlap widely; then nms_threshold should be loose and nms_method "hard".
    model.detections.mask_nms_threshold = 0.0
    # The score is multiplied by the mask's confidence to this power: the IoU with the true mask that its own
    # probabilities lead one to expect (Mask Scoring R-CNN trains a head to tell it). 0: boxes alone rank.
    model.detections.mask_confidence = 0.0
    # And by the votes' to this power: their mean probability to lie in a cell, over the mask. Needs model.votes.
    model.detections.vote_confidence = 0.0
    # Of what is nearer to its surroundings in brightness than the references are, the log odds fall by this much for
    # each power of e of 1 + z^2 / 4, z spreads away (inference/traits.py). 0: brightness counts for the network alone.
    model.detections.faintness = 0.0
    # Width of the "gaussian".
    model.detections.sigma = 0.5
    # Each box becomes the mean of those that overlap it from this IoU on, weighted by their scores; 0 does not.
    model.detections.box_voting = 0.0
    # The score of a mean: see ops.box_voting.
    model.detections.box_voting_scores = "id"
    # False: the proposals are the boxes.
    model.detections.box_regression = True
    model.detections.decayed_score_threshold = 1e-4
    model.detections.max_instances = 500
    # Masks are pasted at whole pixels, as the original does.
    model.detections.legacy_pasting = False
    return model


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    # "sgd" (momentum 0.9, the original), "adam" (weight decay in the gradient, as the original's) or "adamw".
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
    # With "sgd", multiply the momentum by the change of the rate where that drops, as Detectron.pytorch does.
    optimizer.scale_momentum = False
    # Gradient values are clipped to +-this after every backward pass.
    optimizer.clip_value = 0.4
    # Backward passes whose gradients are summed before one update.
    optimizer.accumulate = 1
    return optimizer


def _training() -> ConfigDict:
    training = ConfigDict()
    training.batch_size = 16
    # Train the heads alone: neither the backbone nor its pyramid.
    training.freeze_backbone = False
    # Write checkpoints; without them a run cannot go on, nor be tested afterwards.
    training.save = True
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
    # Measure instead how kinds are told apart, on test images that show several, with references of all at once.
    evaluation.kinds = False
    # Measure selectivity instead, on so many mosaics of test images of four categories each.
    evaluation.mosaics = 0
    # Test Otsu's threshold and the watershed in place of the model.
    evaluation.otsu = False
    # At most so many test images per category; 0 takes all.
    evaluation.max_images = 0
    # Test-time augmentation: also look at each image flipped left to right, and at scales times its usual one. What all
    # views find is suppressed together, which wants model.detections.nms_method "hard". Keypoints are the usual view's.
    evaluation.flip = False
    evaluation.scales = ()
    # Pictures of what was found, evenly spread over the test images.
    evaluation.overlays = 12
    return evaluation
