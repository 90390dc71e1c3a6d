"""Opening what is not a TIFF, a Zarr folder or a slide; and finding image files."""

import pathlib
import struct
import zlib

import cv2
import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import decode_image
from fsis_jax.io.finding import image_files
from fsis_jax.io.source import open_image


def _png(path: pathlib.Path, image: np.ndarray) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())
    return path


def _random(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(tmp_path, dtype):
    whole = _random((40, 50, 3), dtype)
    path = _png(tmp_path / "a.png", whole)
    with open_image(path) as image:
        assert (image.path, image.shape, image.dtype) == (str(path), (40, 50, 3), dtype)
        assert (image.pixel_size, image.coarser) == (None, ())
        np.testing.assert_array_equal(image[30:99, 2:9], whole[30:99, 2:9])
    for channel, index in (("1", 0), ("green", 1), ("Blue", 2)):
        with open_image(path, channel=channel) as image:
            np.testing.assert_array_equal(image[3:9, 2:9], whole[3:9, 2:9, index])
    with pytest.raises(FsisError, match=r"a\.png: no channel 4: choose with --channel 1\.\.3 \(red, green, blue\)"):
        open_image(path, channel="4")
    grey = _png(tmp_path / "grey.png", whole[..., 0])
    with pytest.raises(FsisError, match=r"grey\.png: the image has one channel only"):
        open_image(grey, channel="1")
    with open_image(grey, channel="1", where_there=True) as image:
        np.testing.assert_array_equal(image[3:9, 2:9], whole[3:9, 2:9, 0])


def test_jpeg(tmp_path):
    path = _png(tmp_path / "a.jpg", np.full((20, 30, 3), 77, np.uint8))
    with open_image(path) as image:
        np.testing.assert_allclose(image[0:20, 10:99].astype(int), np.full((20, 20, 3), 77), atol=2)


@pytest.mark.parametrize("name", ["a.oib", "b.OIR", "c.lof", "d.vsi", "e.dcm"])
def test_formats_of_microscopes_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    suffix = name[1:].lower()
    with pytest.raises(FsisError, match=rf"{name}: {suffix} files are not read: export it as OME-TIFF \(Fiji: .*\)$"):
        open_image(tmp_path / name)


def test_what_is_no_image(tmp_path):
    for content, message in (
        (b"", "the file is empty: save"),
        (b"text", "not a PNG, JPEG or TIFF file: save"),
        (b"GIF89a", "not a PNG, JPEG or TIFF file"),
        (b"BM", "not a PNG, JPEG or TIFF file"),
    ):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(FsisError, match=f"x: {message}"):
            open_image(tmp_path / "x")
    with pytest.raises(FsisError, match="none: no such file: check the path"):
        open_image(tmp_path / "none")
    with pytest.raises(FsisError, match="a folder, and not an OME-Zarr image: give an image file"):
        open_image(tmp_path)


def test_declared_sizes_are_checked_before_decoding():
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 90_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    message = r"declares 100000x90000 pixels: save it as a tiled TIFF, which is read part by part"
    with pytest.raises(FsisError, match=rf"a\.png: {message}"):
        decode_image(png, "a.png")
    with pytest.raises(FsisError, match=r"a\.png: declares 0x5 pixels: copy or export"):
        decode_image(png.replace(struct.pack(">II", 100_000, 90_000), struct.pack(">II", 0, 5)), "a.png")
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 40_000, 50_000, 1) + b"\1\x11\0"
    with pytest.raises(FsisError, match=r"a\.jpg: declares 50000x40000 pixels: save it as a tiled TIFF"):
        decode_image(b"\xff\xd8" + frame + b"\xff\xda\0\x08\xff\xd9", "a.jpg")


def test_image_files_of_a_folder(tmp_path):
    for name in "a10.tif", "a2.PNG", "b.jpeg", "a2-labels.tif", "a2-overlay.png", ".hidden.png", "notes.txt", "c.svs":
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "plate.ome.zarr").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.tif").write_bytes(b"")
    names = ["a2.PNG", "a10.tif", "b.jpeg", "c.svs", "plate.ome.zarr"]
    assert image_files([str(tmp_path)]) == [str(tmp_path / name) for name in names]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FsisError, match=r"empty: a folder without images: give one that has some \(\.png, \.jpg, "):
        image_files([str(tmp_path / "empty")])


def test_image_files_of_patterns(tmp_path):
    for name in "a10.tif", "a2.tif", "x[1].tif", "a2-labels.tif", "more/deep/d.tif", "z.zarr/.zgroup", "z.zarr/0/c.tif":
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert image_files([f"{tmp_path}/a*.tif"]) == [f"{tmp_path}/a2.tif", f"{tmp_path}/a10.tif"]
    assert image_files([f"{tmp_path}/**/d.tif"]) == [f"{tmp_path}/more/deep/d.tif"]
    every = [f"{tmp_path}/{name}" for name in ("a2.tif", "a10.tif", "more/deep/d.tif", "x[1].tif")]
    assert image_files([f"{tmp_path}/**/*.tif"]) == every
    assert image_files([f"{tmp_path}/z*"]) == [f"{tmp_path}/z.zarr"]
    assert image_files([f"{tmp_path}/x[1].tif"]) == [f"{tmp_path}/x[1].tif"]
    with pytest.raises(FsisError, match=r"b\*\.tif: matches no image: check the pattern"):
        image_files([f"{tmp_path}/b*.tif"])
    with pytest.raises(FsisError, match=r"b\.tif: no such file: check the path"):
        image_files([f"{tmp_path}/b.tif"])


def test_image_files_are_listed_once_and_named_ones_always(tmp_path, monkeypatch):
    for name in "a.tif", "b.txt", "a-labels.tif":
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert image_files(["b.txt", "a.tif", "./a.tif", ".", "*.tif", "a-labels.tif"]) == [
        "b.txt",
        "a.tif",
        "a-labels.tif",
    ]
    assert image_files([]) == []


def test_what_is_not_read_is_told_in_a_line(tmp_path, caplog):
    for name in ("a.png", "a.bmp", "B.BMP", "c.oir", "README", ".DS_Store", "._a.png", "x-labels.tif", ".e.tif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    assert image_files([str(tmp_path)]) == [f"{tmp_path}/a.png"]
    told = "-labels.tif (1), .bmp (2), .oir (1), folder (1), hidden .tif (1), without a suffix (1)"
    assert caplog.messages == [f"{tmp_path}: 7 entries are not read: {told}"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(
        FsisError, match=r"a folder without images, only -labels.tif \(1\), .bmp \(2\), .*: give one that"
    ):
        image_files([str(tmp_path)])
    caplog.clear()
    image_files([f"{tmp_path}/[ac]*"])
    image_files([f"{tmp_path}/B.*"])
    assert caplog.messages == []  # what a pattern names is read, or refused


def test_results_are_passed_over_in_silence_where_there_is_their_record(tmp_path, caplog):
    for name in (
        "a.png",
        "a-labels.tif",
        "a-table.csv",
        "a.geojson",
        "images.jsonl",
        "summary.csv",
        "overlays.pdf",
        "notes.txt",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images.jsonl").write_bytes(b"")
    (tmp_path / "z.zarr" / "0").mkdir(parents=True)
    (tmp_path / "a.partial").mkdir()
    assert len(image_files([str(tmp_path)])) == 2
    assert caplog.messages == [f"{tmp_path}: 1 entry is not read: .txt (1)"]
    caplog.clear()
    image_files([f"{tmp_path}/**"])
    assert caplog.messages == []
