"""A check that keypoints are learnt: memorises a few stick figures, on two CPU cores.

Command:  python scripts/train.py --config configs/overfit_keypoints.py --config.data.root=DIR --workdir runs/overfit
Needs:    persons with six keypoints, as `generate_figures` of fsis_jax/data/figures.py makes them.
Expects:  validation keypoint AP (on the training images) of 0.8 and more with four images, after two minutes.
"""

from ml_collections import ConfigDict

from fsis_jax.recipes import overfit_config


def get_config() -> ConfigDict:
    """The compact recipe without references and with nothing random: a keypoint R-CNN without masks."""
    config = overfit_config(128, classes=("person",))
    model = config.model
    # Figures of about 60 to 90 pixels.
    model.rpn.anchor_sizes = (32, 64, 96, 144)
    model.mask_head.kind = "none"
    model.keypoint_head.kind = "convs"
    model.keypoint_head.keypoints = 6
    model.keypoint_head.channels = 64
    model.keypoint_head.convs = 3
    model.detections.max_instances = 20

    config.data.root = "data/figures"
    config.data.transform.mask_size = 2  # no head reads the masks
    config.data.transform.max_instances = 8
    return config
