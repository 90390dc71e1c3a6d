"""The control of the protocol: the network of `cells-small` with matching switched off, a class-agnostic Mask R-CNN.

It learns to find every cell, and is told nothing by the references but the scale. Two stages, as cells-small:

python scripts/train.py --config configs/cells_no_matching.py --config.data.root=data/drawn \\
    --workdir runs/models/pretraining-no-matching
python scripts/train.py --config configs/cells_no_matching.py --config.data.root=DIR --config.data.fold=1 \\
    --config.init_from=runs/models/pretraining-no-matching --workdir runs/models/fold-1-no-matching
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_config


def get_config() -> ConfigDict:
    """All categories; --config.data.fold=N holds those of a fold out."""
    config = cells_config()
    config.model.matching.kind = "none"
    config.model.relation = "none"
    config.model.all_gt_positive = True
    config.data.present = 1.0
    config.data.background = 0.0
    config.data.contrast = False
    config.data.root = "data/cells"
    config.data.fold = 0
    config.training.steps = 1000
    config.training.checkpoint_every = 500
    return config
