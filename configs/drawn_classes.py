"""A Mask R-CNN of three categories, trained on drawn cells from scratch and tested on others, on two CPU cores.

Command:  fsis data synthetic --output data/drawn --images-per-category 40 --two-category-images 60
          python scripts/train.py --config configs/drawn_classes.py --workdir runs/drawn_classes
          fsis evaluate --config configs/drawn_classes.py --workdir runs/drawn_classes
Expects:  mask AP50 of 0.95 and more on the test images, after half an hour (docs/benchmark.md).
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import compact_config


def get_config() -> ConfigDict:
    """The compact recipe without references, at the images' own scale."""
    config = compact_config()
    model = config.model
    model.classes = ("fluo_discs", "fluo_textured", "fluo_membranes")
    model.matching.kind = "none"
    model.relation = "none"
    model.detections.max_instances = 100
    config.data.root = "data/drawn"
    config.data.fold = 0
    config.data.train_canvases = ((192, 192),)
    config.data.test_canvases = ((192, 192),)
    transform = config.data.transform
    transform.scale = "shortest_side"
    transform.shortest_side = 192
    transform.longest_side = 192
    transform.scale_jitter = 1.15
    transform.max_instances = 64
    config.training.steps = 1200
    config.training.checkpoint_every = 300
    config.eval.split = "seen"
    config.eval.repeats = 1
    return config
