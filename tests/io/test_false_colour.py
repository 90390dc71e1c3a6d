"""One stain in false colour is told from true colours and from grey."""

import numpy as np
import pytest

from fsis_jax.io.false_colour import only_stain

STAIN = np.random.default_rng(0).integers(0, 255, (150, 210)).astype(np.float64)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0, 1, 0), "green"),
        ((0, 0, 1), "blue"),
        ((1, 0, 1), "red"),  # magenta
        ((0, 0.5, 1), "blue"),
        ((0.1, 0.6, 1), "blue"),
        ((1, 1, 1), None),
        ((0, 0, 0), None),
    ],
)
def test_one_stain(dtype, weights, expected):
    image = np.stack([STAIN * weight for weight in weights], axis=2).astype(dtype)
    assert only_stain(image) == expected
    assert only_stain(np.dstack([image, np.full(STAIN.shape, 255)]).astype(dtype)) == expected


def test_a_constant_background_does_not_matter():
    image = np.full((90, 90, 3), 40, np.uint8)
    image[..., 1] += np.random.default_rng(0).integers(0, 200, (90, 90)).astype(np.uint8)
    assert only_stain(image) == "green"


def test_true_colours_and_grey():
    rng = np.random.default_rng(0)
    two = np.zeros((150, 210, 3), np.uint8)
    two[..., 0], two[40:60, 40:60, 2] = STAIN, 200
    tissue = 255 - np.outer(STAIN.ravel(), (0.6, 0.9, 0.4)).reshape(150, 210, 3) * rng.uniform(0.9, 1.1, (150, 210, 3))
    for image in two, np.clip(tissue, 0, 255).astype(np.uint8), STAIN.astype(np.uint8), np.full((9, 9, 3), np.nan):
        assert only_stain(image) is None
