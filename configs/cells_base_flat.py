"""A sixth stage of `cells-base`, from the network of the fifth: backgrounds without any noise, at black or at white.

The data are those of cells_base_weak.py.

Command:  python scripts/train.py --config configs/cells_base_flat.py --workdir runs/models/cells-base-flat
          fsis export runs/models/cells-base-flat --output flat.npz
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_base_config()
    config.seed = 4
    config.init_from = "cells-base.npz"
    config.data.root = "data/all-weak"
    config.data.fold = 0
    config.data.repeat_rare = 0.25
    config.data.validation_fraction = 0.05
    config.data.transform.copies = 8
    config.data.transform.anywhere = 0.2
    config.data.transform.clip = 0.3
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 100
    config.training.steps = 2600
    config.training.checkpoint_every = 400
    config.training.validate_every = 10
    return config
