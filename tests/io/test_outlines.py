"""Outlines are the sides of the pixels: exact, simple, the right way round."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from fsis_jax.errors import FsisError
from fsis_jax.io.outlines import Polygon, box_around, fill, outlines


def _mask(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def _shapes(polygons: list[Polygon]) -> list[shapely.Polygon]:
    return [shapely.Polygon(polygon.shell, polygon.holes) for polygon in polygons]


def _turn(ring: np.ndarray) -> float:
    """Twice the signed area."""
    following = np.roll(ring, -1, axis=0)
    return float(np.sum(ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]))


def _check(mask: np.ndarray, y: int, x: int) -> None:
    polygons = outlines(mask, y, x)
    assert len(polygons) == ndimage.label(mask)[1]
    for polygon, shape in zip(polygons, _shapes(polygons), strict=True):
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert _turn(polygon.shell) > 0
        shell = shapely.Polygon(polygon.shell)
        for hole in polygon.holes:
            assert _turn(hole) < 0
            assert shell.covers(shapely.Polygon(hole))
        for ring in (polygon.shell, *polygon.holes):
            assert ring.dtype == np.int64
            assert len(np.unique(ring, axis=0)) == len(ring)
            along = np.roll(ring, -1, axis=0) != ring
            assert np.all(along.sum(axis=1) == 1)
            assert np.all(along[:, 0] != np.roll(along[:, 0], -1))  # in turn along x and along y: no points in line
    whole = shapely.MultiPolygon(_shapes(polygons))
    assert whole.is_valid
    assert whole.area == np.count_nonzero(mask)
    rows, columns = np.mgrid[y - 1 : y + mask.shape[0] + 1, x - 1 : x + mask.shape[1] + 1]
    np.testing.assert_array_equal(shapely.contains_xy(whole, columns + 0.5, rows + 0.5), np.pad(mask, 1))
    if mask.any():
        filled, top, left = fill([(p.shell, *p.holes) for p in polygons], (50_000, 50_000))
        ys, xs = np.nonzero(mask)
        inside = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert (top, left) == (y + ys.min(), x + xs.min())
        np.testing.assert_array_equal(filled, inside)


def test_a_pixel_and_a_step() -> None:
    (pixel,) = outlines(_mask("#"), 7, 5)
    assert pixel.shell.tolist() == [[5, 7], [6, 7], [6, 8], [5, 8]]
    assert pixel.holes == []
    (step,) = outlines(_mask("##.", "###"))
    assert step.shell.tolist() == [[0, 0], [2, 0], [2, 1], [3, 1], [3, 2], [0, 2]]


def test_parts_that_meet_in_a_corner_are_two_polygons() -> None:
    for mask in (_mask("#.", ".#"), _mask(".#", "#.")):
        assert [len(polygon.shell) for polygon in outlines(mask)] == [4, 4]
        _check(mask, 0, 0)


def test_holes_that_touch_are_two_rings() -> None:
    mask = _mask("####", "#.##", "##.#", "####")
    (polygon,) = outlines(mask)
    assert [len(hole) for hole in polygon.holes] == [4, 4]
    _check(mask, 0, 0)


def test_a_ring_that_closes_in_a_corner_has_a_hole_that_touches_its_shell() -> None:
    mask = _mask("##.", "#.#", "###")
    (polygon,) = outlines(mask)
    assert [len(hole) for hole in polygon.holes] == [4]
    _check(mask, 0, 0)


def test_islands_in_holes() -> None:
    mask = _mask("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######")
    assert [len(polygon.holes) for polygon in outlines(mask)] == [1, 1]
    _check(mask, 3, 4)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 4)])
def test_nothing(shape: tuple[int, int]) -> None:
    assert outlines(np.zeros(shape, bool), 3, 4) == []


def test_a_chessboard() -> None:
    _check(np.indices((9, 8)).sum(axis=0) % 2 == 0, 0, 0)


@settings(max_examples=300, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)), st.integers(0, 40_000), st.integers(0, 40_000))
def test_any_mask(mask: np.ndarray, y: int, x: int) -> None:
    _check(mask, y, x)


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7, 0.9])
def test_noise(density: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        _check(rng.random((30, 25)) < density, 100, 200)


def test_filling_is_by_centres_of_pixels_and_ends_at_the_border() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radii = rng.uniform(3, 14, 12)
        ring = np.stack([radii * np.cos(angles) + 8.3, radii * np.sin(angles) + 5.7], axis=1)
        hole = (ring - ring.mean(axis=0)) / 3 + ring.mean(axis=0)
        filled, top, left = fill([[ring, hole]], (12, 16))
        rows, columns = np.mgrid[:12, :16] + 0.5
        expected = shapely.contains_xy(shapely.Polygon(ring), columns, rows)
        expected ^= shapely.contains_xy(shapely.Polygon(hole), columns, rows)
        image = np.zeros((12, 16), bool)
        image[top : top + filled.shape[0], left : left + filled.shape[1]] = filled
        np.testing.assert_array_equal(image, expected)


def test_figures_are_joined_and_what_lies_outside_is_empty() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    mask, y, x = fill([[square], [square + 2]], (10, 10))
    assert (y, x, mask.sum()) == (0, 0, 28)
    assert not fill([[square + 100]], (10, 10))[0].size
    assert not fill([[square - 100]], (10, 10))[0].size
    assert not fill([[square * 0.1]], (10, 10))[0].any()


def test_box_around() -> None:
    assert box_around(np.array([[3, 4], [5, 4.5], [4, 8]]), "a") == (3.0, 4.0, 5.0, 8.0)
    with pytest.raises(FsisError, match=r"^a: a coordinate is not finite: "):
        box_around(np.array([[3, 4], [np.nan, 4]]), "a")
    with pytest.raises(FsisError, match=r"^a: an empty shape: "):
        box_around(np.zeros((0, 2)), "a")
    with pytest.raises(FsisError, match=r"^a: no extent in x or in y \(3, 4 to 3, 5\): "):
        box_around(np.array([[3, 4], [3, 5]]), "a")
