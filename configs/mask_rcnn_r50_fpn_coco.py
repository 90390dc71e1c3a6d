"""Mask R-CNN R50-FPN on COCO (80 categories, no references): a closed-set detector.

Command:  python scripts/train.py --config configs/mask_rcnn_r50_fpn_coco.py --workdir runs/mask_rcnn
Needs:    COCO as it comes (train2017/, val2017/, annotations/) under data/coco (`--config.data.root=...` for another
          folder), and a ResNet-50 under runs/resnet50 (`fsis convert resnet50.pth --output runs/resnet50`, or
          `--config.init_from=...`).
Length:   90000 steps of 16 images; with another batch size rate and length are rescaled. Made for GPUs; on a CPU
          `--config.debug=true --config.training.batch_size=1` shows that it runs.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import coco_config


def get_config() -> ConfigDict:
    """The recipe as fsis_jax/recipes.py has it."""
    return coco_config()
