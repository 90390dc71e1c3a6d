"""A check that learning works: memorises a few images, without augmentation, in a few minutes on two CPU cores.

Command:  python scripts/train.py --config configs/overfit.py --config.data.root=DIR --workdir runs/overfit
Expects:  validation mask AP50 (on the training images) of 0.9 and more with four images.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import compact_config


def get_config() -> ConfigDict:
    """The compact recipe with nothing random but the choice of references, and every image always at one scale."""
    config = compact_config()
    config.data.root = "data/synthetic"
    config.data.validation_fraction = 0.0
    config.data.train_canvases = ((192, 192),)
    config.data.test_canvases = ((192, 192),)
    config.data.workers = 0
    transform = config.data.transform
    transform.scale = "shortest_side"
    transform.shortest_side = 192
    transform.longest_side = 192
    transform.max_instances = 64
    transform.scale_jitter = 1.0
    transform.reference_context = 1.0
    transform.flip = 0.0
    transform.rot90 = False
    transform.gamma = 1.0
    transform.contrast = 0.0
    transform.brightness = 0.0
    transform.colour = 0.0
    transform.noise = 0.0
    config.optimizer.warmup_steps = 20
    config.training.steps = 300
    config.training.checkpoint_every = 100
    return config
