"""The compact detector trained for longer, on a GPU: batches of 16, drawn cells of 109 looks, bags compared.

Command:  fsis data synthetic --random-categories 100 --images-per-category 16 --two-category-images 700 \\
              --output data/drawn
          python scripts/train.py --config configs/cells_gpu.py --config.data.root=data/drawn --workdir runs/gpu/drawn
          python scripts/train.py --config configs/cells_gpu.py --config.data.root=DIR --config.data.fold=1 \\
              --config.init_from=runs/gpu/drawn --workdir runs/gpu/fold-1
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import cells_config


def get_config() -> ConfigDict:
    """Of both stages; docs/model_card.md has what it reaches."""
    config = cells_config()
    config.model.relation = "compare_bags"
    config.data.root = "data/cells"
    config.data.fold = 0
    config.data.mosaic = 0.5
    config.data.workers = 4
    config.optimizer.learning_rate = 2e-3
    config.optimizer.reference_batch_size = 16
    config.training.batch_size = 16
    config.training.steps = 1200
    config.training.checkpoint_every = 600
    return config
