"""A fifth stage of `cells-base`, from the mean of the third and the fourth: more of the kinds that it knows worst.

PHASE, PHASE2 and PHASE3 are copies of a folder with the training images of spread cells in phase contrast alone, TISSUE
and YELLOW are such folders of purple and of yellow tissue, so that an epoch shows these twice to four times as often.

Command:  fsis data merge data/drawn-last DIR DIR2 PHASE PHASE2 PHASE3 TISSUE YELLOW --output data/all-weak
          python scripts/train.py --config configs/cells_base_weak.py --workdir runs/models/cells-base-weak
          fsis export runs/models/cells-base-weak --output weak.npz
          python scripts/average_weights.py mean.npz weak.npz weak.npz --config configs/cells_base_weak.py \\
              --min-score 0.24 --output cells-base.npz
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_base_config()
    config.seed = 3
    config.init_from = "mean.npz"
    config.data.root = "data/all-weak"
    config.data.fold = 0
    config.data.repeat_rare = 0.25
    config.data.validation_fraction = 0.05
    config.data.transform.copies = 8
    config.data.transform.anywhere = 0.2
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 100
    config.training.steps = 1600
    config.training.checkpoint_every = 400
    config.training.validate_every = 4
    return config
