"""From a published file to cells: convert the golden weights of every variant, then segment the golden image.

All by the command line. In the config stored with the checkpoint sizes are reduced, so that it takes seconds, and the
original's behaviour is switched on: the golden detections must come out of the pixels and the crop. They cannot be
quite the same, since ours resizes 8-bit images, the original normalised ones.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from golden_files import VARIANTS, load
from ml_collections import ConfigDict
from network_model import load_rule, parity_config, shapes_of

from fsis_jax.checkpoints.soundness import write_sums
from fsis_jax.conversion.torch_writer import write_file

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", VARIANTS)
def test_convert_and_segment(
    golden: pathlib.Path, tmp_path: pathlib.Path, fsis: Callable[..., Any], variant: str
) -> None:
    expected, rule = load(golden, variant, "infer.npz"), load_rule(golden)
    tensors = {name: rule.make(name, shape) for name, shape in shapes_of(golden, variant).items()}
    write_file(tmp_path / "published.pth", {"step": 0, "model": tensors})
    converted = fsis("convert", tmp_path / "published.pth", "--output", tmp_path / "run")
    assert converted.status == 0, converted.stderr
    height, width = expected["im_u8"].shape[:2]
    shortest = round(min(height, width) * float(expected["im_scale"][0]))
    config = parity_config(golden, variant)
    config.model.rpn.test_post_nms = len(expected["k1_rois"])
    config.model.detections.max_instances = 40
    change_config(tmp_path / "run", config, shortest)

    image = expected["im_u8"]
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    cv2.imwrite(str(tmp_path / "crop.png"), expected["query_crop_u8_0"][..., ::-1])
    out = tmp_path / "out"
    outcome = fsis(
        *("segment", tmp_path / "image.png", "--references", tmp_path / "crop.png"),
        *("--checkpoint", tmp_path / "run", "--output", out, "--min-score", 0.05, "--save", "labels", "coco"),
    )
    assert outcome.status == 0, outcome.stderr
    labels = tifffile.imread(out / "image-labels.tif")
    assert labels.shape == (height, width)
    found = json.loads((out / "image-coco.json").read_text())["annotations"]
    assert 0 < labels.max() == len(found)
    if variant == "V3_fpn_l1":
        return  # whose golden heads read their maps wrongly; see `network_model.misread_maps`
    for instance in found:
        x, y, box_width, box_height = instance["bbox"]
        ours = np.array([x, y, x + box_width - 1, y + box_height - 1])
        distance = np.abs(expected["k1_dets"][:, :4] - ours).max(1)
        nearest = distance.argmin()
        assert distance[nearest] < 0.5
        assert abs(expected["k1_dets"][nearest, 4] - instance["score"]) < 0.02


def change_config(run: pathlib.Path, config: ConfigDict, shortest_side: int) -> None:
    """Store another `model` section and another size of images in the only checkpoint of a run."""
    path = run / "checkpoints" / "0" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["config"]["model"] = json.loads(config.to_json_best_effort())["model"]
    meta["config"]["data"]["transform"]["shortest_side"] = shortest_side
    path.write_text(json.dumps(meta))
    write_sums(path.parents[1])
