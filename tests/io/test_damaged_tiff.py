"""TIFFs that are cut off, damaged or absurd: one line, and nothing decoded for nothing."""

import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_files import count_decoded, random_image, write

from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import read_image
from fsis_jax.io.source import open_image


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (32, 32)}])
@pytest.mark.parametrize("kept", [0.97, 0.5, 0.05, 0.001])
def test_a_file_that_was_cut_off_is_found_when_it_is_opened(tmp_path, options, kept):
    path = write(tmp_path / "cut.tif", random_image((200, 150)), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(FsisError, match=r"cut\.tif: (truncated|damaged|not a PNG|the file is empty)") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_tile_is_an_error_of_its_window_alone(tmp_path):
    whole = random_image((128, 128))
    path = write(tmp_path / "a.tif", whole, compression="zlib", tile=(64, 64))
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    with open_image(path) as image:
        np.testing.assert_array_equal(image[0:128, 0:64], whole[:, :64])
        with pytest.raises(FsisError, match=r"a\.tif: damaged data \(.+\): copy or export the file again") as caught:
            image[60:70, 60:70]
    assert "\n" not in str(caught.value)
    with pytest.raises(FsisError, match="damaged data"):
        read_image(path)


def test_no_log_lines_of_tifffile(tmp_path, capfd):
    path = write(
        tmp_path / "a.tif", random_image((5, 60, 50)), photometric="minisblack", compression="zlib", metadata=None
    )
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(FsisError):
        open_image(path, page="5")
    assert capfd.readouterr() == ("", "")


def _declare(path: pathlib.Path, **tags: int) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in tags.items():
            tiff.pages[0].tags[name].overwrite(value)


def test_nonsense_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    decoded = count_decoded(monkeypatch)
    path = write(tmp_path / "a.tif", random_image((20, 30)), compression="zlib", metadata=None)
    _declare(path, ImageWidth=1 << 20, ImageLength=1 << 15, RowsPerStrip=1 << 15)
    with pytest.raises(
        FsisError, match=r"compressed in parts of 1 x 32768 x 1048576 x 1 \(65536 MiB\): save it in tiles"
    ):
        open_image(path)
    path = write(tmp_path / "b.tif", random_image((20, 30)), metadata=None)
    _declare(path, ImageWidth=1 << 20, ImageLength=1 << 15, RowsPerStrip=1 << 15)
    with pytest.raises(FsisError, match=r"b\.tif: truncated TIFF"):
        open_image(path)
    _declare(path, ImageWidth=1 << 20, ImageLength=1 << 18, RowsPerStrip=1 << 18)
    with pytest.raises(FsisError, match=r"b\.tif: declares 1048576x262144 pixels: export a part"):
        open_image(path)
    path = write(tmp_path / "c.tif", random_image((20, 30)), metadata=None)
    _declare(path, ImageLength=0)
    with pytest.raises(FsisError, match=r"c\.tif: "):
        open_image(path)
    for name, image in (("d.tif", np.zeros((4, 4), np.complex64)), ("e.tif", np.zeros((4, 4), np.complex128))):
        with pytest.raises(FsisError, match=f"{name}: pixels of type complex"):
            open_image(write(tmp_path / name, image))
    for photometric, channels, name in (("separated", 4, "CMYK"), ("cielab", 3, "Lab"), ("logluv", 3, "LogLuv")):
        path = write(tmp_path / "f.tif", random_image((20, 30, channels), "u1"), photometric=photometric)
        with pytest.raises(FsisError, match=rf"f\.tif: colours as {name}: save the image as RGB"):
            open_image(path)
    path = tmp_path / "g.tif"
    Image.fromarray(random_image((20, 30, 3), "u1")).convert("YCbCr").save(path)
    with pytest.raises(FsisError, match=r"g\.tif: colours as YCbCr: save the image as RGB"):
        open_image(path)
    assert not decoded


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}, {"ome": True}, {"imagej": True}])
def test_damaged_bytes_are_one_line_errors_or_pixels(tmp_path, options):
    path = write(tmp_path / "a.tif", random_image((4, 40, 30), "u1"), photometric="minisblack", **options)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, 900, 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            with open_image(path, page="2", channel="2", where_there=True) as image:
                assert image[0:9, 0:9].ndim in (2, 3)
        except FsisError as error:
            messages.append(str(error))
    assert messages
    assert not [message for message in messages if "\n" in message or "a.tif: " not in message]
