"""A compact detector trained from scratch on two CPU cores.

Command:  python scripts/train.py --config configs/cells_cpu.py --config.data.root=DIR --workdir runs/cells
"""

from ml_collections import ConfigDict

from fsis_jax.config import compact_config


def get_config() -> ConfigDict:
    """The compact recipe on a folder of real images."""
    config = compact_config()
    config.data.root = "data/cells"
    config.training.steps = 3500
    config.training.checkpoint_every = 500
    return config
