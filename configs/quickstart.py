"""A few minutes on two CPU cores: makes synthetic cells, trains the compact detector on them.

Command:  python scripts/train.py --config configs/quickstart.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from configs import cells_cpu


def get_config() -> ConfigDict:
    """configs/cells_cpu.py on smaller images, fewer steps."""
    config = cells_cpu.get_config()
    config.data.root = "data/synthetic"
    config.data.synthetic = True
    config.data.fold = 1
    config.data.train_canvases = ((160, 160),)
    config.data.test_canvases = ((160, 160), (192, 192), (256, 256), (384, 384), (512, 512))
    config.data.transform.max_instances = 64
    config.data.transform.reference_size = 96
    config.training.batch_size = 8
    config.optimizer.reference_batch_size = 8
    config.training.steps = 600
    config.training.checkpoint_every = 300
    config.eval.split = "seen"
    return config
