"""What can be told of a picture without looking at it."""

import dataclasses

import numpy as np
import pytest

from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.io.overlay import draw_overlay


def _disc(y: int, x: int, radius: int) -> CroppedMask:
    return CroppedMask(y, x, np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) < radius + 0.5)


def _instances(masks: list[CroppedMask], size: tuple[int, int]) -> Instances:
    count = len(masks)
    return Instances(np.zeros((count, 4), np.float32), np.linspace(0.9, 0.5, count), tuple(masks), size)


def _colours_at(picture: np.ndarray) -> np.ndarray:
    """Distinct strong colours of a picture whose image is grey."""
    pixels = picture.reshape(-1, 3).astype(int)
    return np.unique(pixels[np.ptp(pixels, axis=1) > 120], axis=0)


@pytest.mark.parametrize(("size", "factor"), [((100, 160), 5), ((512, 511), 2), ((300, 800), 1), ((8, 8), 8)])
def test_small_images_are_enlarged(size: tuple[int, int], factor: int) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    picture = draw_overlay(image, _instances([], size))
    assert picture.shape == (size[0] * factor, size[1] * factor, 3)
    assert np.ptp(picture) == 0
    assert picture is not image


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("size", [(100, 100), (900, 900)])
def test_the_outline_lies_on_the_border_and_the_image_stays_visible(grey: int, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), grey, np.uint8)
    picture = draw_overlay(image, _instances([_disc(20, 30, 15)], size), text=None).astype(int)
    factor = picture.shape[0] // size[0]
    centre, outside = picture[35 * factor, 45 * factor], picture[5 * factor, 5 * factor]
    assert outside.tolist() == [grey] * 3
    assert np.abs(centre - grey).max() < 0.2 * 255  # a light tint
    changed = np.flatnonzero(np.abs(picture[35 * factor] - grey).max(axis=1) > 60)
    near = np.minimum(np.abs(changed - 30 * factor), np.abs(changed - 61 * factor))
    assert len(changed)
    assert near.max() <= factor + 3


def test_neighbours_have_other_colours() -> None:
    size = (120, 120)
    masks = [_disc(y, x, 9) for y in range(5, 100, 22) for x in range(5, 100, 22)]
    image = np.zeros((*size, 3), np.uint8)
    picture = draw_overlay(image, _instances(masks, size), text=None)
    factor = picture.shape[0] // size[0]
    centres = np.array([picture[(m.y + 9) * factor, (m.x + 9) * factor] for m in masks], int).reshape(5, 5, 3)
    for axis in (0, 1):
        assert np.abs(np.diff(centres, axis=axis)).max(axis=2).min() > 5  # of a tint of 14%
    assert len(np.unique(centres.reshape(-1, 3), axis=0)) >= 8


def test_text_is_written_where_it_fits() -> None:
    size = (200, 200)
    image = np.zeros((*size, 3), np.uint8)
    large, small = _instances([_disc(50, 50, 40)], size), _instances([_disc(50, 50, 1)], size)
    silent = draw_overlay(image, large, text=None)
    numbered, scored = draw_overlay(image, large), draw_overlay(image, large, text="score")
    assert np.any(numbered != silent)
    assert np.any(scored != numbered)
    np.testing.assert_array_equal(draw_overlay(image, small), draw_overlay(image, small, text=None))


def test_references_stand_on_the_left() -> None:
    size = (900, 1000)
    image = np.full((*size, 3), 90, np.uint8)
    crops = [np.full((10, 20, 3), (250, 0, 0), np.uint8), np.full((300, 200, 3), (0, 250, 0), np.uint8)]
    picture = draw_overlay(image, _instances([], size), references=crops)
    strip = picture.shape[1] - 1000
    assert picture.shape[0] == 900
    assert strip > 100
    assert np.all(picture[:, strip:] == 90)
    assert _colours_at(picture[:, :strip]).tolist() == [[0, 250, 0], [250, 0, 0]]
    # A strip that is higher than the image lengthens the picture.
    flat = draw_overlay(image[:100], _instances([], (100, 1000)), references=crops * 2)
    assert flat.shape[0] > 400
    assert np.all(flat[:100, strip:] == 90)


def test_an_empty_mask_is_no_trouble() -> None:
    empty = CroppedMask(0, 0, np.zeros((0, 0), bool))
    image = np.zeros((50, 50, 3), np.uint8)
    assert draw_overlay(image, _instances([empty, _disc(10, 10, 5)], (50, 50))).max() > 0


def test_cells_lie_in_place_on_a_shrunk_image() -> None:
    image = np.full((900, 1000, 3), 128, np.uint8)
    picture = draw_overlay(image, _instances([_disc(1200, 1500, 150)], (2700, 3000)), text=None, scale=1 / 3)
    changed = np.argwhere(np.abs(picture.astype(int) - 128).max(axis=2) > 60)
    np.testing.assert_allclose(changed.min(axis=0), [400, 500], atol=3)
    np.testing.assert_allclose(changed.max(axis=0), [500, 600], atol=3)


def test_thousands_of_cells_are_coloured_by_their_neighbours() -> None:
    masks = [_disc(y, x, 4) for y in range(0, 1000, 11) for x in range(0, 1000, 11)]
    picture = draw_overlay(np.zeros((1000, 1000, 3), np.uint8), _instances(masks, (1000, 1000)), text=None)
    centres = picture[4:994:11, 4:994:11].astype(int)
    for axis in (0, 1):
        assert np.abs(np.diff(centres, axis=axis)).max(axis=2).min() > 5


def test_of_many_references_the_first_ten_are_shown() -> None:
    image, crop = np.zeros((300, 300, 3), np.uint8), np.full((9, 9, 3), 200, np.uint8)
    none = Instances.none((300, 300))
    ten = draw_overlay(image, none, references=[crop] * 10)
    assert draw_overlay(image, none, references=[crop] * 200).shape == ten.shape


def test_keypoints_are_drawn_with_the_lines_that_join_them() -> None:
    size = (120, 200)
    image = np.full((*size, 3), 128, np.uint8)
    plain = _instances([_disc(10, 20, 40)], size)
    points = np.zeros((1, 17, 3), np.float32)
    points[0, :, 0], points[0, :, 1] = 60.5 + 2 * np.arange(17), 50.5
    points[0, 5] = (30.5, 40.5, 0.7)  # the left shoulder
    points[0, 7] = (30.5, 80.5, 0.7)  # the left elbow
    posed = dataclasses.replace(plain, keypoints=points)
    before, after = (draw_overlay(image, found, text=None).astype(int) for found in (plain, posed))
    factor = before.shape[0] // size[0]
    changed = np.abs(after - before).max(2) > 40
    place = slice(40 * factor, 41 * factor), slice(30 * factor, 31 * factor)
    assert after[place].min(2).max() > 240  # a white dot
    arm = changed[60 * factor, 25 * factor : 36 * factor]
    assert arm.any()
    assert np.ptp(np.flatnonzero(arm)) <= 6
    assert not changed[:, 100 * factor :].any()
    five = dataclasses.replace(plain, keypoints=points[:, :5])
    assert five.skeleton == ()
    dots = np.abs(draw_overlay(image, five, text=None).astype(int) - before).max(2) > 40
    assert 0 < dots.sum() < 5 * (2 * 5) ** 2
