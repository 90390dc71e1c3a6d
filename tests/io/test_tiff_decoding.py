"""A window of a compressed TIFF decodes the tiles that it touches, and each of them once."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from tiff_files import count_decoded, random_image, write

from fsis_jax.io import chunks
from fsis_jax.io.intensity import find_stretch
from fsis_jax.io.source import open_image


def test_one_window_of_a_large_image_decodes_its_tiles_only(tmp_path, monkeypatch):
    whole = np.zeros((2048, 2048), np.uint16)
    whole[600:800, 600:800] = random_image((200, 200))
    path = write(tmp_path / "a.tif", whole, compression="zlib", tile=(128, 128))
    decoded = count_decoded(monkeypatch)
    tracemalloc.start()
    try:
        with open_image(path) as image:
            assert not decoded
            np.testing.assert_array_equal(image[600:700, 600:800], whole[600:700, 600:800])
            most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded == [row * 16 + column for row in (4, 5) for column in (4, 5, 6)]
    assert most < whole.nbytes / 4


def test_nothing_is_decoded_twice(tmp_path, monkeypatch):
    whole = random_image((300, 400))
    path = write(tmp_path / "a.tif", whole, compression="zlib", tile=(64, 64))
    decoded = count_decoded(monkeypatch)
    with open_image(path) as image:
        for top in range(0, 300, 40):
            for left in range(0, 400, 50):
                window = np.s_[top : top + 90, left : left + 90]
                np.testing.assert_array_equal(image[window], whole[window])
        assert sorted(decoded) == list(range(5 * 7))
        stretch = find_stretch(image)
    assert stretch == find_stretch(whole)
    assert len(decoded) == 5 * 7


def test_rows_are_not_decoded_twice_even_if_a_row_of_tiles_exceeds_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CACHE_BYTES", 1000)
    whole = random_image((130, 400))
    path = write(tmp_path / "a.tif", whole, compression="zlib", tile=(64, 64))
    decoded = count_decoded(monkeypatch)
    with open_image(path) as image:
        rows = [image[y : y + 3, 0:400] for y in range(0, 130, 3)]
    np.testing.assert_array_equal(np.concatenate(rows), whole)
    assert len(decoded) == 3 * 7


def test_a_pyramid_of_subifds(tmp_path, monkeypatch):
    whole = random_image((2, 256, 320), "u1")
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
        writer.write(whole, subifds=2, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}, **options)
        for factor in 2, 4:
            writer.write(whole[:, ::factor, ::factor], subfiletype=1, **options)
    decoded = count_decoded(monkeypatch)
    with open_image(path, channel="gfp") as image:
        assert [level.shape for level in image.coarser] == [(128, 160), (64, 80)]
        for factor, level in ((1, image), (2, image.coarser[0]), (4, image.coarser[1])):
            expected = whole[1, ::factor, ::factor]
            decoded.clear()
            np.testing.assert_array_equal(level[20:33, 70:77], expected[20:33, 70:77])
            assert len(decoded) == 1
    with pytest.raises(ValueError, match="closed"):
        level[0:1, 0:1]
