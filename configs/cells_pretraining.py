"""First stage of `cells-small`: drawn cells of many looks.

Command:  fsis data synthetic --images-per-category 80 --two-category-images 300 --output data/drawn
          python scripts/train.py --config configs/cells_pretraining.py --workdir runs/models/pretraining
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_config


def get_config() -> ConfigDict:
    """The recipe of `cells-small` on synthetic cells."""
    config = cells_config()
    config.data.root = "data/drawn"
    config.data.fold = 0
    config.training.steps = 1800
    config.training.checkpoint_every = 600
    return config
