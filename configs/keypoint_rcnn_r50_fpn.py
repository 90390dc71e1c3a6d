"""Keypoint R-CNN R50-FPN on COCO (persons and their 17 keypoints, no references): a closed-set detector.

Command:  python scripts/train.py --config configs/keypoint_rcnn_r50_fpn.py --workdir runs/keypoint_rcnn
Needs:    COCO as it comes (train2017/, val2017/, annotations/) under data/coco (`--config.data.root=...` for another
          folder), and a ResNet-50 under runs/resnet50 (`fsis convert resnet50.pth --output runs/resnet50`, or
          `--config.init_from=...`).
Length:   90000 steps of 16 images; with another batch size rate and length are rescaled. Made for GPUs; on a CPU
          `--config.debug=true --config.training.batch_size=1` shows that it runs.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import coco_config


def get_config() -> ConfigDict:
    """The recipe of fsis_jax/recipes.py for one class, with heat maps of keypoints in the place of masks."""
    config = coco_config()
    model = config.model
    model.classes = ("person",)
    model.mask_head.kind = "none"
    model.keypoint_head.kind = "convs"
    model.keypoint_head.keypoints = 17
    # No head reads the masks.
    config.data.transform.mask_size = 2
    return config
