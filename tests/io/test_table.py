"""The table of instances agrees with scikit-image."""

import csv
import pathlib
from typing import Any

import numpy as np
import pytest
from skimage.measure import perimeter_crofton, regionprops

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io.table import write_table

SIZE = (700, 300)


def _instances() -> tuple[Instances, np.ndarray]:
    """About sixty blobs, all kinds of shapes, in order of their ids; and their label image."""
    rng = np.random.default_rng(0)
    labels = np.zeros(SIZE, np.int32)
    ys, xs = np.indices(SIZE)
    for number in range(1, 60):
        y, x = rng.uniform((0, 0), SIZE)
        a, b = rng.uniform(1, 15, 2)
        turn = rng.uniform(0, np.pi)
        u, v = (ys - y) * np.cos(turn) + (xs - x) * np.sin(turn), (xs - x) * np.cos(turn) - (ys - y) * np.sin(turn)
        labels[(u / a) ** 2 + (v / b) ** 2 < 1] = number
    labels[50, 40], labels[60:70, 5], labels[80, 5:15] = 60, 61, 62  # a pixel, and lines
    labels = np.unique(labels, return_inverse=True)[1].reshape(SIZE).astype(np.int32)
    count = int(labels.max())
    return Instances.from_labels(labels, scores=np.linspace(0.95, 0.123, count).astype(np.float32)), labels


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    assert path.read_bytes().endswith(b"\n")
    assert b"\r" not in path.read_bytes()
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _numbers(rows: list[dict[str, str]], *names: str) -> np.ndarray:
    return np.array([[float(row[name]) for name in names] for row in rows])


def test_it_agrees_with_regionprops(tmp_path: pathlib.Path) -> None:
    found, labels = _instances()
    image = np.random.default_rng(1).integers(0, 60_000, SIZE).astype(np.uint16)
    write_table(tmp_path / "a.csv", found, image)
    rows = _read(tmp_path / "a.csv")
    regions = regionprops(labels, image)
    assert list(rows[0]) == [
        *("label", "score", "x1", "y1", "x2", "y2", "centroid_x", "centroid_y"),
        *("area_px", "perimeter", "circularity", "solidity", "major_axis", "minor_axis", "eccentricity"),
        "mean_intensity",
    ]
    assert [row["label"] for row in rows] == [str(number) for number in range(1, len(regions) + 1)]
    assert (rows[0]["score"], rows[-1]["score"]) == ("0.9500", "0.1230")
    boxes = [(x1, y1, x2, y2) for y1, x1, y2, x2 in (region.bbox for region in regions)]
    np.testing.assert_array_equal(_numbers(rows, "x1", "y1", "x2", "y2"), boxes)
    centroids = np.array([region.centroid for region in regions]) + 0.5
    np.testing.assert_allclose(_numbers(rows, "centroid_y", "centroid_x"), centroids, atol=6e-4)
    np.testing.assert_array_equal(_numbers(rows, "area_px")[:, 0], [region.area for region in regions])
    eccentricities = [region.eccentricity for region in regions]
    np.testing.assert_allclose(_numbers(rows, "eccentricity")[:, 0], eccentricities, atol=6e-5)
    means = [region.intensity_mean for region in regions]
    np.testing.assert_allclose(_numbers(rows, "mean_intensity")[:, 0], means, rtol=1e-5)
    axes = [(region.axis_major_length, region.axis_minor_length) for region in regions]
    np.testing.assert_allclose(_numbers(rows, "major_axis", "minor_axis"), axes, atol=6e-4)
    lengths = np.array([perimeter_crofton(region.image) for region in regions])
    np.testing.assert_allclose(_numbers(rows, "perimeter")[:, 0], lengths, atol=6e-4)
    round_ = np.minimum(4 * np.pi * np.array([region.area for region in regions]) / lengths**2, 1)
    np.testing.assert_allclose(_numbers(rows, "circularity")[:, 0], round_, atol=6e-5)
    assert round_.min() < 0.3
    np.testing.assert_allclose(_numbers(rows, "solidity")[:, 0], [region.solidity for region in regions], atol=6e-5)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours(tmp_path: pathlib.Path, channels: int) -> None:
    found, labels = _instances()
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, channels)).astype(np.uint8)
    write_table(tmp_path / "a.csv", found, image)
    rows = _read(tmp_path / "a.csv")
    assert "mean_intensity" not in rows[0]
    means = [region.intensity_mean for region in regionprops(labels, image[..., :3])]
    np.testing.assert_allclose(_numbers(rows, "mean_red", "mean_green", "mean_blue"), means, rtol=1e-5)


