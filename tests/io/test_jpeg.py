"""JPEGs that are damaged inside, where most decoders give half an image and say nothing."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from fsis_jax.errors import FsisError
from fsis_jax.io.decoding import decode_image
from fsis_jax.io.source import open_image

_COLOURS = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8), (0, 0), 2)


def _jpeg(mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_COLOURS).convert(mode).save(buffer, "JPEG", quality=85, **options)
    return buffer.getvalue()


KINDS = {
    "baseline": _jpeg(),
    "grey": _jpeg("L"),
    "progressive": _jpeg(progressive=True),
    "full colour": _jpeg(subsampling=0),
    "restart markers": _jpeg(restart_marker_rows=1),
    "cmyk": _jpeg("CMYK"),
    "rgb": _jpeg(keep_rgb=True),
}


def _scan(data: bytes) -> int:
    """Where the first scan has its data."""
    start = data.index(b"\xff\xda") + 2
    return start + int.from_bytes(data[start : start + 2], "big")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_ones_are_what_opencv_reads(kind):
    expected = cv2.imdecode(np.frombuffer(KINDS[kind], np.uint8), cv2.IMREAD_UNCHANGED)
    expected = expected if expected.ndim == 2 else expected[..., ::-1]
    np.testing.assert_array_equal(decode_image(KINDS[kind], "a.jpg"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_that_ends_early(kind):
    start = _scan(KINDS[kind])
    for share in 0.2, 0.5, 0.9:
        cut = KINDS[kind][: int(start + share * (len(KINDS[kind]) - start))]
        with pytest.raises(FsisError, match=r"a\.jpg: (damaged|truncated) JPEG \(.*\): copy or export the file again$"):
            decode_image(cut + b"\xff\xd9", "a.jpg")


@pytest.mark.parametrize("kind", KINDS)
def test_what_libjpeg_warns_of_is_refused_and_the_rest_is_read(kind, capfd):
    data, rng, warned = KINDS[kind], np.random.default_rng(0), 0
    for place in rng.integers(_scan(data), len(data) - 70, 15):
        flipped = bytes([data[place] ^ 1 << rng.integers(8)])
        for rest in data[place + 64 :], bytes(64) + data[place + 64 :], flipped + data[place + 1 :]:
            damaged = data[:place] + rest
            capfd.readouterr()
            decoded = cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_UNCHANGED)
            if decoded is None or capfd.readouterr().err:  # where OpenCV leaves the warnings
                warned += 1
                with pytest.raises(FsisError, match=r"a\.jpg: (damaged|truncated) JPEG \(.*\): copy or export"):
                    decode_image(damaged, "a.jpg")
            else:
                decode_image(damaged, "a.jpg")
    assert warned > 15  # of 45: there is no checksum


def test_bytes_behind_the_end_and_a_thumbnail_do_not_matter():
    data, small = KINDS["baseline"], KINDS["grey"]
    thumbnail = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    whole = decode_image(data, "a.jpg")
    np.testing.assert_array_equal(decode_image(data[:2] + thumbnail + data[2:] + b"MakerNote", "a.jpg"), whole)
    with pytest.raises(FsisError, match="truncated JPEG"):
        decode_image(data[:2] + thumbnail + data[2:-2], "a.jpg")


def test_many_scans_of_a_large_image_are_not_begun():
    data = KINDS["progressive"]
    frame = data.index(b"\xff\xc2")
    data = data[: frame + 5] + b"\x27\x10\x27\x10" + data[frame + 9 : -2] + b"\xff\xda" * 30 + b"\xff\xd9"
    with pytest.raises(FsisError, match=r"a JPEG of 10000x10000 pixels in 40 scans: save it as PNG"):
        decode_image(data, "a.jpg")


def _tiled(tmp_path, change):
    """A TIFF of four tiles, of which the third one is changed."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, _COLOURS, tile=(128, 160), compression="jpeg", photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        start, count = tiff.pages.first.dataoffsets[2], tiff.pages.first.databytecounts[2]
    data = bytearray(path.read_bytes())
    data[start : start + count] = change(bytes(data[start : start + count]))
    path.write_bytes(data)
    return path


def test_tiles_of_a_tiff(tmp_path):
    with open_image(_tiled(tmp_path, lambda tile: tile)) as image:
        assert np.abs(image[:, :].astype(int) - _COLOURS).mean() < 4
    with open_image(_tiled(tmp_path, lambda tile: tile[:-302] + bytes(300) + tile[-2:])) as image:
        assert image[:128, :].shape == (128, 320, 3)  # the tiles that are whole
        with pytest.raises(FsisError, match=r"a\.tif: damaged data \(Corrupt JPEG data: .*\): copy or export"):
            image[128:, :]


def test_a_tile_that_declares_another_size(tmp_path):
    def enlarged(tile):
        start = tile.index(b"\xff\xc0") + 5
        return tile[:start] + b"\xff\xdc\xff\xdc" + tile[start + 4 :]

    message = "a part of 160 x 128 pixels that declares 65500 x 65500"
    with open_image(_tiled(tmp_path, enlarged)) as image, pytest.raises(FsisError, match=message):
        image[128:, :]
