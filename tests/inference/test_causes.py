"""What is said of references that show nothing, of odd sizes, and of images without a cell."""

import dataclasses
import re

import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference.causes import check_crop, no_cell_causes, size_warnings
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.inference.tiling import tiles
from fsis_jax.preprocess.transform_config import TransformConfig

STRETCHED = TransformConfig(
    scale="reference", reference_pixels=28, min_scale=0.125, max_scale=4, intensity="percentile"
)
AS_IT_IS = TransformConfig(scale="shortest_side", intensity="none")
FLAT = np.full((20, 30, 3), (200, 30, 90), np.uint8)


def _with(value, dtype=np.float32, fill=5):
    crop = np.full((20, 20), fill, dtype)
    crop[3, 4] = value
    return crop


@pytest.mark.parametrize("transform", [STRETCHED, AS_IT_IS], ids=["stretched", "as it is"])
@pytest.mark.parametrize(
    ("crop", "why"),
    [
        (np.zeros((20, 30), np.uint8), "all its pixels have one value"),
        (np.full((20, 30), 7000, np.uint16), "all its pixels have one value"),
        (FLAT, "all its pixels have one value"),
        (np.dstack([FLAT, np.arange(600).reshape(20, 30) % 256]).astype(np.uint8), "all its pixels have one value"),
        (_with(np.nan), "all its pixels have one value"),
        (_with(np.inf), "all its pixels have one value"),
        (np.full((20, 30), np.nan, np.float32), "none of its pixels has a value"),
        (np.full((20, 30), -np.inf), "none of its pixels has a value"),
    ],
    ids=["black", "16 bit", "colour", "alpha", "nan", "inf", "all nan", "all -inf"],
)
def test_a_crop_in_which_nothing_can_be_seen_is_refused(crop, why, transform):
    with pytest.raises(FsisError, match=rf"^cell 3: shows nothing, {why}: give a crop of a cell, from the channel"):
        check_crop(crop, transform, "cell 3")


@pytest.mark.parametrize(
    "crop",
    [_with(6, np.uint8), _with(5.0001), _with(5001, np.uint16, 5000), np.dstack([_with(200, np.uint8)] * 4)],
    ids=["8 bit", "float", "16 bit", "colour"],
)
def test_a_dim_cell_is_seen(crop):
    check_crop(crop, STRETCHED, "cell")


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([(28, 28)], []),
        ([(7, 7)], []),
        ([(224, 224)], []),
        (
            [(14, 3.4)],
            ["references of 6.9 pixels, and this model reads cells of 7 to 224: it will see them 27.6 pixels"],
        ),
        ([(500, 450)], ["references of 474 pixels, and .* see them 59.3 pixels large in place of 28, and miss cells"]),
        ([(20, 20), (49, 49)], []),
        ([(20, 20), (51, 51), (30, 30)], ["references of 20 to 51 pixels: images are read at two scales"]),
        (
            [(300, 300), (5, 5), (400, 400)],
            ["references of 5 pixels", "references of 350 pixels", "references of 5 to 400 pixels: images are read at"],
        ),
        ([], []),
    ],
)
def test_sizes_that_the_model_cannot_use_are_told(sides, expected):
    warnings = size_warnings(np.array(sides, float).reshape(-1, 2), STRETCHED)
    assert len(warnings) == len(expected)
    for warning, pattern in zip(warnings, expected, strict=True):
        assert re.search(pattern, warning)
    assert size_warnings(np.array(sides, float).reshape(-1, 2), AS_IT_IS) == []


def test_the_references_to_blame_are_named():
    names = ["a.png", "b.png", "c.png"]
    assert size_warnings(np.array([(300, 300), (310, 310), (290, 290)]), STRETCHED, names)[0].startswith("b.png: ")
    assert size_warnings(np.array([(5, 5), (6, 6), (4, 4)]), STRETCHED, names)[0].startswith("c.png: ")
    assert size_warnings(np.array([(20, 20), (8, 8), (30, 30)]), STRETCHED, names)[0].startswith("b.png, c.png: ")


def _reading(scale=1.0):
    return TilePlan(
        np.zeros((200, 260)), (200, 260), STRETCHED, scale, (224, 288), tiles((200, 260), (200, 260), 0), 0, 7, 8
    )


def _found(*scores):
    crops = tuple(CroppedMask(0, 20 * i, np.ones((9, 9), bool)) for i in range(len(scores)))
    boxes = np.array([(20 * i, 0, 20 * i + 9, 9) for i in range(len(scores))], np.float32).reshape(-1, 4)
    return Instances(boxes, np.array(scores, np.float32), crops, (200, 260))


def test_why_there_is_no_cell():
    sides = np.array([(28, 28)])
    scores, scale = no_cell_causes(_found(0.237, 0.21, 0.02), 0.26, _reading(), sides)
    assert scores == "scores: the best of 3 candidates has 0.24, and the threshold is 0.26: --min-score 0.23 shows 1"
    assert scale.startswith(
        "scale: the references are 28 pixels large, the image 260x200; the network saw cells of that"
    )
    assert "size 28 pixels large, best are 28." in scale
    assert no_cell_causes(_found(0.237), 0.26, _reading(0.125), sides)[0].startswith("scale: ")
    scale, scores = no_cell_causes(_found(), 0.26, _reading(), sides)
    assert scores == "scores: nothing has a score of 0.01 or more, and the threshold is 0.26"
    (choice,) = no_cell_causes(_found(0.9, 0.5, 0.02), 0.26, _reading(), sides)
    assert choice.startswith("choice: 2 cells have a score of 0.26 or more, but were left out by their area, for an ")
    named = dataclasses.replace(_found(), classes=np.zeros(0, np.int32), names=("rods", "discs"))
    assert (
        no_cell_causes(named, 0.5, _reading(), np.zeros((0, 2)))[1] == "categories: this model finds rods, discs alone"
    )
