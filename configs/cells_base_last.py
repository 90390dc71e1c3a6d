"""A fourth stage of `cells-base`, from the network of the third: copies of cells that touch others, and empty crops.

Command:  python scripts/train.py --config configs/cells_base_last.py --workdir runs/models/cells-base-last
          fsis export runs/models/cells-base --output third.npz
          fsis export runs/models/cells-base-last --output last.npz
          python scripts/average_weights.py third.npz last.npz --config configs/cells_base_last.py --min-score 0.24 \\
              --output mean.npz
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """All categories, on the images of cells_base_real.py; --config.data.fold=N holds those of a fold out."""
    config = cells_base_config()
    config.seed = 2
    config.init_from = "runs/models/cells-base"
    config.data.root = "data/all-last"
    config.data.fold = 0
    config.data.validation_fraction = 0.05
    config.data.transform.copies = 8
    config.data.transform.anywhere = 0.2
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 100
    config.training.steps = 2400
    config.training.checkpoint_every = 300
    config.training.validate_every = 8
    return config
