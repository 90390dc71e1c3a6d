"""TIFFs of every writer: layouts, compressions, types and colours."""

import os
import pathlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from tiff_files import random_image, write

from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import read_image, to_rgb8
from fsis_jax.io.source import open_image

COMPRESSIONS = [None, "zlib", "lzw", "zstd", "packbits", "deflate"]
LAYOUTS = [
    {},
    {"bigtiff": True},
    {"byteorder": ">"},
    {"rowsperstrip": 7},
    {"tile": (16, 32)},
    *({"compression": name, "tile": (32, 16)} for name in COMPRESSIONS[1:]),
    *({"compression": name, "rowsperstrip": 9} for name in COMPRESSIONS[1:]),
    {"compression": "zlib", "predictor": True, "tile": (16, 16), "byteorder": ">"},
]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "extra"),
    [
        ((70, 55), {}),
        ((70, 55, 3), {"photometric": "rgb"}),
        ((3, 70, 55), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_windows_are_those_of_the_whole_image(tmp_path, options, shape, extra):
    stored = random_image(shape)
    path = write(tmp_path / "a.tif", stored, **options, **extra)
    whole = np.moveaxis(stored, 0, -1) if shape[0] == 3 else stored
    with open_image(path) as image:
        assert (image.shape, image.dtype, image.coarser) == (whole.shape, np.uint16, ())
        for window in np.s_[0:70, 0:55], np.s_[3:4, 5:50], np.s_[31:33, 15:17], np.s_[60:200, 50:51], np.s_[:9, :]:
            part = image[window]
            assert part.dtype == np.uint16
            assert part.dtype.isnative
            np.testing.assert_array_equal(part, whole[window])
        assert image[5:5, 3:9].shape == whole[5:5, 3:9].shape
        assert image[90:95, 3:9].shape == whole[90:95, 3:9].shape
    np.testing.assert_array_equal(read_image(path), whole)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_window_equals_numpys(tmp_path_factory, data):
    whole = random_image((45, 61, 3), "u1")
    path = tmp_path_factory.getbasetemp() / "any.tif"
    if not path.exists():
        write(path, whole, compression="zlib", tile=(16, 16), photometric="rgb")
    limit = st.one_of(st.none(), st.integers(0, 70))
    window = tuple(slice(data.draw(limit), data.draw(limit)) for _ in range(2))
    with open_image(path) as image:
        np.testing.assert_array_equal(image[window], whole[window])


def test_slices_are_plain(tmp_path):
    with open_image(write(tmp_path / "a.tif", random_image((9, 8)))) as image:
        for window in np.s_[0:9:2, 0:8], np.s_[-3:9, 0:8], np.s_[0:9, 0:-1]:
            with pytest.raises(ValueError, match="step 1"):
                image[window]
    with pytest.raises(ValueError, match="after it was closed"):
        image[0:2, 0:2]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("f2", "f4"), (">f4", "f4"), ("f8", "f8"), ("i4", "i4"), ("u4", "u4"), ("u8", "u8"), ("i1", "i1")],
)
def test_dtypes(tmp_path, name, dtype):
    stored = random_image((20, 30), "u1").astype(name)
    for options in {}, {"compression": "zlib"}:
        with open_image(write(tmp_path / "a.tif", stored, **options)) as image:
            assert image.dtype == dtype
            assert image[0:20, 0:30].dtype == dtype
            np.testing.assert_array_equal(image[3:9, 4:11], stored[3:9, 4:11].astype(dtype))


def test_bilevel_white_and_packed_levels(tmp_path):
    mask = random_image((20, 30), "u1") > 99
    np.testing.assert_array_equal(read_image(write(tmp_path / "mask.tif", mask)), mask.astype(np.uint8) * 255)
    levels = random_image((20, 30)) % 4096
    path = write(tmp_path / "white.tif", levels, photometric="miniswhite", compression="lzw")
    with open_image(path) as image:
        np.testing.assert_array_equal(image[4:9, 5:7], 65535 - levels[4:9, 5:7])


def test_four_bits_take_the_range_of_eight(tmp_path):
    data = np.array([[0x01, 0x2F]], np.uint8)
    path = write(tmp_path / "a.tif", data, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(4)
        tiff.pages[0].tags["BitsPerSample"].overwrite(4)
    with open_image(path) as image:
        np.testing.assert_array_equal(image[0:1, 0:4], [[0, 17, 34, 255]])


def test_jpeg_compression(tmp_path):
    ramp = np.repeat(np.linspace(0, 255, 96, dtype=np.uint8)[None], 64, axis=0)
    colours = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 128)], axis=2)
    path = write(tmp_path / "a.tif", colours, compression="jpeg", tile=(32, 32), photometric="rgb")
    with open_image(path) as image:
        assert np.abs(image[10:40, 20:90].astype(int) - colours[10:40, 20:90]).mean() < 4


def test_a_whole_image_of_a_file_is_ones_own(tmp_path):
    path = write(tmp_path / "a.tif", random_image((20, 30), "u1"))
    image = read_image(path)
    image[0, 0] = 7
    assert to_rgb8(image)[0, 0].tolist() == [7, 7, 7]


def test_closing_lets_go_of_the_file(tmp_path):
    handles = pathlib.Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("Linux tells what is open")

    def is_open() -> bool:
        return any(str(handle.resolve()) == str(path.resolve()) for handle in handles.iterdir())

    path = write(tmp_path / "let-go.tif", random_image((20, 30)))
    with open_image(path):
        assert is_open()
    assert not is_open()


def test_a_file_that_is_cut_off_while_it_is_open_is_an_error(tmp_path):
    whole = random_image((2000, 300))
    for options in {}, {"compression": "zlib", "tile": (256, 256)}:
        path = write(tmp_path / "live.tif", whole, **options)
        with open_image(path) as image:
            np.testing.assert_array_equal(image[0:2, 0:9], whole[0:2, 0:9])
            os.truncate(path, 5000)
            with pytest.raises(FsisError, match=r"live\.tif: cut off since it was opened \(\d+ bytes left of \d+\)"):
                image[:, :]


def test_a_window_of_a_wide_plane_reads_its_part_of_each_row(tmp_path, monkeypatch):
    whole = random_image((50, 100_000))
    counts = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, count, place: counts.append(count) or pread(handle, count, place))
    with open_image(write(tmp_path / "wide.tif", whole, byteorder=">")) as image:
        np.testing.assert_array_equal(image[7:30, 501:900], whole[7:30, 501:900])
        assert counts == [2 * 399] * 23
        counts.clear()
        np.testing.assert_array_equal(image[:, :], whole)
        assert len(counts) == 2
