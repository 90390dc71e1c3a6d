"""Colour maps that are only for display, those that are the picture, and those of label images."""

import numpy as np
import pytest
from PIL import Image
from tiff_files import random_image, write

from fsis_jax.io.colour_maps import is_for_display, is_grey
from fsis_jax.io.source import open_image

RAMP = np.arange(256, dtype=np.uint16) * 257
GREEN = np.stack([RAMP * 0, RAMP, RAMP * 0])
FIRE = np.stack([np.minimum(RAMP.astype(int) * 3, 65535), np.clip(RAMP.astype(int) * 3 - 65535, 0, 65535), RAMP[::-1]])
RANDOM = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)


def _read(path, **chosen):
    with open_image(path, **chosen) as image:
        return image[:, :]


def _palette_png(path, numbers, table, **options):
    picture = Image.fromarray(numbers, "L")
    picture = Image.frombytes("P", picture.size, numbers.tobytes())
    picture.putpalette((table >> 8).T.astype(np.uint8).tobytes())
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("table", [GREEN, FIRE.astype(np.uint16)])
@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}, {"compression": "zlib"}])
def test_a_table_for_display_leaves_the_measured_values(tmp_path, table, options):
    grey = random_image((20, 30), "u1")
    path = write(tmp_path / "a.tif", grey, photometric="palette", colormap=table, **options)
    np.testing.assert_array_equal(_read(path), grey)


def test_any_table_of_a_microscopes_file_is_for_display(tmp_path):
    stack = random_image((3, 20, 30), "u1")
    options = {"photometric": "palette", "colormap": RANDOM, "metadata": {"axes": "ZYX"}}
    path = write(tmp_path / "a.tif", stack, imagej=True, **options)
    np.testing.assert_array_equal(_read(path, page=2), stack[1])


def test_a_table_of_16_bits_is_for_display(tmp_path):
    grey = random_image((20, 30)) * 200
    table = np.random.default_rng(0).integers(0, 65536, (3, 65536)).astype(np.uint16)
    path = write(tmp_path / "a.tif", grey, photometric="palette", colormap=table)
    np.testing.assert_array_equal(_read(path), grey)


def test_few_colours_of_a_picture_are_the_picture(tmp_path):
    photo = np.random.default_rng(1).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    few = Image.fromarray(photo).resize((90, 80), Image.Resampling.BICUBIC).quantize(200)
    expected = np.asarray(few.convert("RGB"))
    for name in "a.png", "a.tif":
        few.save(tmp_path / name)
        np.testing.assert_array_equal(_read(tmp_path / name), expected)
    transparent = few.copy()
    transparent.save(tmp_path / "b.png", transparency=3)
    np.testing.assert_array_equal(_read(tmp_path / "b.png")[..., :3], expected)


def test_a_table_of_greys_is_grey(tmp_path):
    numbers = random_image((20, 30), "u1")
    for table in np.stack([RAMP] * 3), np.stack([RAMP[::-1]] * 3):
        for name in "a.png", "a.tif":
            if name == "a.png":
                path = _palette_png(tmp_path / name, numbers, table)
            else:
                path = write(tmp_path / name, numbers, photometric="palette", colormap=table, metadata=None)
            np.testing.assert_array_equal(_read(path), (table[0] >> 8)[numbers])


@pytest.mark.parametrize("table", [GREEN, RANDOM, np.stack([RAMP[::-1]] * 3)])
@pytest.mark.parametrize("transparent", [{}, {"transparency": 0}])
def test_labels_are_the_stored_numbers(tmp_path, table, transparent):
    labels = random_image((20, 30), "u1") % 9
    path = _palette_png(tmp_path / "a.png", labels, table, **transparent)
    np.testing.assert_array_equal(_read(path, labels=True), labels)
    for dtype in "u1", "u2":
        full = np.zeros((3, 65536 if dtype == "u2" else 256), np.uint16)
        full[:, :256] = table
        path = write(tmp_path / "a.tif", labels.astype(dtype), photometric="palette", colormap=full)
        np.testing.assert_array_equal(_read(path, labels=True), labels)
    path = write(tmp_path / "b.tif", labels, photometric="miniswhite")
    np.testing.assert_array_equal(_read(path, labels=True), labels)


def test_kinds_of_tables():
    low = [table.T.astype(int) >> 8 for table in (GREEN, FIRE, RANDOM)]
    assert [is_for_display(table) for table in low] == [True, True, False]
    marked = low[0].copy()  # "HiLo" marks what is saturated
    marked[0], marked[-1] = (0, 0, 255), (255, 0, 0)
    assert is_for_display(marked)
    assert is_grey(np.zeros((4, 3), np.uint8))
    assert not is_grey(marked)
    assert not is_for_display(np.zeros((2, 3), int))
