"""A few minutes on two CPU cores: makes synthetic cells, trains the compact detector on them.

Command:  python scripts/train.py --config configs/quickstart.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import compact_config


def get_config() -> ConfigDict:
    """The compact recipe on small images, with fewer steps."""
    config = compact_config()
    config.data.root = "data/synthetic"
    config.data.synthetic = True
    config.data.fold = 0
    config.data.contrast = True
    config.data.train_canvases = ((160, 160),)
    config.data.test_canvases = ((160, 160), (192, 192), (256, 256), (384, 384), (512, 512))
    config.data.transform.max_instances = 64
    config.optimizer.reference_batch_size = 8
    config.training.batch_size = 8
    config.training.steps = 450
    config.training.checkpoint_every = 225
    config.eval.split = "all"
    return config
