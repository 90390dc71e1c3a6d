"""Which image of a TIFF is read where it holds several: series, sets of files, appended planes, previews."""

import json
import pathlib
import struct
import uuid

import numpy as np
import pytest
import tifffile
from tiff_files import random_image, write

from fsis_jax.errors import FsisError
from fsis_jax.io.source import open_image

SIDE = (20, 30)


def _assert_read(path: pathlib.Path, expected: np.ndarray, **chosen: object) -> None:
    with open_image(path, **chosen) as image:
        np.testing.assert_array_equal(image[:, :], expected)


def _message(path: pathlib.Path, **chosen: object) -> str:
    with pytest.raises(FsisError) as caught:
        open_image(path, **chosen)
    return str(caught.value).removeprefix(f"{path}: ")


def _xml(me: str, images: list[tuple[str, str, int, list[tuple[int, str, str]]]]) -> bytes:
    """OME-XML of a file with this UUID: (name, micrometres, channels, (IFD, file, UUID) of each channel) of images."""
    text = f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{me}">'
    for i, (name, size, channels, planes) in enumerate(images):
        text += (
            f'<Image ID="Image:{i}" Name="{name}"><Pixels ID="Pixels:{i}" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="30" SizeY="20" SizeC="{channels}" SizeZ="1" SizeT="1" PhysicalSizeX="{size}">'
        )
        text += "".join(f'<Channel ID="Channel:{i}:{c}" Name="{name}-{c}"/>' for c in range(channels))
        for c, (ifd, file, owner) in enumerate(planes):
            text += (
                f'<TiffData IFD="{ifd}" FirstC="{c}" PlaneCount="1"><UUID FileName="{file}">{owner}</UUID></TiffData>'
            )
        text += "</Pixels></Image>"
    return f"{text}</OME>".encode()


