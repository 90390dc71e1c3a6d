"""A check that a plain detector learns: memorises a few images and tells three categories apart, on two CPU cores.

Command:  python scripts/train.py --config configs/overfit_classes.py --config.data.root=DIR --workdir runs/overfit
Needs:    images of the three kinds of `fsis data synthetic` that are named below; others are left out.
Expects:  validation mask AP50 (on the training images) of 0.9 and more with four images, after two or three minutes.
"""

from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.recipes import compact_config


def get_config() -> ConfigDict:
    """The compact recipe without references and with nothing random: a Mask R-CNN of three of the synthetic cells."""
    config = compact_config()
    model = config.model
    model.classes = ("fluo_discs", "fluo_textured", "fluo_membranes")
    model.matching.kind = "none"
    model.relation = "none"
    model.detections.max_instances = 100

    config.data.root = "data/synthetic"
    config.data.fold = 0
    config.data.validation_fraction = 0.0
    config.data.train_canvases = ((192, 192),)
    config.data.test_canvases = ((192, 192),)
    config.data.workers = 0
    config.data.transform = base_config().data.transform  # without augmentation but for the flip
    transform = config.data.transform
    transform.shortest_side = 192
    transform.longest_side = 192
    transform.intensity = "percentile"
    transform.mask_size = 28
    transform.max_instances = 64
    transform.flip = 0.0

    config.optimizer.warmup_steps = 20
    config.training.steps = 200
    config.training.checkpoint_every = 100
    config.eval.split = "seen"
    config.eval.repeats = 1
    return config
