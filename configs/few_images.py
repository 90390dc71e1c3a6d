"""A few images of one's own, such as ten that were corrected: `cells-base` goes on learning from them.

Command:  fsis corrections OUT -o data/corrected
          python scripts/train.py --config configs/few_images.py --config.data.root=data/corrected \\
              --config.training.steps=300 --workdir runs/corrected
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config, few_images_config


def get_config() -> ConfigDict:
    """The recipe of `cells-base` with small steps: thirty for each image do, as `fsis corrections` counts them."""
    return few_images_config(cells_base_config(), "cells-base")
