"""A compact detector trained from scratch on two CPU cores.

Command:  python scripts/train.py --config configs/cells_cpu.py --config.data.root=DIR --workdir runs/cells
Images are stretched to their own percentiles and brought to the scale at which the references measure 32 pixels;
training crops are 256x256.
"""

from ml_collections import ConfigDict

from fsis_jax.config import base_config, use_compact_model


def get_config() -> ConfigDict:
    """Everything that differs from the R50-FPN recipe."""
    config = base_config()
    use_compact_model(config)

    data = config.data
    data.root = "data/cells"
    data.train_canvases = ((256, 256),)
    data.test_canvases = ((256, 256), (384, 384), (512, 512), (544, 736), (736, 544), (768, 768), (1024, 1024))
    data.workers = 1

    transform = data.transform
    transform.scale = "reference"
    transform.reference_pixels = 28.0
    transform.intensity = "percentile"
    transform.mask_size = 28
    transform.max_instances = 160
    transform.scale_jitter = 1.35
    transform.rot90 = True
    transform.gamma = 1.4
    transform.contrast = 0.2
    transform.brightness = 0.1
    transform.colour = 0.15
    transform.noise = 0.03

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.reference_batch_size = 4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 200
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_value = 1.0

    config.training.batch_size = 4
    config.training.steps = 5000
    config.training.checkpoint_every = 500
    return config
