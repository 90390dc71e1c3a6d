"""OME-Zarr of both formats, written with zarr itself."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import zarr

from fsis_jax.errors import FsisError
from fsis_jax.io.finding import image_files
from fsis_jax.io.intensity import find_stretch
from fsis_jax.io.outputs import image_name
from fsis_jax.io.source import open_image

FORMATS = [2, 3]


def _write(
    path: pathlib.Path,
    image: np.ndarray,
    axes: str,
    zarr_format: int,
    *,
    factors: tuple[int, ...] = (1,),
    chunk: int = 32,
    scale: float = 0.5,
    unit: str | None = "micrometer",
    **metadata: object,
) -> pathlib.Path:
    group = zarr.create_group(path, zarr_format=zarr_format, overwrite=True)
    datasets = []
    for factor in factors:
        level = image[..., ::factor, ::factor]
        chunks = (1,) * (level.ndim - 2) + (min(chunk, level.shape[-2]), min(chunk, level.shape[-1]))
        group.create_array(str(factor), shape=level.shape, chunks=chunks, dtype=level.dtype)[...] = level
        size = [1.0] * (level.ndim - 2) + [scale * factor] * 2
        datasets.append({"path": str(factor), "coordinateTransformations": [{"type": "scale", "scale": size}]})
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": axis, "type": kinds.get(axis, "space")} | ({"unit": unit} if axis in "zyx" and unit else {})
        for axis in axes
    ]
    ome = {"multiscales": [{"axes": described, "datasets": datasets}], **metadata}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if zarr_format == 3 else ome)
    return path


def _random(shape: tuple[int, ...], dtype: str = "u2") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_planes_and_levels(tmp_path, zarr_format):
    stack = _random((2, 4, 3, 100, 130))
    names = {"omero": {"channels": [{"label": name} for name in ("DAPI", "GFP", "Cy3", "Cy5")]}}
    path = _write(tmp_path / "a.ome.zarr", stack, "tczyx", zarr_format, factors=(1, 2, 4), **names)
    with open_image(path, channel="gfp", page="T2,Z3") as image:
        assert (image.shape, image.dtype, image.pixel_size) == ((100, 130), np.uint16, 0.5)
        assert [level.shape for level in image.coarser] == [(50, 65), (25, 33)]
        plane = stack[1, 1, 2]
        for window in np.s_[0:100, 0:130], np.s_[31:33, 60:100], np.s_[90:300, 129:], np.s_[4:4, 0:9]:
            np.testing.assert_array_equal(image[window], plane[window])
            np.testing.assert_array_equal(image.coarser[1][window], plane[::4, ::4][window])
        assert find_stretch(image) == find_stretch(plane)
    message = (
        r"axes TCZYX: choose one plane with --page T1,Z1 \(T 1\.\.2, Z 1\.\.3\) and --channel 1\.\.4 \(DAPI, GFP, "
    )
    with pytest.raises(FsisError, match=message):
        open_image(path)
    with pytest.raises(FsisError, match=r"no channel RFP: choose with --channel 1\.\.4 \(DAPI, GFP, Cy3, Cy5\)"):
        open_image(path, channel="RFP", page="T1,Z1")


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4", "bool"])
def test_colours_and_dtypes(tmp_path, zarr_format, dtype):
    stack = _random((3, 40, 50), "u1").astype(dtype)
    path = _write(tmp_path / "a.zarr", stack, "cyx", zarr_format)
    expected = np.moveaxis(stack, 0, -1)
    if dtype == "bool":
        expected = expected.astype(np.uint8) * 255
    with open_image(path) as image:
        assert image.shape == (40, 50, 3)
        part = image[3:37, 30:50]
        assert part.dtype == image.dtype == np.dtype(dtype if dtype != "bool" else "u1").newbyteorder("=")
        np.testing.assert_array_equal(part, expected[3:37, 30:50])
    with open_image(path, channel="2") as image:
        np.testing.assert_array_equal(image[3:37, 30:50], expected[3:37, 30:50, 1])


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_levels_of_another_stack_are_left_out(tmp_path, zarr_format):
    stack = _random((8, 100, 130))
    path = _write(tmp_path / "a.zarr", stack, "zyx", zarr_format, factors=(1, 2, 4, 8, 16, 32))
    group = zarr.open_group(path)
    for name, level in {
        "2": stack[::2, ::2, ::2],  # Z is halved too
        "8": stack[:, ::8, ::8].astype("u1"),
        "16": stack[:, ::4, ::4],  # as large as the level before
        "32": stack[:, ::32, ::8],  # another field of view
    }.items():
        group.create_array(name, shape=level.shape, dtype=level.dtype, overwrite=True)[...] = level
    with open_image(path, page="7") as image:
        assert [level.shape for level in image.coarser] == [(25, 33)]
        np.testing.assert_array_equal(image[0:100, 0:130], stack[6])
        np.testing.assert_array_equal(image.coarser[0][0:25, 0:33], stack[6, ::4, ::4])


@pytest.mark.parametrize("axes", ["ycx", "yxc", "xyc", "cxy", "xcy"])
@pytest.mark.parametrize("zarr_format", FORMATS)
def test_axes_in_any_order(tmp_path, zarr_format, axes):
    plain = _random((40, 50, 3))
    stored = plain.transpose(["yxc".index(axis) for axis in axes])
    path = _write(tmp_path / "a.zarr", stored, axes, zarr_format)
    with open_image(path) as image:
        assert image.shape == (40, 50, 3)
        np.testing.assert_array_equal(image[3:37, 30:50], plain[3:37, 30:50])
    with open_image(path, channel="2") as image:
        np.testing.assert_array_equal(image[3:37, 30:50], plain[3:37, 30:50, 1])


def test_axes_of_another_number(tmp_path):
    path = _write(tmp_path / "a.zarr", _random((3, 9, 8)), "yx", 2)
    with pytest.raises(FsisError, match=r"a\.zarr: axes YX of an array of shape \(3, 9, 8\): export the image again"):
        open_image(path)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_one_plane_needs_no_choice(tmp_path, zarr_format):
    stack = _random((1, 1, 1, 40, 50))
    with open_image(_write(tmp_path / "a.zarr", stack, "tczyx", zarr_format), channel="1", page="Z1") as image:
        np.testing.assert_array_equal(image[0:40, 0:50], stack[0, 0, 0])
    with open_image(f"{tmp_path / 'a.zarr'}/") as image:
        np.testing.assert_array_equal(image[0:40, 0:50], stack[0, 0, 0])


@pytest.mark.parametrize(
    ("scale", "unit", "expected"),
    [
        (0.5, "micrometer", 0.5),
        (250.0, "nanometer", 0.25),
        (0.5, None, None),
        (0.5, "parsec", None),
        (0.0, "meter", None),
    ],
)
def test_size_of_a_pixel(tmp_path, scale, unit, expected):
    with open_image(_write(tmp_path / "a.zarr", _random((9, 8)), "yx", 2, scale=scale, unit=unit)) as image:
        assert image.pixel_size == expected


def test_no_chunk_is_read_twice(tmp_path, monkeypatch):
    stack = _random((2, 90, 120))
    path = _write(tmp_path / "a.zarr", stack, "zyx", 2)
    read: list[object] = []
    getitem = zarr.Array.__getitem__

    def counting(array: zarr.Array, window: object) -> object:
        read.append(window)
        return getitem(array, window)

    monkeypatch.setattr(zarr.Array, "__getitem__", counting)
    with open_image(path, page="2") as image:
        assert not read
        image[40:50, 40:50]
        assert len(read) == 1
        for top in range(0, 90, 20):
            np.testing.assert_array_equal(image[top : top + 50, 0:120], stack[1, top : top + 50])
    assert len(read) == 3 * 4


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_folders_that_are_no_image(tmp_path, zarr_format):
    for attributes, message in (
        ({}, r"a Zarr folder without an image of OME-Zarr \(multiscales\): export it as OME-Zarr"),
        ({"plate": {}}, r"a plate of many images: give one field of a well, like plate\.zarr/A/1/0"),
        ({"well": {}}, "a plate of many images"),
        ({"labels": ["cells"]}, "labels and not an image: give the folder of the image around it"),
        ({"multiscales": [{}], "image-label": {}}, "labels and not an image"),
        ({"bioformats2raw.layout": 3}, "a collection without images: copy or export"),
        ({"multiscales": [{"datasets": []}]}, r"damaged OME-Zarr \(.+\): copy or export"),
    ):
        group = zarr.create_group(tmp_path / "x.zarr", zarr_format=zarr_format, overwrite=True)
        group.attrs.update({"ome": attributes} if zarr_format == 3 and attributes else attributes)
        with pytest.raises(FsisError, match=rf"x\.zarr: {message}") as caught:
            open_image(tmp_path / "x.zarr")
        assert "\n" not in str(caught.value)
    array = _write(tmp_path / "a.zarr", _random((9, 8)), "yx", zarr_format) / "1"
    with pytest.raises(FsisError, match="an array of Zarr without OME metadata: give the folder of the image around"):
        open_image(array)
    shutil.rmtree(array)
    with pytest.raises(FsisError, match=r"array .1., which it lists, is missing: copy the whole"):
        open_image(array.parent)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(FsisError, match=r"empty\.zarr: a folder, and not an OME-Zarr image"):
        open_image(tmp_path / "empty.zarr")
    with pytest.raises(FsisError, match=r"none\.zarr: no such file"):
        open_image(tmp_path / "none.zarr")


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("listed", [True, False])
def test_an_image_of_a_collection(tmp_path, zarr_format, listed):
    images = [_random((20, 30)), _random((40, 50))]
    for i, image in enumerate(images):
        _write(tmp_path / "a.zarr" / str(i), image, "yx", zarr_format)
    layout: dict[str, object] = {"bioformats2raw.layout": 3}
    root = zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=zarr_format)
    root.attrs.update({"ome": layout} if zarr_format == 3 else layout)
    if listed:
        order: dict[str, object] = {"series": ["1", "0"]}
        root.require_group("OME").attrs.update({"ome": order} if zarr_format == 3 else order)
        images.reverse()
    sizes = ["30x20", "50x40"][:: -1 if listed else 1]
    with pytest.raises(FsisError, match=rf"with --series 1\.\.2 \(1: {sizes[0]}; 2: {sizes[1]}\)$"):
        open_image(tmp_path / "a.zarr")
    for i, expected in enumerate(images):
        with open_image(tmp_path / "a.zarr", series=i + 1) as image:
            np.testing.assert_array_equal(image[:, :], expected)
            assert image.path == str(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr" / "1")
    with open_image(tmp_path / "a.zarr") as image:
        assert image.shape == (20, 30)


def test_images_of_one_group(tmp_path):
    image = _random((20, 30))
    path = _write(tmp_path / "a.zarr", image, "yx", 2, factors=(1, 2))
    group = zarr.open_group(path, mode="a")
    ((multiscale,),) = [group.attrs["multiscales"]]
    halves = [{**multiscale, "name": f"half {i}", "datasets": [multiscale["datasets"][i]]} for i in (0, 1)]
    group.attrs["multiscales"] = halves
    with pytest.raises(FsisError, match=r"2 images .* \(1: half 0 30x20; 2: half 1 15x10\)$"):
        open_image(path)
    with open_image(path, series="HALF 1") as half:
        np.testing.assert_array_equal(half[:, :], image[::2, ::2])
        assert half.pixel_size == 1


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_fields_of_a_plate(tmp_path, zarr_format):
    plate = tmp_path / "plate.zarr"
    root = zarr.create_group(plate, zarr_format=zarr_format)

    def tell(group: zarr.Group, **metadata: object) -> None:
        group.attrs.update({"ome": metadata} if zarr_format == 3 else metadata)

    tell(root, plate={"wells": [{"path": "A/1"}, {"path": "B/12"}, {"path": "B/13"}]})
    for well, fields in (("A/1", "01"), ("B/12", "0")):
        tell(root.require_group(well), well={"images": [{"path": field} for field in fields]})
        for field in fields:
            _write(plate / well / field, _random((20, 30)), "yx", zarr_format)
    shown = [str(plate / field) for field in ("A/1/0", "A/1/1", "B/12/0")]
    missing = str(plate / "B/13")
    assert image_files([str(plate)]) == [*shown, missing]
    assert image_files([str(tmp_path)]) == [*shown, missing]
    assert image_files([f"{plate}/A/1"]) == shown[:2]
    assert image_files([f"{plate}/A/1/1/"]) == [f"{shown[1]}/"]
    for pattern in "*/*/*", "*/*", "**", "*/*/*/":
        assert [os.path.normpath(path) for path in image_files([f"{plate}/{pattern}"])][:3] == shown
    assert image_files([f"{plate}/*/*/0"]) == [shown[0], shown[2]]
    with pytest.raises(FsisError, match="matches no image"):
        image_files([f"{plate}/*"])
    with pytest.raises(FsisError, match="no such file"):
        open_image(missing)
    assert [image_name(path) for path in shown] == ["plate-A-1-0", "plate-A-1-1", "plate-B-12-0"]
    assert image_name(f"{plate}/") == "plate"
    assert image_name(str(tmp_path / "x.ome.zarr" / "0")) == "x-0"


def test_labels_of_an_image_are_no_image_of_a_pattern(tmp_path):
    path = _write(tmp_path / "a.zarr", _random((20, 30)), "yx", 2)
    _write(path / "labels" / "cells", _random((20, 30)), "yx", 2, **{"image-label": {}})
    assert image_files([f"{tmp_path}/**"]) == [str(path)]


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_a_damaged_chunk(tmp_path, zarr_format):
    path = _write(tmp_path / "a.zarr", _random((64, 64)), "yx", zarr_format)
    chunk = path / "1" / ("c/1/1" if zarr_format == 3 else "1.1")
    chunk.write_bytes(chunk.read_bytes()[:50])
    with open_image(path) as image:
        assert image[0:32, 0:64].shape == (32, 64)
        with pytest.raises(FsisError, match=r"a\.zarr: damaged data \(.+\): copy or export the file again") as caught:
            image[30:40, 30:40]
    assert "\n" not in str(caught.value)


def test_chunks_that_do_not_fit_into_memory_are_refused(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", shape=(40000, 40000), chunks=(40000, 40000), dtype="u2")
    axes = [{"name": "y"}, {"name": "x"}]
    group.attrs.update({"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]})
    with pytest.raises(
        FsisError, match=r"a\.zarr: compressed in parts of 40000 x 40000 \(3051 MiB\): save it in tiles"
    ):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("axes", 5),
        ("axes", [None, None]),
        ("axes", [{"name": None}, {"name": "x"}]),
        ("datasets", []),
        ("datasets", [None]),
        ("datasets", [{"path": 1}]),
        ("datasets", [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": ["a", 1]}]}]),
        ("coordinateTransformations", {"type": "scale"}),
        ("coordinateTransformations", [{"type": "scale", "scale": "1"}]),
    ],
)
def test_metadata_of_other_types_are_damage(tmp_path, key, value):
    path = _write(tmp_path / "a.zarr", _random((40, 40)), "yx", 2)
    group = zarr.open_group(path, mode="r+")
    image = dict(group.attrs["multiscales"][0]) | {key: value}
    group.attrs["multiscales"] = [image]
    with pytest.raises(FsisError, match=r"a\.zarr: damaged OME-Zarr \(.*\): copy or export the file again"):
        open_image(path)


@pytest.mark.parametrize("unit", [{"a": 1}, 5, [], "parsec"])
def test_a_unit_that_is_none_tells_no_size(tmp_path, unit):
    path = _write(tmp_path / "a.zarr", _random((40, 40)), "yx", 2, unit=unit)
    with open_image(path) as image:
        assert image.pixel_size is None
