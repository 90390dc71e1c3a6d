"""Every form of a COCO segmentation gives the mask that was meant, and damaged ones are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from fsis_jax.preprocess.segmentation import InvalidAnnotationError, compressed_counts, decode_counts, polygon_excess


def _decode(counts: bytes, height: int, width: int) -> np.ndarray:
    runs = decode_counts(counts)
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T


def test_square_polygon_by_hand() -> None:
    expected = np.zeros((5, 7), int)
    expected[1:3, 2:5] = 1
    counts = compressed_counts([[2, 1, 5, 1, 5, 3, 2, 3]], 5, 7)
    np.testing.assert_array_equal(_decode(counts, 5, 7), expected)
    # Columns first: 2 columns of 5 and one pixel, then three times 2 of the mask and 3 of the background.
    assert decode_counts(counts) == [11, 2, 3, 2, 3, 2, 12]


def test_several_polygons_are_one_mask() -> None:
    two = compressed_counts([[0, 0, 2, 0, 2, 2, 0, 2], [4, 4, 6, 4, 6, 6, 4, 6]], 8, 8)
    assert _decode(two, 8, 8).sum() == 8


def test_polygon_outside_is_cut_off() -> None:
    polygon = [[-3.0, 1, 2, 1, 2, 3, -3, 3]]
    assert _decode(compressed_counts(polygon, 6, 6), 6, 6).sum() == 4
    assert polygon_excess(polygon, 6, 6) == 3


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1)))
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    height, width = mask.shape
    rle = coco_mask.encode(np.asfortranarray(mask))
    runs = decode_counts(rle["counts"])
    assert sum(runs) == mask.size
    for counts in (rle["counts"].decode(), runs):
        found = compressed_counts({"size": [height, width], "counts": counts}, height, width)
        np.testing.assert_array_equal(_decode(found, height, width), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no segmentation"),
        ([], "no segmentation"),
        ([[1, 1, 2, 2]], "fewer than 3 points"),
        ([[1, 1, 2, 2, 3]], "not a list of x, y"),
        ([[1, 1, 2, 2, 3, float("nan")]], "not a list of x, y"),
        ([["1", 1, 2, 2, 3, 3]], "not a list of x, y"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "outside the image of 6x4"),
        ({"size": [6, 4], "counts": [24]}, r"size \[6, 4\] in an image of \[4, 6\]"),
        ({"size": [4, 6], "counts": [10, 15]}, "cover 25 of 24 pixels"),
        ({"size": [4, 6], "counts": [30, -6]}, "not whole numbers"),
        ({"size": [4, 6], "counts": "O"}, "negative run"),
        ({"size": [4, 6], "counts": "i"}, "cut-off"),
        ({"size": [4, 6], "counts": "h !"}, "character"),
        ({"size": [4, 6]}, "without counts"),
    ],
)
def test_damaged_segmentation(segmentation: object, message: str) -> None:
    with pytest.raises(InvalidAnnotationError, match=message) as caught:
        compressed_counts(segmentation, 4, 6)
    assert caught.value.remedy
