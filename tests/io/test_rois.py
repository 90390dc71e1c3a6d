"""ImageJ ROIs: exactly the masks, and the boxes of what ImageJ writes."""

import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np
import pytest
import roifile
import shapely
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io.outlines import fill
from fsis_jax.io.rois import read_roi_boxes, read_roi_figures, write_rois

DISC = np.hypot(*np.mgrid[-7:8, -7:8]) < 7.5
RING = DISC & ~np.pad(np.ones((4, 4), bool), ((5, 6), (6, 5)))
PARTS = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 1, 0, 1]], bool)


def _instances(*masks: CroppedMask) -> Instances:
    boxes = np.array([[m.x, m.y, m.x + m.mask.shape[1], m.y + m.mask.shape[0]] for m in masks], np.float32)
    scores = np.linspace(0.9, 0.1, len(masks)).astype(np.float32)
    return Instances(boxes.reshape(-1, 4), scores, masks, (200_000, 200_000))


def _rasterise(roi: ImagejRoi, mask: CroppedMask) -> np.ndarray:
    """By the even-odd rule, as ImageJ fills composites of rings that do not cross."""
    ys, xs = np.indices(mask.mask.shape) + 0.5
    rings = roi.coordinates(multi=True)
    return np.logical_xor.reduce([shapely.contains_xy(shapely.Polygon(r), xs + mask.x, ys + mask.y) for r in rings])


@pytest.mark.parametrize("mask", [DISC, RING, PARTS, np.ones((1, 1), bool)])
@pytest.mark.parametrize("place", [0, 32_760, 40_000, 60_530, 65_530, 150_000])
def test_the_masks_come_back(tmp_path: pathlib.Path, mask: np.ndarray, place: int) -> None:
    crops = [CroppedMask(place, 3, mask), CroppedMask(12, place, mask)]
    write_rois(tmp_path / "a.zip", _instances(*crops))
    rois = roifile.roiread(tmp_path / "a.zip")
    assert isinstance(rois, list)
    for roi, crop, score in zip(rois, crops, (0.9, 0.1), strict=True):
        np.testing.assert_array_equal(_rasterise(roi, crop), mask)
        assert roi.properties == {"score": score}
        assert roi.composite == (mask is RING or mask is PARTS)
    height, width = mask.shape
    boxes = [(3, place, 3 + width, place + height), (place, 12, place + width, 12 + height)]
    assert [box for box, _ in read_roi_boxes(tmp_path / "a.zip")] == boxes
    for crop, (figures, group) in zip(crops, read_roi_figures(tmp_path / "a.zip"), strict=True):
        filled, y, x = fill(figures, (200_000, 200_000))
        assert (y, x, group) == (crop.y, crop.x, "")
        np.testing.assert_array_equal(filled, mask)


def test_names_and_header(tmp_path: pathlib.Path) -> None:
    empty = CroppedMask(0, 0, np.zeros((3, 3), bool))
    write_rois(tmp_path / "a.zip", _instances(CroppedMask(100, 20, DISC), empty, CroppedMask(100, 20, RING)))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["0001-0107-0027.roi", "0003-0107-0027.roi"]
    simple, composite = roifile.roiread(tmp_path / "a.zip")
    assert (simple.name, composite.name) == ("0001-0107-0027", "0003-0107-0027")
    assert (simple.roitype, composite.roitype) == (ROI_TYPE.POLYGON, ROI_TYPE.RECT)
    for roi in (simple, composite):
        assert (roi.left, roi.top, roi.right, roi.bottom) == (20, 100, 35, 115)
    assert not simple.subpixelresolution


def test_header_bounds_end_where_16_bits_do(tmp_path: pathlib.Path) -> None:
    write_rois(tmp_path / "a.zip", _instances(*(CroppedMask(60_530, 70_000, mask) for mask in (DISC, RING))))
    for roi in roifile.roiread(tmp_path / "a.zip"):
        assert (roi.left, roi.top, roi.right, roi.bottom) == (60_535, 60_530, 60_535, 60_535)
    assert [box for box, _ in read_roi_boxes(tmp_path / "a.zip")] == [(70_000, 60_530, 70_015, 60_545)] * 2


def test_the_same_result_is_the_same_file(tmp_path: pathlib.Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_rois(tmp_path / name, _instances(CroppedMask(1, 2, DISC), CroppedMask(30, 70_000, PARTS)))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def _composite(*numbers: float) -> ImagejRoi:
    path = np.array(numbers, np.float32)
    return ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path), multi_coordinates=path)


