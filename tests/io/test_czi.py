"""Files of Zeiss, written by hand: planes, scenes, mosaics, pyramids, compressions, and what is damaged."""

import numpy as np
import pytest
from vendor_files import czi_xml, write_czi

from fsis_jax.errors import FsisError
from fsis_jax.io import czi as module
from fsis_jax.io.source import open_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, (48, 64), np.uint16)
COLOUR = RNG.integers(0, 255, (48, 64, 3), np.uint8)


@pytest.mark.parametrize("compression", [0, 2, 4, 5, 6])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, GREY.astype(np.uint8)], ids=["16 bit", "colour", "8 bit"])
def test_pixels_and_their_size(tmp_path, pixels, compression):
    if compression == 6 and pixels.dtype == np.uint8:
        pytest.skip("bytes are not packed")
    path = write_czi(tmp_path / "a.czi", [(pixels, {"X": 0, "Y": 0}, compression)], czi_xml(metres=3.25e-7))
    with open_image(path) as image:
        assert (image.shape, image.dtype) == (pixels.shape, pixels.dtype)
        assert image.pixel_size == pytest.approx(0.325)
        np.testing.assert_array_equal(np.asarray(image), pixels)
        np.testing.assert_array_equal(image[5:9, 60:70], pixels[5:9, 60:70])


def test_jpeg(tmp_path):
    smooth = np.repeat(np.repeat(COLOUR[::16, ::16], 16, 0), 16, 1)
    with open_image(write_czi(tmp_path / "a.czi", [(smooth, {"X": 0, "Y": 0}, 1)])) as image:
        np.testing.assert_allclose(np.asarray(image).astype(int)[4::16, 4::16], smooth[4::16, 4::16], atol=4)


def test_channels_z_and_t_are_chosen_as_in_ome_tiff(tmp_path):
    blocks = [
        (GREY + np.uint16(100 * c + 10 * z + t), {"X": 0, "Y": 0, "C": c, "Z": z, "T": t + 5}, 0)
        for c in range(2)
        for z in range(3)
        for t in range(2)
    ]
    path = write_czi(tmp_path / "a.czi", blocks, czi_xml(channels=("DAPI", "GFP")))
    with open_image(path, channel="gfp", page="Z3,T2") as image:
        np.testing.assert_array_equal(np.asarray(image), GREY + 100 + 20 + 1)
    with pytest.raises(FsisError, match=r"--page T1,Z1 \(T 1..2, Z 1..3\) and --channel 1..2 \(DAPI, GFP\)"):
        open_image(path)
    with pytest.raises(FsisError, match="no channel Cy5"):
        open_image(path, channel="Cy5", page="Z1,T1")


def test_three_channels_are_colours(tmp_path):
    blocks = [(GREY + np.uint16(c), {"X": 0, "Y": 0, "C": c}, 5) for c in range(3)]
    with open_image(write_czi(tmp_path / "a.czi", blocks)) as image:
        assert image.shape == (48, 64, 3)
        np.testing.assert_array_equal(image[0:48, 3:9], np.stack([GREY + np.uint16(c) for c in range(3)], -1)[:, 3:9])


