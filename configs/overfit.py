"""A check that learning works: memorises a few images, without augmentation, in a few minutes on two CPU cores.

Command:  python scripts/train.py --config configs/overfit.py --config.data.root=DIR --workdir runs/overfit
Expects:  validation mask AP50 (on the training images) of 0.9 and more with four images.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import overfit_config


def get_config() -> ConfigDict:
    """The compact recipe with nothing random but the choice of references, and every image always at one scale."""
    config = overfit_config(192)
    config.data.root = "data/synthetic"
    config.training.steps = 300
    return config