def test_a_position_of_a_set_is_that_of_the_named_file(tmp_path):
    names = [f"run_Pos{i}.ome.tif" for i in range(3)]
    owners = [f"urn:uuid:{uuid.uuid4()}" for _ in names]
    images = [(f"Pos{i}", f"0.{i + 1}", 2, [(0, names[i], owners[i]), (1, names[i], owners[i])]) for i in range(3)]
    planes = [random_image((2, *SIDE), seed=i) for i in range(3)]
    for name, owner, plane in zip(names, owners, planes, strict=True):
        options = {"description": _xml(owner, images), "metadata": None, "photometric": "minisblack"}
        write(tmp_path / name, plane, **options)
    for i, name in enumerate(names):
        with open_image(tmp_path / name, channel=f"pos{i}-1") as image:
            np.testing.assert_array_equal(image[:, :], planes[i][1])
            assert image.pixel_size == pytest.approx(0.1 * (i + 1))
    (tmp_path / names[0]).unlink()
    _assert_read(tmp_path / names[2], planes[2][0], channel=1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_any_member_of_a_set_of_one_image_reads_all_of_it(tmp_path, order):
    names, owners = ["a.ome.tif", "b.ome.tif"], ["urn:uuid:1", "urn:uuid:2"]
    planes = [random_image(SIDE, seed=i) for i in order]
    image = ("cells", "0.5", 2, [(0, name, owner) for name, owner in zip(names, owners, strict=True)])
    for name, owner, plane in zip(names, owners, planes, strict=True):
        write(tmp_path / name, plane, description=_xml(owner, [image]), metadata=None)
    for name in names:
        for channel, plane in zip(("cells-0", "cells-1"), planes, strict=True):
            _assert_read(tmp_path / name, plane, channel=channel)


def _write_micromanager(path: pathlib.Path, planes: np.ndarray, position: int, positions: int) -> None:
    """A file of a Micro-Manager set, with its own header and index: planes (C, H, W) uint16 of one position."""
    told = {"MicroManagerVersion": "2.0", "Frames": 1, "Slices": 1, "Channels": len(planes), "Prefix": "run"}
    summary = json.dumps(told | {"Positions": positions}).encode()
    summary += b" " * (len(summary) % 2)
    others = struct.pack("<6I", 483765892, 0, 99384722, 0, 2355492, len(summary)) + summary
    pages, offsets, start = b"", [], 16 + len(others)
    for number, plane in enumerate(planes):
        offsets.append(place := start + len(pages))
        data, meta = place + 162, b'{"Channel": "x"}\0\0'
        end = data + plane.nbytes
        entries = [(256, 4, 1, plane.shape[1]), (257, 4, 1, plane.shape[0]), (258, 3, 1, 16), (259, 3, 1, 1)]
        entries += [(262, 3, 1, 1), (273, 4, 1, data), (277, 3, 1, 1), (278, 4, 1, plane.shape[0])]
        entries += [(279, 4, 1, plane.nbytes), (282, 5, 1, end), (283, 5, 1, end), (296, 3, 1, 3)]
        entries.append((51123, 2, len(meta), end + 8))
        below = 0 if number == len(planes) - 1 else end + 8 + len(meta)
        pages += struct.pack("<H", 13) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        pages += struct.pack("<I", below) + plane.astype("<u2").tobytes() + struct.pack("<II", 1, 1) + meta
    index = struct.pack("<2I", 3453623, len(planes))
    index += b"".join(struct.pack("<5I", channel, 0, 0, position, place) for channel, place in enumerate(offsets))
    head = b"II*\0" + struct.pack("<3I", offsets[0], 54773648, start + len(pages))
    path.write_bytes(head + others + pages + index)


def test_a_position_of_micromanager_is_that_of_the_named_file(tmp_path):
    planes = random_image((2, 3, *SIDE))
    for i, stack in enumerate(planes):
        _write_micromanager(tmp_path / f"run_MMStack_Pos{i}.ome.tif", stack, i, 2)
    with tifffile.TiffFile(tmp_path / "run_MMStack_Pos1.ome.tif") as tiff:
        assert tiff.is_mmstack  # so that the test tests what it says
        assert tiff.series[0].is_multifile
    for i, stack in enumerate(planes):
        path = tmp_path / f"run_MMStack_Pos{i}.ome.tif"
        for channel in 1, 2, 3:
            _assert_read(path, stack[channel - 1], channel=channel)
        _assert_read(path, np.moveaxis(stack, 0, -1))


@pytest.mark.parametrize("kind", [0, 6])
def test_thumbnails_of_a_zeiss_file_are_passed_over(tmp_path, kind):
    described = np.zeros(1, np.dtype(tifffile.TIFF.CZ_LSMINFO))
    described["MagicNumber"], described["StructureSize"], described["ScanType"] = 67127628, described.nbytes, kind
    for axis, size in (("X", 30), ("Y", 20), ("Z", 3), ("Channels", 1), ("Time", 1)):
        described[f"Dimension{axis}"] = size
    stack = random_image((3, *SIDE), "u1")
    path = tmp_path / "a.lsm"
    with tifffile.TiffWriter(path) as writer:
        for plane in stack:
            tags = [(34412, "B", described.nbytes, described.tobytes(), True)]
            writer.write(plane, metadata=None, extratags=tags, compression="lzw")
            writer.write(random_image((8, 12, 3), "u1"), photometric="rgb", subfiletype=1, metadata=None)
    for page in 1, 2, 3:
        _assert_read(path, stack[page - 1], page=page)
    assert "choose one plane with --page 1..3" in _message(path)
    assert "(3, 8, 12, 3)" in _message(path, series=2)


def test_images_of_one_file_are_chosen_by_number_or_name(tmp_path):
    planes = [random_image(SIDE, seed=i) for i in range(3)]
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for i, plane in enumerate(planes):
            name, size = ("F", "F", "Other one")[i], float(i + 1)
            writer.write(plane, metadata={"axes": "YX", "Name": name, "PhysicalSizeX": size, "PhysicalSizeY": size})
    listed = "1..3 (1: F 30x20; 2: F 30x20; 3: Other one 30x20)"
    assert _message(path) == f"3 images in one file: choose one with --series {listed}"
    assert _message(path, series="4") == f"no image 4: choose with --series {listed}"
    assert _message(path, series="f") == f"2 images are called f: choose with --series {listed}"
    assert _message(path, page="2").startswith("3 images in one file")
    assert _message(path, series="x", where_there=True).startswith("no image x: choose")
    for i, plane in enumerate(planes):
        with open_image(path, series=i + 1) as image:
            np.testing.assert_array_equal(image[:, :], plane)
            assert image.pixel_size == i + 1
    _assert_read(path, planes[2], series="OTHER one")


def test_a_file_with_one_image_takes_no_series(tmp_path):
    plane = random_image(SIDE)
    path = write(tmp_path / "a.tif", plane)
    _assert_read(path, plane, series="1")
    _assert_read(path, plane, series="3", where_there=True)
    assert _message(path, series="2") == "the file has one image only: leave out --series"


@pytest.mark.parametrize("metadata", [{}, None])
def test_planes_that_were_appended_are_a_stack(tmp_path, metadata):
    planes = [random_image(SIDE, seed=i) for i in range(3)]
    path = tmp_path / "a.tif"
    for i, plane in enumerate(planes):  # however each of them was compressed
        write(path, plane, append=i > 0, metadata=metadata, compression=(None, "zlib", None)[i])
    for i, plane in enumerate(planes):
        _assert_read(path, plane, page=i + 1)
    assert _message(path) == "a stack of shape (3, 20, 30), axes IYX: choose one plane with --page 1..3"


def test_planes_of_colours_that_were_appended_are_a_stack(tmp_path):
    planes = [random_image((*SIDE, 3), "u1", seed=i) for i in range(2)]
    path = tmp_path / "a.tif"
    for i, plane in enumerate(planes):
        write(path, plane, append=i > 0, photometric="rgb")
    _assert_read(path, planes[1], page=2)
    _assert_read(path, planes[1][..., 2], page=2, channel="blue")


@pytest.mark.parametrize(
    ("other", "told"),
    [(random_image((10, 12)), "12x10"), (random_image(SIDE, "u1"), "30x20"), (random_image((4, 10, 12)), "12x10, . 4")],
)
def test_pages_that_differ_are_images(tmp_path, other, told):
    plane = random_image(SIDE, seed=9)
    for metadata in {}, None:
        path = tmp_path / "a.tif"
        write(path, plane, metadata=metadata)
        write(path, other, append=True, metadata=metadata, photometric="minisblack")
        with pytest.raises(FsisError, match=rf"2 images in one file: choose one with --series .*; 2: {told}\)$"):
            open_image(path)
        _assert_read(path, plane, series=1)
        stack = other.ndim == 3
        _assert_read(path, other[2] if stack else other, series=2, page=3 if stack else None)


@pytest.mark.parametrize("first", [True, False])
def test_a_preview_is_not_taken_unless_it_is_chosen(tmp_path, first):
    plane, preview = random_image(SIDE), random_image((7, 9), "u1")
    path = tmp_path / "a.tif"
    pages = [(preview, 1), (plane, 0)] if first else [(plane, 0), (preview, 1)]
    for metadata in {}, None:
        with tifffile.TiffWriter(path) as writer:
            for page, kind in pages:
                writer.write(page, subfiletype=kind, metadata=metadata)
        _assert_read(path, plane)
        _assert_read(path, preview, series=1 if first else 2)
        assert "7, a preview" in _message(path, series=3)


def test_a_preview_of_the_same_field_is_a_coarser_level(tmp_path):
    plane = random_image((40, 60))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(plane[::2, ::2], subfiletype=1, metadata=None)
        writer.write(plane, metadata=None)
    with open_image(tmp_path / "a.tif") as image:
        assert [level.shape for level in image.coarser] == [(20, 30)]
        np.testing.assert_array_equal(image[:, :], plane)


def test_what_lies_beside_a_slide_is_not_taken(tmp_path):
    tissue, macro = random_image((64, 80, 3), "u1"), random_image((20, 40, 3), "u1", seed=1)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for pixels, name in ((tissue, "scan.svs"), (macro, "label image"), (macro, "macro image")):
            writer.write(pixels, photometric="rgb", metadata={"axes": "YXS", "Name": name})
    _assert_read(path, tissue)
    _assert_read(path, macro, series="macro image")


def test_stacks_of_imagej_are_one_image(tmp_path):
    stack = random_image((3, 2, *SIDE))
    path = write(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    _assert_read(path, stack[1, 0], page=2, channel=1, series=1)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_second_sample_is_a_channel_unless_it_is_alpha(tmp_path, planar, compression):
    samples = random_image((*SIDE, 2), "u1")
    stored = np.ascontiguousarray(np.moveaxis(samples, 2, 0)) if planar == "separate" else samples
    options = {"photometric": "minisblack", "planarconfig": planar, "compression": compression, "metadata": None}
    path = write(tmp_path / "a.tif", stored, **options)
    assert "choose one plane with --channel 1..2" in _message(path)
    for channel in 1, 2:
        _assert_read(path, samples[..., channel - 1], channel=channel)
    for alpha in "assocalpha", "unassalpha":
        path = write(tmp_path / "alpha.tif", stored, extrasamples=[alpha], **options)
        _assert_read(path, samples[..., 0])