def test_scenes_are_series(tmp_path):
    blocks = [(GREY, {"X": 0, "Y": 0, "S": 0}, 0), (GREY[:20] + np.uint16(7), {"X": 500, "Y": -30, "S": 1}, 0)]
    path = write_czi(tmp_path / "a.czi", blocks, czi_xml(scenes=("left", "right")))
    for wanted in ("2", "Right"):
        with open_image(path, series=wanted) as image:
            np.testing.assert_array_equal(np.asarray(image), GREY[:20] + 7)
    with pytest.raises(FsisError, match=r"2 images in one file: .*--series 1..2 \(1: left 64x48; 2: right 64x20\)"):
        open_image(path)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_mosaic_is_read_tile_by_tile(tmp_path, monkeypatch, pixels):
    places = [(0, 0), (0, 28), (26, 0)]  # they overlap, and the fourth is missing
    blocks = [
        (pixels[y : y + 22, x : x + 36], {"X": 100 + x, "Y": y - 40, "M": m}, 5) for m, (y, x) in enumerate(places)
    ]
    blocks[1] = (pixels[:22, 28:64] // 2, *blocks[1][1:])
    expected = np.full_like(pixels, 255 if pixels.ndim == 3 else 0)
    for m, (y, x) in enumerate(places):
        expected[y : y + 22, x : x + 36] = blocks[m][0]
    path = write_czi(tmp_path / "a.czi", blocks[::-1])  # in any order in the file
    decoded = []
    real = module.read_pixels
    monkeypatch.setattr(module, "read_pixels", lambda *given: decoded.append(1) or real(*given))
    with open_image(path) as image:
        assert image.shape == pixels.shape
        np.testing.assert_array_equal(image[30:40, 2:9], expected[30:40, 2:9])
        assert len(decoded) == 1
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert len(decoded) == 3  # the first one is kept


def test_a_pyramid_gives_coarser_levels(tmp_path):
    whole = [(GREY[:, x : x + 32], {"X": x, "Y": 0, "M": m}, 0) for m, x in enumerate((0, 32))]
    half = [(GREY[::2, x : x + 32 : 2], {"X": x, "Y": 0, "factor": 2, "M": m}, 0) for m, x in enumerate((0, 32))]
    part = [(GREY[:24:4, ::4], {"X": 0, "Y": 0, "factor": 4}, 0)]
    with open_image(write_czi(tmp_path / "a.czi", [*half, *part, *whole])) as image:
        assert image.shape == (48, 64)
        assert [level.shape for level in image.coarser] == [(24, 32)]  # one that lacks a part is none
        np.testing.assert_array_equal(np.asarray(image), GREY)
        np.testing.assert_array_equal(np.asarray(image.coarser[0]), GREY[::2, ::2])


def test_the_same_as_czifile(tmp_path):
    czifile = pytest.importorskip("czifile")
    blocks = [
        (GREY[y : y + 24, x : x + 32] + np.uint16(c), {"X": x, "Y": y, "C": c, "M": m}, 0)
        for c in range(2)
        for m, (y, x) in enumerate([(0, 0), (0, 32), (24, 0), (24, 32)])
    ]
    path = write_czi(tmp_path / "a.czi", blocks, czi_xml(metres=1e-6))
    expected = np.squeeze(czifile.imread(str(path)))
    for channel in (1, 2):
        with open_image(path, channel=channel) as image:
            np.testing.assert_array_equal(np.asarray(image), expected[channel - 1])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data[:600], r"a\.czi: truncated or damaged \.czi .*: copy or export the file again"),
        (lambda data: b"ZISRAWFILX" + data[10:], "truncated or damaged"),
        (lambda data: data.replace(b"ZISRAWDIRECTORY", b"ZISRAWSOMETHING"), "truncated or damaged .*ZISRAWSOMETHING"),
        (lambda data: data.replace(b"DV\x01\0", b"DV\x63\0"), "pixels of type 99 of Zeiss"),
    ],
)
def test_what_is_damaged(tmp_path, damage, problem):
    path = write_czi(tmp_path / "a.czi", [(GREY, {"X": 0, "Y": 0}, 0)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FsisError, match=problem):
        open_image(path)


def test_damaged_pixels_are_told_when_they_are_read(tmp_path):
    path = write_czi(tmp_path / "a.czi", [(GREY, {"X": 0, "Y": 0}, 5)])
    data = bytearray(path.read_bytes())
    data[544 + 32 + 256 :][:40]
    data[544 + 32 + 256 : 544 + 32 + 356] = bytes(100)
    path.write_bytes(data)
    with open_image(path) as image, pytest.raises(FsisError, match=r"a\.czi: damaged data"):
        image[0:9, 0:9]
