"""Last stage of `cells-base`: real cells of all kinds, with some drawn ones, so that rods and clumps are not forgotten.

Command:  fsis data synthetic --images-per-category 6 --two-category-images 24 --random-categories 4 \\
              --crowded-categories 14 --flat-categories 6 --seed 7 --output data/drawn-last
          fsis data merge data/drawn-last DIR DIR2 --output data/all-last
          python scripts/train.py --config configs/cells_base_real.py --workdir runs/models/cells-base
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_base_config()
    config.seed = 1
    config.init_from = "runs/models/base-all"
    config.data.root = "data/all-last"
    config.data.fold = 0
    config.data.validation_fraction = 0.05
    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 50
    config.training.steps = 1500
    config.training.checkpoint_every = 500
    config.training.validate_every = 3
    return config
