"""The smallest detector that still has every part, for tests that train; also a file for `--config`."""

from ml_collections import ConfigDict

from fsis_jax.recipes import compact_config


def get_config() -> ConfigDict:
    """A compact detector of a few thousand parameters on canvases of 64 and 96 pixels, two epochs long."""
    config = compact_config()
    model = config.model
    model.backbone.depth = 10
    model.backbone.width = 8
    model.fpn.channels = 16
    model.rpn.train_pre_nms = 32
    model.rpn.train_post_nms = 16
    model.rpn.test_pre_nms = 32
    model.rpn.test_post_nms = 16
    model.rpn.samples = 32
    model.box_head.hidden = 32
    model.box_head.samples = 8
    model.mask_head.channels = 16
    model.mask_head.convs = 1
    model.detections.max_instances = 8

    config.data.workers = 0
    config.data.train_canvases = ((64, 64),)
    config.data.test_canvases = ((64, 64), (96, 96))
    config.data.transform.max_instances = 24
    config.data.transform.reference_size = 32
    config.data.transform.mask_size = 14

    config.optimizer.warmup_steps = 2
    config.training.batch_size = 4
    config.training.steps = 12
    config.training.log_every = 1
    config.training.checkpoint_every = 3
    config.training.overlays = 1
    config.eval.repeats = 2
    config.eval.max_images = 1
    config.eval.overlays = 1
    return config
