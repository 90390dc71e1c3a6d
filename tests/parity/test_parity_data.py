"""Folds, categories, images, boxes and reference candidates against the PyTorch project's, on its tiny data set."""

import pathlib
import re
from typing import Any

import numpy as np
import pytest
from differences import largest
from golden_files import load_json
from golden_fixture import open_fixture
from parity_table import Figures

from fsis_jax.data.coco import CocoSource
from fsis_jax.data.from_config import held_out
from fsis_jax.fis_cell import CATEGORIES
from fsis_jax.preprocess.transforms import Orientation

LEAST_AREA = 300
"""Of a reference in the original, pixels."""
AREA_ROUNDING = 0.1
"""By how much a polygon's area, which the original takes, and its number of pixels, which ours takes, may differ."""
END = np.array([0, 0, 1, 1], np.float32)
"""Ours end where their last pixel ends, the original's at that pixel."""


@pytest.fixture(scope="module")
def expected(golden: pathlib.Path) -> dict[str, Any]:
    return load_json(golden, "data.json")


@pytest.fixture(scope="module")
def source(golden: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> CocoSource:
    return open_fixture(golden, tmp_path_factory.mktemp("fixture"))


def fold_and_set(name: str) -> tuple[int, int]:
    """From a name such as "g1_seen2"."""
    fold, chosen = map(int, re.findall(r"\d+", name))
    return fold, chosen


def test_categories_of_folds(expected: dict[str, Any], source: CocoSource, figures: Figures) -> None:
    """`--seen 1` takes the categories that are learnt, 2 those held out. 3 is meant to take all of them, and takes
    the one whose id is the number of the fold (quirk Q5)."""
    wrong = 0
    for name, splits in expected["folds"].items():
        fold, chosen = fold_and_set(name)
        seen, unseen = held_out(source, fold)
        ours = {1: seen, 2: unseen, 3: (fold,)}[chosen]
        wrong += sum(set(split["list"]) != set(ours) for split in splits.values())
    assert held_out(source, 0)[0] == tuple(CATEGORIES)
    figures.check("categories of folds, wrong lists", "", wrong, 0)


def test_images_of_folds(expected: dict[str, Any], source: CocoSource, figures: Figures) -> None:
    """Which images show a category of the list, which one, and in what order of proportions they are trained on. Ours
    trains in any order: images of other proportions go to other canvases."""
    by_id = {record.image_id: record for record in source.annotations}
    wrong, ratios = 0, 0.0
    for splits in expected["folds"].values():
        for split in splits.values():
            shown = {
                record.image_id: set(record.classes[~record.crowd].tolist()) & set(split["list"])
                for record in source.annotations
            }
            wrong += [image for image, categories in shown.items() if categories] != split["image_index"]
            images = [by_id[image] for image in split["image_index"]]
            # In training a flipped copy of every image follows.
            assert split["n_roidb"] % len(images) == 0
            rows = [images[row % len(images)] for row in split["ratio_index"]]
            chosen = zip(split["cat_list"], rows, strict=True)
            wrong += not all(category in shown[record.image_id] for category, record in chosen)
            ratios = max(ratios, largest([record.width / record.height for record in rows], split["ratio_list"]))
    figures.check("images of folds, wrong lists", "", wrong, 0)
    figures.check("proportions of images", "", ratios, 1e-6)


def test_boxes(expected: dict[str, Any], source: CocoSource, figures: Figures) -> None:
    """Of every instance but the ignored one and the degenerate one, and of flipped images."""
    by_id = {record.image_id: record for record in source.annotations}
    for entries in expected["roidb"].values():
        for entry in entries:
            record = by_id[entry["id"]]
            size = (record.height, record.width)
            ours = Orientation(flip=entry["flipped"]).boxes(record.boxes[~record.crowd], size) - END
            figures.check("boxes of instances, px", "", largest(ours, entry["boxes"]), 1e-3)
            areas = record.areas[~record.crowd]
            error = np.abs(areas / np.array(entry["seg_areas"]) - 1).max()
            figures.check("areas of instances, relative", "", error, AREA_ROUNDING)
            classes = record.classes[~record.crowd].tolist()
            figures.check("categories of instances, wrong ones", "", int(classes != entry["gt_cats"]), 0)


def test_ignored_and_degenerate_instances(golden: pathlib.Path, source: CocoSource, figures: Figures) -> None:
    """The original drops both. In ours an ignored one is a crowd, neither right nor wrong; the other is reported."""
    rows = load_json(golden, "data_fixture", "ann.json")["annotations"]
    ignored = {row["id"] for row in rows if row.get("ignore") or row.get("iscrowd")}
    crowds = {identity for record in source.annotations for identity in record.annotation_ids[record.crowd].tolist()}
    degenerate = {row["id"] for row in rows if min(row["bbox"][2:]) < 1}
    reported = {problem.annotation_id for problem in source.problems if problem.skipped}
    wrong = len(ignored - degenerate ^ crowds) + len(degenerate ^ reported)
    figures.check("ignored and degenerate instances, wrong ones", "", wrong, 0)


def test_reference_candidates(expected: dict[str, Any], source: CocoSource, figures: Figures) -> None:
    """Instances of each category that are large enough to be references."""
    classes = np.concatenate([record.classes[~record.crowd] for record in source.annotations])
    areas = np.concatenate([record.areas[~record.crowd] for record in source.annotations])

    def count(category: int, least: float) -> int:
        return int(np.count_nonzero((classes == category) & (areas > least)))

    wrong = 0
    for splits in expected["folds"].values():
        for split in splits.values():
            for category, theirs in enumerate(map(int, split["n_query"].values())):
                few = count(category, LEAST_AREA * (1 + AREA_ROUNDING))
                many = count(category, LEAST_AREA * (1 - AREA_ROUNDING))
                wrong += not few <= theirs <= many
    figures.check("reference candidates, wrong counts", "", wrong, 0)
