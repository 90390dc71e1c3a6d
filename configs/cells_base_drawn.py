"""First stage of `cells-base`: drawn cells of many looks, many of them in clumps, long, or flat.

Command:  fsis data synthetic --images-per-category 14 --two-category-images 400 --random-categories 45 \\
              --crowded-categories 60 --flat-categories 30 --output data/drawn
          python scripts/train.py --config configs/cells_base_drawn.py --workdir runs/models/base-drawn
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """The recipe of `cells-base` on synthetic cells."""
    config = cells_base_config()
    config.data.root = "data/drawn"
    config.data.fold = 0
    config.data.validation_fraction = 0.02
    config.data.transform.reference_pixels = 32.0
    config.training.steps = 1500
    config.training.checkpoint_every = 500
    return config