def test_pixel_size(tmp_path: pathlib.Path) -> None:
    found, labels = _instances()
    write_table(tmp_path / "a.csv", found, np.zeros((*SIZE, 1), np.float32), pixel_size=0.25)
    rows = _read(tmp_path / "a.csv")
    regions = regionprops(labels, spacing=(0.25, 0.25))
    assert {row["mean_intensity"] for row in rows} == {"0"}
    np.testing.assert_allclose(_numbers(rows, "area_um2")[:, 0], [region.area for region in regions], rtol=1e-5)
    diameters = np.array([region.equivalent_diameter_area for region in regions])
    np.testing.assert_allclose(_numbers(rows, "equivalent_diameter_um")[:, 0], diameters, rtol=1e-5)
    lengths = [0.25 * perimeter_crofton(region.image) for region in regions]
    np.testing.assert_allclose(_numbers(rows, "perimeter_um")[:, 0], lengths, rtol=1e-5)
    axes = [(region.axis_major_length, region.axis_minor_length) for region in regions]
    np.testing.assert_allclose(_numbers(rows, "major_axis_um", "minor_axis_um"), axes, rtol=1e-5, atol=1e-6)
    centroids = np.array([region.centroid for region in regions]) + 0.125
    np.testing.assert_allclose(_numbers(rows, "centroid_y_um", "centroid_x_um"), centroids, atol=6e-4)


def test_values_that_are_not_finite_do_not_count(tmp_path: pathlib.Path) -> None:
    masks = (CroppedMask(0, 0, np.ones((2, 2), bool)), CroppedMask(5, 5, np.ones((1, 2), bool)))
    found = Instances(np.zeros((2, 4), np.float32), np.ones(2, np.float32), masks, (8, 8))
    image = np.full((8, 8), np.nan, np.float32)
    image[:2, :2] = [[1, 2], [np.inf, np.nan]]
    write_table(tmp_path / "a.csv", found, image)
    assert [row["mean_intensity"] for row in _read(tmp_path / "a.csv")] == ["1.5", ""]


def test_bounds_are_those_of_the_pixels_and_an_empty_mask_has_none(tmp_path: pathlib.Path) -> None:
    loose = np.zeros((6, 7), bool)
    loose[2:4, 1:6] = True
    masks = (CroppedMask(10, 20, loose), CroppedMask(3, 3, np.zeros((2, 2), bool)))
    found = Instances(np.zeros((2, 4), np.float32), np.ones(2, np.float32), masks, (30, 40))
    write_table(tmp_path / "a.csv", found, np.zeros((30, 40)), 1.0)
    row, empty = _read(tmp_path / "a.csv")
    assert [row[name] for name in ("x1", "y1", "x2", "y2", "centroid_x")] == ["21", "12", "26", "14", "23.500"]
    assert {name: value for name, value in empty.items() if value} == {"label": "2", "score": "1.0000", "area_px": "0"}


class _Lazy:
    """An image that can only be sliced, and tells where it was."""

    shape: tuple[int, ...] = SIZE
    dtype = np.dtype(np.uint16)

    def __init__(self) -> None:
        self.windows: list[tuple[int, int, int, int]] = []

    def __getitem__(self, window: tuple[slice, slice], /) -> Any:
        rows, columns = window
        self.windows.append((rows.start, columns.start, rows.stop, columns.stop))
        return np.full((rows.stop - rows.start, columns.stop - columns.start), 7, self.dtype)


def test_only_the_cells_are_read_block_by_block(tmp_path: pathlib.Path) -> None:
    found, labels = _instances()
    image = _Lazy()
    write_table(tmp_path / "a.csv", found, image)
    assert {row["mean_intensity"] for row in _read(tmp_path / "a.csv")} == {"7"}
    assert sorted(image.windows) == sorted(region.bbox for region in regionprops(labels))
    order = [(top // 256, left) for top, left, _, _ in image.windows]
    assert order == sorted(order)


def test_no_instances(tmp_path: pathlib.Path) -> None:
    found = _instances()[0]
    write_table(tmp_path / "a.csv", found.select(np.zeros(len(found), bool)), np.zeros(SIZE), 0.5)
    (line,) = (tmp_path / "a.csv").read_text().splitlines()
    assert line.startswith("label,score,x1,")
    assert line.endswith("_um,equivalent_diameter_um,perimeter_um,major_axis_um,minor_axis_um")


def test_an_image_that_is_not_the_one_segmented(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"an image of \(700, 299\) pixels for instances of one of \(700, 300\)"):
        write_table(tmp_path / "a.csv", _instances()[0], np.zeros((700, 299)))
    with pytest.raises(FsisError, match=r"an image of shape \(700, 300, 2\)"):
        write_table(tmp_path / "a.csv", _instances()[0], np.zeros((*SIZE, 2)))