@pytest.mark.parametrize(
    ("roi", "box"),
    [
        (ImagejRoi(roitype=ROI_TYPE.RECT, left=3, top=4, right=9, bottom=8), (3, 4, 9, 8)),
        (ImagejRoi(roitype=ROI_TYPE.OVAL, left=40_000, top=4, right=40_009, bottom=8), (40_000, 4, 40_009, 8)),
        (
            ImagejRoi(
                roitype=ROI_TYPE.OVAL,
                options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION,
                xd=1.5,
                yd=2.25,
                widthd=3.0,
                heightd=4.0,
            ),
            (1.5, 2.25, 4.5, 6.25),
        ),
        (ImagejRoi.frompoints([[1.5, 2], [4, 2.5], [3, 6]]), (1.5, 2, 4, 6)),
        (ImagejRoi.frompoints([[1, 2], [4, 2], [3, 6]]), (1, 2, 4, 6)),
        (ImagejRoi(roitype=ROI_TYPE.LINE, x1=5.0, y1=1.0, x2=2.0, y2=4.0), (2, 1, 5, 4)),
        (_composite(0, 1, 2, 2, 3, 0, 5, 2, 3, 5, 3, 4, 6, 1, 6, 4), (1, 0, 5, 6)),
    ],
)
def test_boxes_of_one_roi(tmp_path: pathlib.Path, roi: ImagejRoi, box: tuple[float, ...]) -> None:
    roi.tofile(tmp_path / "a.roi")
    assert [box for box, _ in read_roi_boxes(str(tmp_path / "a.roi"))] == [box]


@pytest.mark.parametrize(
    ("roi", "area"),
    [
        (ImagejRoi(roitype=ROI_TYPE.RECT, left=3, top=4, right=9, bottom=8), 24),
        (ImagejRoi(roitype=ROI_TYPE.OVAL, left=10, top=4, right=50, bottom=34), np.pi * 20 * 15),
        (ImagejRoi.frompoints([[1, 2], [41, 2], [41, 12], [1, 12]]), 400),
        (_composite(0, 10, 10, 1, 30, 10, 1, 30, 30, 1, 10, 30, 4, 0, 15, 15, 1, 15, 20, 1, 20, 20, 1, 20, 15, 4), 375),
        # A parabola, 2/3 of its box; and two cubic curves, each 3/5 of the box of their control points.
        (_composite(0, 10, 10, 2, 40, 70, 70, 10, 4), 60 * 30 * 2 / 3),
        (_composite(0, 10, 50, 3, 10, 77.6, 50, 77.6, 50, 50, 3, 50, 22.4, 10, 22.4, 10, 50, 4), 2 * 40 * 27.6 * 3 / 5),
    ],
    ids=range(6),
)
def test_areas(tmp_path: pathlib.Path, roi: ImagejRoi, area: float) -> None:
    roi.tofile(tmp_path / "a.roi")
    ((figures, _),) = read_roi_figures(tmp_path / "a.roi")
    assert np.count_nonzero(fill(figures, (100, 100))[0]) == pytest.approx(area, rel=0.01)


def test_lines_have_no_area(tmp_path: pathlib.Path) -> None:
    line = ImagejRoi.frompoints([[1, 2], [4, 2], [3, 6]])
    for kind in (ROI_TYPE.POLYLINE, ROI_TYPE.FREELINE, ROI_TYPE.ANGLE):
        line.roitype = kind
        line.tofile(tmp_path / "a.roi")
        with pytest.raises(FsisError, match=rf"a\.roi: a {kind.name.lower()} has no area: outline the cell"):
            read_roi_figures(tmp_path / "a.roi")


def test_a_group_is_called_as_most_of_it_is(tmp_path: pathlib.Path) -> None:
    rois = {}
    told = [(1, "living")] * 3 + [(2, "dead")] * 3 + [(1, "dead"), (3, "dead"), (0, "dead"), (1, ""), (0, ""), (4, "")]
    for number, (group, category) in enumerate(told):
        roi = ImagejRoi.frombytes(SQUARE)
        roi.group, roi.properties = group, {"category": category} if category else {}
        rois[f"{number:02}.roi"] = roi.tobytes()
    names = [name for _, name in read_roi_boxes(_zip(tmp_path / "a.zip", rois))]
    assert names == ["living"] * 3 + ["dead"] * 3 + ["living", "group 3", "dead", "living", "", "group 4"]
    assert [name for _, name in read_roi_figures(tmp_path / "a.zip")] == names


