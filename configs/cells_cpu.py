"""A compact detector trained from scratch on two CPU cores.

Command:  python scripts/train.py --config configs/cells_cpu.py --config.data.root=DIR --workdir runs/cells
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_config


def get_config() -> ConfigDict:
    """The recipe of `cells-small` on a folder of real images."""
    config = cells_config()
    config.data.root = "data/cells"
    config.training.steps = 2400
    config.training.checkpoint_every = 600
    return config
