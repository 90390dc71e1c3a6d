"""The 14 statistics of the PyTorch project's evaluator on given detections of its tiny data set.

Its "segm" numbers are not those of masks: a flag that is never set makes it compare the tight boxes of the masks
(quirk Q4). Ours compares masks, and gives the original's number under the name "mask_bbox".
"""

import pathlib
from typing import Any

import numpy as np
import pytest
from golden_files import load_json
from golden_fixture import open_fixture
from parity_table import Figures

from fsis_jax.evaluation.coco_ap import coco_evaluate

NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
NAMES += [f"AR@{count}" for count in (1, 10, 100, 200, 500)] + ["AR_small", "AR_medium", "AR_large"]


def found(expected: dict[str, Any]) -> list[dict[str, Any]]:
    """The detections."""
    return [
        {
            "image_id": group["image_id"],
            "category_id": group["category_id"],
            "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
            "score": score,
            "segmentation": rle,
        }
        for group in expected["detections"]
        for (x1, y1, x2, y2, score), rle in zip(group["boxes"], group["rles"], strict=True)
    ]


@pytest.mark.parametrize(
    ("stage", "iou_type", "stored"),
    [
        ("box AP and AR", "bbox", "ref_box_stats14"),
        ("box AP and AR", "bbox", "correct_iou_box_stats14"),
        ("mask AP and AR, true IoU", "segm", "correct_iou_mask_stats14"),
        ("mask AP and AR, IoU of boxes as in Q4", "mask_bbox", "ref_mask_stats14"),
    ],
)
def test_statistics(
    golden: pathlib.Path, tmp_path: pathlib.Path, figures: Figures, stage: str, iou_type: str, stored: str
) -> None:
    expected = load_json(golden, "eval.json")
    source = open_fixture(golden, tmp_path)
    result = coco_evaluate(source.annotations, found(expected), iou_type=iou_type, categories=expected["class_list"])
    assert len(expected[stored]) == len(NAMES)
    for name, value in zip(NAMES, expected[stored], strict=True):
        if value < 0:  # there is no such instance
            assert np.isnan(result[name])
        else:
            figures.check(stage, "", abs(result[name] - value), 1e-6)
