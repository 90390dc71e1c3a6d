"""Second stage of `cells-base`: drawn and real cells together, from the network of the first (cells_base_drawn.py).

Command:  fsis data synthetic --images-per-category 7 --two-category-images 120 --random-categories 25 \\
              --crowded-categories 40 --flat-categories 20 --output data/drawn-few
          fsis data merge data/drawn-few DIR DIR2 --output data/all
          python scripts/train.py --config configs/cells_base.py --workdir runs/models/base-all
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_base_config()
    config.init_from = "cells-drawn"
    config.data.root = "data/all"
    config.data.fold = 0
    config.data.repeat_rare = 0.25
    config.data.validation_fraction = 0.03
    config.training.steps = 5000
    config.training.checkpoint_every = 500
    config.training.validate_every = 5
    return config
