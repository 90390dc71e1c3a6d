"""Faster R-CNN R50-C4 on COCO (80 categories, no references): a closed-set detector of boxes, without a pyramid.

Command:  python scripts/train.py --config configs/faster_rcnn_r50_c4_coco.py --workdir runs/faster_rcnn
Needs:    COCO as it comes (train2017/, val2017/, annotations/) under data/coco (`--config.data.root=...` for another
          folder), and a ResNet-50 under runs/resnet50 (`fsis convert resnet50.pth --output runs/resnet50`, or
          `--config.init_from=...`).
Length:   90000 steps of 16 images; with another batch size rate and length are rescaled. Made for GPUs; on a CPU
          `--config.debug=true --config.training.batch_size=1` shows that it runs.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import coco_config


def get_config() -> ConfigDict:
    """The recipe of fsis_jax/recipes.py, with level 4 and res5 in the place of the pyramid and its heads."""
    config = coco_config()
    model = config.model
    model.architecture = "c4"
    model.rpn.train_pre_nms = 12000
    model.rpn.test_pre_nms = 6000
    model.box_head.kind = "res5"
    model.box_head.pooled = 14
    model.mask_head.kind = "none"
    return config
