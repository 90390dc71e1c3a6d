"""Second stage of `cells-base`: real cells, from the network that the first stage (cells_base_drawn.py) made.

Command:  python scripts/train.py --config configs/cells_base.py --config.data.root=DIR --workdir runs/models/cells-base
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_base_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_base_config()
    config.init_from = "runs/models/base-drawn"
    config.data.root = "data/cells"
    config.data.fold = 0
    config.training.steps = 2000
    config.training.checkpoint_every = 1000
    return config
