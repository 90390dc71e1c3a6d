"""Whole slides: pyramids with the suffix of a slide, with OpenSlide and without it."""

import pathlib

import numpy as np
import pytest
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io import slides
from fsis_jax.io.source import open_image

openslide = pytest.importorskip("openslide")

APERIO = "Aperio Image Library v11.2.1\r\n512x384 [0,0 512x384] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"


def _write(path: pathlib.Path, *, description: str | None = None) -> np.ndarray:
    rows, columns = np.mgrid[:384, :512]
    image = np.stack([rows * 255 // 384, columns * 255 // 512, (rows + columns) // 4], axis=2).astype(np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for level, factor in enumerate((1, 2, 4)):
            writer.write(
                image[::factor, ::factor],
                photometric="rgb",
                tile=(64, 64),
                compression="jpeg" if description else None,
                compressionargs={"level": 98} if description else None,
                subfiletype=0 if level == 0 or description else 1,
                description=description,
                metadata=None,
            )
            if description and level == 0:  # the second page of such files is a thumbnail in strips
                writer.write(image[::8, ::8], photometric="rgb", description=description, metadata=None)
    return image


@pytest.mark.parametrize("without", [False, True])
@pytest.mark.parametrize("description", [None, APERIO])
def test_a_slide_and_its_levels(tmp_path, monkeypatch, without, description):
    whole = _write(tmp_path / "a.svs", description=description)
    if without:
        monkeypatch.setattr(slides, "openslide", None)
    tolerance = 6 if description else 0
    with open_image(tmp_path / "a.svs") as image:
        assert (image.shape, image.dtype) == ((384, 512, 3), np.uint8)
        assert image.pixel_size == (0.499 if description else None)
        for window in np.s_[0:384, 0:512], np.s_[60:70, 50:200], np.s_[380:500, 511:], np.s_[5:5, 0:9]:
            np.testing.assert_allclose(image[window].astype(int), whole[window], atol=tolerance)
        assert [level.shape for level in image.coarser] == [(192, 256, 3), (96, 128, 3)]
        coarse = image.coarser[1][30:70, 64:128]
        np.testing.assert_allclose(coarse.astype(int), whole[120:280:4, 256:512:4], atol=tolerance)
    with open_image(tmp_path / "a.svs", channel="blue") as image:
        np.testing.assert_allclose(image[60:70, 50:90].astype(int), whole[60:70, 50:90, 2], atol=tolerance)
    with pytest.raises(FsisError, match=r"a\.svs: the image has one page only"):
        open_image(tmp_path / "a.svs", page="2")


def test_what_was_not_scanned_is_white(tmp_path, monkeypatch):
    _write(tmp_path / "a.svs")

    def read_region(slide: object, place: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        region = np.zeros((size[1], size[0], 4), np.uint8)
        region[..., 0], region[0, 0, 3], region[0, 1, 3] = 100, 255, 51
        return region

    monkeypatch.setattr(openslide.OpenSlide, "read_region", read_region)
    with open_image(tmp_path / "a.svs") as image:
        assert image[0:1, 0:3].tolist() == [[[100, 0, 0], [224, 204, 204], [255, 255, 255]]]


def test_slides_that_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0 a JPEG beside the slide's data")
    with pytest.raises(FsisError, match=r"a\.mrxs: not a slide that OpenSlide knows: copy it again with all files"):
        open_image(tmp_path / "a.mrxs")
    monkeypatch.setattr(slides, "openslide", None)
    with pytest.raises(
        FsisError, match=r'a\.mrxs: a whole slide, which needs OpenSlide: pip install "fsis_jax\[slides\]"'
    ):
        open_image(tmp_path / "a.mrxs")
    with pytest.raises(FsisError, match=r"none\.svs: no such file"):
        open_image(tmp_path / "none.svs")


def test_a_damaged_slide(tmp_path):
    _write(tmp_path / "a.svs", description=APERIO)
    data = bytearray((tmp_path / "a.svs").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.svs") as tiff:
        start, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    data[start : start + count] = bytes(count)
    (tmp_path / "a.svs").write_bytes(data)
    with open_image(tmp_path / "a.svs") as image, pytest.raises(FsisError, match=r"a\.svs: damaged data") as caught:
        image[0:10, 0:10]
    assert "\n" not in str(caught.value)
