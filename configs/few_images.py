"""A few images of one's own, such as ten that were corrected: `cells-base` goes on learning from them.

Command:  fsis corrections OUT -o data/corrected
          python scripts/train.py --config configs/few_images.py --config.data.root=data/corrected \\
              --config.training.steps=300 --workdir runs/corrected
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """The recipe of `cells-base` with small steps: thirty for each image do, as `fsis corrections` counts them."""
    config = cells_base_config()
    config.init_from = "cells-base"
    config.data.root = "data/corrected"
    config.data.fold = 0
    config.data.workers = 0
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 20
    config.training.steps = 300
    config.training.checkpoint_every = 100
    config.eval.split = "all"
    config.eval.repeats = 1
    return config
