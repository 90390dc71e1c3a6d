"""R50-C4 on FIS-Cell (14 categories, fold 1 held out): the PyTorch recipe without a pyramid, with a mask loss.

Command:  python scripts/train.py --config configs/fis_cell_c4.py --workdir runs/fis_cell_c4
Needs:    the data set under data/fis_cell (`--config.data.root=...` for another folder), and pretrained weights
          (`--config.init_from=...`), which also start res5 in the heads.
Length:   10000 steps of 8 images; with another batch size rate and length are rescaled.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import c4_config


def get_config() -> ConfigDict:
    """The recipe as fsis_jax/config.py has it."""
    config = c4_config()
    config.data.root = "data/fis_cell"
    config.training.batch_size = 1
    return config
