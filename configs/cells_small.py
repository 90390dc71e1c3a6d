"""Second stage of `cells-small`: real cells, from the network that the first stage (cells_pretraining.py) made.

Command:  python scripts/train.py --config configs/cells_small.py --config.data.root=DIR \\
              --workdir runs/models/cells-small
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_config()
    config.init_from = "runs/models/pretraining"
    config.data.root = "data/cells"
    config.data.fold = 0
    config.training.steps = 2000
    config.training.checkpoint_every = 1000
    return config
