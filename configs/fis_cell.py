"""R50-FPN on FIS-Cell (14 categories, fold 1 held out): the PyTorch project's recipe, with its mask loss.

Command:  python scripts/train.py --config configs/fis_cell.py --workdir runs/fis_cell
Needs:    the data set under data/fis_cell (`--config.data.root=...` for another folder), and pretrained weights
          (`--config.init_from=...`) or, to train from scratch, `--config.model.backbone.norm=group` and
          `--config.model.backbone.freeze_at=0`.
Length:   10000 steps of 16 images; with another batch size rate and length are rescaled.
"""

from ml_collections import ConfigDict

from fsis_jax.config import base_config


def get_config() -> ConfigDict:
    """The defaults of fsis_jax/config.py are this recipe."""
    config = base_config()
    config.data.root = "data/fis_cell"
    config.training.batch_size = 1
    return config
