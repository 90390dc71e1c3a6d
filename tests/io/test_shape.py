"""Shapes of masks: numbers that can be checked by hand, and those of scikit-image."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import ellipe
from skimage.measure import label, perimeter_crofton, regionprops

from fsis_jax.io.shape import circularity, convex_area, ellipse, perimeter


def _ellipse(a: float, b: float, turn: float, y: float, x: float) -> np.ndarray:
    ys, xs = np.mgrid[-60:61, -60:61]
    u, v = (ys - y) * np.cos(turn) + (xs - x) * np.sin(turn), (xs - x) * np.cos(turn) - (ys - y) * np.sin(turn)
    return np.asarray((u / a) ** 2 + (v / b) ** 2 <= 1)


def test_shapes_of_any_kind_are_as_in_scikit_image() -> None:
    """Blobs with bays and holes, specks, and several parts at once."""
    rng = np.random.default_rng(0)
    masks = [rng.random((20, 30)) < share for share in (0.01, 0.1, 0.5, 0.9)]
    for smooth in (0.6, 1, 2, 4):
        blobs = label(gaussian_filter(rng.standard_normal((120, 120)), smooth) > 0)
        masks += [region.image for region in regionprops(blobs)]
    assert len(masks) > 200
    for mask in masks:
        (region,) = regionprops(mask.astype(np.uint8))
        ys, xs = np.nonzero(region.image)
        assert convex_area(region.image) == region.area_convex
        assert perimeter(region.image) == pytest.approx(perimeter_crofton(region.image))
        axes = ellipse(xs, ys)
        assert axes.major == pytest.approx(region.axis_major_length)
        assert axes.minor == pytest.approx(region.axis_minor_length, abs=1e-6)
        assert axes.eccentricity == pytest.approx(region.eccentricity, abs=1e-6)


def test_a_margin_of_the_mask_changes_nothing() -> None:
    mask = _ellipse(9, 4, 0.3, 0, 0)
    (region,) = regionprops(mask.astype(np.uint8))
    assert convex_area(mask) == convex_area(region.image)
    assert perimeter(mask) == perimeter(region.image)


def test_a_pixel_a_line_and_a_square() -> None:
    pixel, line, square = np.ones((1, 1), bool), np.ones((1, 9), bool), np.ones((4, 4), bool)
    assert [convex_area(mask) for mask in (pixel, line, square)] == [1, 9, 16]
    assert perimeter(pixel) == pytest.approx(math.pi / 4 * (2 + math.sqrt(2)))
    assert ellipse(*np.zeros((2, 1), int)) == (0, 0)
    assert ellipse(*np.zeros((2, 1), int)).eccentricity == 0
    assert ellipse(np.arange(9), np.zeros(9, int)) == pytest.approx((4 * math.sqrt(60 / 9), 0))
    assert ellipse(np.arange(9), np.zeros(9, int)).eccentricity == 1
    assert circularity(1, perimeter(pixel)) == 1


@pytest.mark.parametrize(("a", "b"), [(5, 5), (15, 15), (30, 30), (10, 5), (30, 15)])
def test_the_perimeter_is_that_of_the_shape_which_the_pixels_sample(a: float, b: float) -> None:
    true = 4 * a * ellipe(1 - (b / a) ** 2)
    rng = np.random.default_rng(0)
    masks = [_ellipse(a, b, rng.uniform(0, np.pi), *rng.uniform(-0.5, 0.5, 2)) for _ in range(50)]
    assert np.mean([perimeter(mask) for mask in masks]) == pytest.approx(true, rel=0.01)
    round_ = [circularity(np.count_nonzero(mask), perimeter(mask)) for mask in masks]
    assert np.mean(round_) == pytest.approx(4 * math.pi**2 * a * b / true**2, rel=0.02)


def test_holes_count_to_the_perimeter_and_against_solidity() -> None:
    ring = _ellipse(20, 20, 0, 0, 0) & ~_ellipse(10, 10, 0, 0, 0)
    assert perimeter(ring) == pytest.approx(2 * math.pi * 30, rel=0.03)
    assert np.count_nonzero(ring) / convex_area(ring) == pytest.approx(0.75, abs=0.04)