def _zip(path: pathlib.Path, entries: Mapping[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


SQUARE = ImagejRoi.frompoints([[1, 2], [4, 2], [4, 6], [1, 6]]).tobytes()


def test_folders_in_a_zip_are_passed_over(tmp_path: pathlib.Path) -> None:
    path = _zip(tmp_path / "a.zip", {"cells/": b"", "cells/b.roi": SQUARE, "a.roi": SQUARE})
    assert [box for box, _ in read_roi_boxes(path)] == [(1, 2, 4, 6)] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not ImageJ ROIs, or damaged "),
        (b"hello", "not ImageJ ROIs, or damaged "),
        (SQUARE[:70], "not ImageJ ROIs, or damaged "),
        (SQUARE[:16] + b"\xff\xff" + SQUARE[18:], "not ImageJ ROIs, or damaged "),
        (b"PK\x03\x04" + SQUARE, "not ImageJ ROIs, or damaged "),
        (_composite(0, 1, 1, 9).tobytes(), "not ImageJ ROIs, or damaged "),
        (_composite(0, 1, 1, 1, 2).tobytes(), "not ImageJ ROIs, or damaged "),
        (_composite(float("nan")).tobytes(), "not ImageJ ROIs, or damaged "),
        (_composite(0, 1, float("nan")).tobytes(), "a coordinate is not finite: "),
        (ImagejRoi(roitype=ROI_TYPE.LINE, x1=5.0, y1=1.0, x2=5.0, y2=4.0).tobytes(), "no extent in x or in y "),
        (ImagejRoi(roitype=ROI_TYPE.RECT, left=3, right=3).tobytes(), "no extent in x or in y "),
        (ImagejRoi(roitype=ROI_TYPE.NOROI).tobytes(), "an empty shape: "),
    ],
    ids=range(12),  # of their bytes some are of memory that was never written
)
def test_a_file_without_a_box_is_one_line(tmp_path: pathlib.Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.roi"
    path.write_bytes(data)
    with pytest.raises(FsisError) as caught:
        read_roi_boxes(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_points_have_no_box(tmp_path: pathlib.Path) -> None:
    roi = ImagejRoi.frompoints([[1, 2], [4, 5]])
    roi.roitype = ROI_TYPE.POINT
    roi.tofile(tmp_path / "a.roi")
    with pytest.raises(FsisError, match=r"a\.roi: points have no extent: outline a cell"):
        read_roi_boxes(tmp_path / "a.roi")


def test_zips_that_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FsisError, match=r"a\.zip: no ROIs in the zip: "):
        read_roi_boxes(_zip(tmp_path / "a.zip", {"cells/": b""}))
    with pytest.raises(FsisError, match=r"b\.zip: 'notes\.txt': not ImageJ ROIs, or damaged "):
        read_roi_boxes(_zip(tmp_path / "b.zip", {"a.roi": SQUARE, "notes.txt": b"cells"}))
    with pytest.raises(FsisError, match=r"c\.zip: 'x\.roi': 20000000 bytes, more than a ROI has: take it out"):
        read_roi_boxes(_zip(tmp_path / "c.zip", {"x.roi": bytes(20_000_000)}))
    whole = _zip(tmp_path / "d.zip", {"a.roi": SQUARE}).read_bytes()
    (tmp_path / "d.zip").write_bytes(whole[:-30])
    with pytest.raises(FsisError, match=r"d\.zip: not ImageJ ROIs, or damaged \(File is not a zip file\): "):
        read_roi_boxes(tmp_path / "d.zip")
    (tmp_path / "e.zip").write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    with pytest.raises(FsisError, match=r"e\.zip: 'a\.roi': not ImageJ ROIs, or damaged "):
        read_roi_boxes(tmp_path / "e.zip")


def test_no_such_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FsisError, match=r"none\.zip: no such file: check the path"):
        read_roi_boxes(tmp_path / "none.zip")
    with pytest.raises(FsisError, match=r"cannot be read \(Is a directory\): "):
        read_roi_boxes(tmp_path)


def test_no_instances(tmp_path: pathlib.Path) -> None:
    write_rois(tmp_path / "a.zip", _instances())
    assert roifile.roiread(tmp_path / "a.zip") == []


def test_rois_of_several_slices_are_refused(tmp_path: pathlib.Path) -> None:
    def on(**places: int) -> bytes:
        roi = ImagejRoi.frompoints([[1, 2], [4, 2], [4, 6], [1, 6]])
        for name, value in places.items():
            setattr(roi, name, value)
        return roi.tobytes()

    one = {"a.roi": on(position=2), "b.roi": on(position=2), "everywhere.roi": on()}
    assert len(read_roi_boxes(_zip(tmp_path / "one.zip", one))) == 3
    channels = {"a.roi": on(c_position=1, z_position=3), "b.roi": on(c_position=2, z_position=3)}
    assert len(read_roi_figures(_zip(tmp_path / "channels.zip", channels))) == 2
    with pytest.raises(FsisError, match=r"two\.zip: outlines of several slices of a stack \(slice 2, slice 5 \.\.\.\)"):
        read_roi_figures(_zip(tmp_path / "two.zip", {**one, "c.roi": on(position=5)}))
    times = _zip(tmp_path / "times.zip", {f"{t}.roi": on(z_position=3, t_position=t) for t in (1, 2)})
    with pytest.raises(FsisError, match=r"\(Z 3 T 1, Z 3 T 2 \.\.\.\), which would all be taken for one: save"):
        read_roi_boxes(times)
