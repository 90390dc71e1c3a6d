"""At which scale, on which canvas and in which tiles images are read, and that no image is copied for it."""

import dataclasses
import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
import tiny

from fsis_jax.config import base_config
from fsis_jax.errors import FsisError
from fsis_jax.inference.tile_plan import plan_tiles, size_groups
from fsis_jax.io.intensity import find_stretch
from fsis_jax.preprocess.transform_config import transform_config
from fsis_jax.preprocess.transforms import resize, to_8bit
from fsis_jax.recipes import compact_config


@dataclasses.dataclass(frozen=True)
class Lazy:
    """A stand-in for a file that is read when it is sliced; notes the most pixels that were asked for at once."""

    pixels: np.ndarray
    asked: list[int] = dataclasses.field(default_factory=list)

    @property
    def shape(self):
        return self.pixels.shape

    @property
    def dtype(self):
        return self.pixels.dtype

    def __getitem__(self, window):
        part = self.pixels[window]
        self.asked.append(part.shape[0] * part.shape[1])
        return part


def planned(config, image, *sides, tile=0):
    if isinstance(image, tuple):
        image = np.zeros(image, np.uint8)
    return plan_tiles(image, np.array(sides, np.float32), config, transform_config(config), tile)


def test_targets_are_read_at_the_scale_of_the_references():
    """28 pixels is the size that config.data.transform.reference_pixels asks for; the canvases are 64 and 96."""
    config = tiny.get_config()
    for sides, scale in (([(28, 28)], 1), ([(14, 56)], 1), ([(56, 56)], 0.5), ([(20, 20), (56, 56), (90, 90)], 0.5)):
        plan = planned(config, (60, 80), *sides)
        assert plan.scale == pytest.approx(scale)
        assert len(plan.tiles) == 1
        assert plan.window == (60, 80)
    assert planned(config, (60, 80), (56, 56)).canvas == (64, 64)
    assert planned(config, (60, 80), (28, 28)).canvas == (96, 96)


def test_a_larger_image_is_read_in_tiles_at_the_same_scale():
    config = tiny.get_config()
    plan = planned(config, (60, 80), (14, 14))
    assert plan.scale == 2
    # On 96x96 more cells of 28 pixels have room than the model may give, 8.
    assert plan.canvas == plan.extent == (64, 64)
    assert plan.window == (32, 32)
    assert len(plan.tiles) == 3 * 4  # which overlap by half a window, not by the two cells that the config asks for
    assert plan.margin == 4
    narrow = planned(config, (1000, 40), (28, 28))
    assert narrow.window == (64, 40)
    assert narrow.scale == 1
    assert narrow.extent == (64, 40)


def test_the_canvas_of_tiles_does_not_depend_on_the_image():
    config = compact_config()
    for side in (1100, 2048, 8192):
        plan = planned(config, (side, side), (28, 28))
        # 400 cells of 28 pixels cover 560x560.
        assert (plan.canvas, plan.extent) == ((512, 512), (512, 512))
        for starts in ({tile.window.y0 for tile in plan.tiles}, {tile.window.x0 for tile in plan.tiles}):
            assert len(starts) > 1
            assert all(b - a <= 512 - 56 for a, b in itertools.pairwise(sorted(starts)))
    assert planned(config, (1024, 1024), (28, 28)).canvas == (1024, 1024)
    config.model.detections.max_instances = 2000
    assert planned(config, (2048, 2048), (28, 28)).canvas == (1024, 1024)
    config.data.tile_overlap = 3.0
    assert planned(config, (2048, 2048), (20, 40), (28, 28)).margin == 3 * 40 / 4


@pytest.mark.parametrize(
    ("size", "side", "overlap"),
    [
        ((2048, 50), 28, 56),
        ((50, 2048), 28, 56),
        ((2048, 56), 28, 56),
        ((3000, 1), 28, 56),
        ((1, 3000), 28, 56),
        ((5000, 100), 60, 120),
    ],
)
def test_thin_images_are_read_in_a_row_of_tiles(size, side, overlap):
    """An overlap of more than the image's own width."""
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    plan = planned(compact_config(), image, (side, side))
    assert len(plan.tiles) > 1
    assert min(plan.window) == min(size)
    assert plan.margin == overlap / 4
    assert plan.prepare(plan.tiles[-1]).shape == (*plan.canvas, 3)


def test_models_with_a_fixed_shortest_side_read_tiles_when_told():
    config = base_config()
    whole = planned(config, (4000, 4000), (50, 50))
    assert (len(whole.tiles), whole.scale, whole.canvas) == (1, 600 / 4000, (608, 608))
    tiled = planned(config, (4000, 4000), (50, 50), tile=1200)
    assert (tiled.window, tiled.scale, tiled.canvas) == ((1200, 1200), 0.5, (608, 608))
    assert len(tiled.tiles) == 16
    assert len(planned(config, (1000, 1200), (50, 50), tile=1200).tiles) == 1
    assert planned(config, (2000, 100), (50, 50), tile=400).window == (400, 100)
    with pytest.raises(FsisError, match="tiles of 20 pixels: give a side of at least 32"):
        planned(config, (4000, 4000), (50, 50), tile=20)
    with pytest.raises(FsisError, match=r"an image of shape \(4, 5, 2\): give"):
        planned(config, (4, 5, 2), (2, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tile_is_a_part_of_the_stretched_image(dtype):
    config = tiny.get_config()
    rng = np.random.default_rng(0)
    image = Lazy(np.cumsum(rng.random((300, 200, 3)), axis=0).astype(dtype))
    plan = planned(config, image, (28, 28))
    levels = to_8bit(image.pixels, transform_config(config))
    assert len(plan.tiles) > 20
    for tile in plan.tiles:
        part = levels[tile.window.y0 : tile.window.y1, tile.window.x0 : tile.window.x1]
        np.testing.assert_array_equal(plan.prepare(tile), resize(part, plan.scale))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_memory_does_not_grow_with_the_image(dtype):
    config = compact_config()

    def peak(side):
        image = Lazy(np.zeros((side, side), dtype))
        image.pixels[::3] = 7
        tracemalloc.start()
        plan = planned(config, image, (28, 28))
        for tile in plan.tiles[:3]:
            plan.prepare(tile)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(image.asked) <= 2**20
        return most

    small, large = peak(2048), peak(4096)
    assert large < small + 2**20


def _speckled(size, level=100, noise=3.0):
    """Background: a level with the noise of a camera."""
    return np.random.default_rng(1).normal(level, noise, size).clip(0, 255).astype(np.uint8)


def _with_discs(image, centres, contrast):
    """Cells of 28 pixels."""
    rows, columns = np.mgrid[-14:14, -14:14]
    for y, x in centres:
        part = image[y - 14 : y + 14, x - 14 : x + 14]
        part[rows**2 + columns**2 < 14**2] += np.uint8(contrast)
    return image


def _cluster(y, x, side=5):
    """Enough cells that the stretch is theirs, not the noise's."""
    return list(itertools.product(range(y, y + 40 * side, 40), range(x, x + 40 * side, 40)))


def test_tiles_that_show_nothing_are_not_prepared():
    config = compact_config()
    image = _with_discs(_speckled((1600, 1600)), _cluster(50, 60), 120)
    image = _with_discs(image, [(1000, 1010)], 30)  # a faint one far away
    plan = planned(config, image, (28, 28))
    shown = [tile for tile in plan.tiles if plan.prepare(tile) is not None]
    assert 2 <= len(shown) <= len(plan.tiles) // 2
    for y, x in ((50, 60), (1000, 1010)):
        holding = [t.window for t in plan.tiles if t.window.y0 < y < t.window.y1 and t.window.x0 < x < t.window.x1]
        assert holding
        assert all(any(tile.window == window for tile in shown) for window in holding)
    config.data.background_contrast = 0
    assert all(tile is not None for tile in map(planned(config, image, (28, 28)).prepare, plan.tiles))


@pytest.mark.parametrize(("image", "shows"), [(np.zeros((300, 300), np.uint8), False), (_speckled((300, 300)), True)])
def test_an_image_of_one_tile_is_prepared_unless_it_is_of_one_value(image, shows):
    plan = planned(compact_config(), image, (28, 28))
    assert (plan.prepare(plan.tiles[0]) is not None) == shows


@dataclasses.dataclass(frozen=True)
class Slide(Lazy):
    """A pyramid."""

    coarser: tuple[Lazy, ...] = ()


def test_empty_tiles_of_a_pyramid_are_only_read_in_a_coarse_level():
    image = _with_discs(_speckled((3000, 3200)), _cluster(100, 100, side=8), 120)
    means = [cv2.resize(image, None, fx=1 / f, fy=1 / f, interpolation=cv2.INTER_AREA) for f in (2, 4, 16)]
    slide = Slide(image, coarser=tuple(Lazy(level) for level in means))
    plan = planned(compact_config(), slide, (28, 28))
    assert plan.grain == 7
    assert plan.stretch is not None
    slide.asked.clear()
    shown = sum(plan.prepare(tile) is not None for tile in plan.tiles)
    assert 1 <= shown <= 4
    assert len(slide.asked) == shown  # tiles of the full resolution
    assert len(slide.coarser[1].asked) == len(plan.tiles)  # 4 is the coarsest within a quarter of a cell
    assert not slide.coarser[2].asked


def test_the_stretch_of_a_pyramid_comes_from_a_coarse_level_with_enough_pixels():
    image = _speckled((4200, 4200))
    levels = tuple(Lazy(image[::factor, ::factor]) for factor in (2, 4))
    slide = Slide(image, coarser=levels)
    plan = planned(compact_config(), slide, (28, 28))
    assert plan.stretch == find_stretch(levels[0].pixels)
    assert levels[0].asked
    assert not levels[1].asked  # a megapixel
    assert not slide.asked


def _fixed_side():
    """A model that reads every image as a whole, at 600 by at most 1000 pixels."""
    config = base_config()
    assert config.data.transform.scale == "shortest_side"
    return config


def test_a_slide_is_read_in_a_coarse_level_where_the_scale_is_small():
    noise = np.random.default_rng(2).normal(128, 1500, (2400, 3200))
    image = cv2.GaussianBlur(noise, (0, 0), 12).clip(0, 255).astype(np.uint8)
    means = [cv2.resize(image, None, fx=1 / f, fy=1 / f, interpolation=cv2.INTER_AREA) for f in (2, 4)]
    slide = Slide(image, coarser=tuple(Lazy(level) for level in means))
    plan = planned(_fixed_side(), slide, (28, 28))
    assert len(plan.tiles) == 1
    assert plan.scale == 0.25
    prepared = plan.prepare(plan.tiles[0])
    assert not slide.asked  # nor is the level with a pixel for each of the canvas
    assert slide.coarser[0].asked == [1200 * 1600]
    whole = planned(_fixed_side(), image, (28, 28)).prepare(plan.tiles[0])
    assert prepared.shape == whole.shape
    assert np.abs(prepared.astype(int) - whole).mean() < 2


def test_an_image_that_is_too_large_to_be_read_as_a_whole_is_refused():
    huge = np.broadcast_to(np.uint8(0), (40_000, 40_000))
    with pytest.raises(FsisError, match="40000x40000 pixels, which this model reads as a whole: give tiles of 800"):
        planned(_fixed_side(), huge, (28, 28))
    assert len(planned(_fixed_side(), huge, (28, 28), tile=800).tiles) > 1
    small = Lazy(np.zeros((2500, 2500), np.uint8))
    assert len(planned(_fixed_side(), Slide(huge, coarser=(small,)), (28, 28)).tiles) == 1


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([20], [[0]]),
        ([49, 30, 20], [[0, 1, 2]]),
        ([60, 20, 22, 55], [[1, 2], [0, 3]]),
        ([10, 12, 14, 90], [[0, 1, 2], [3]]),
    ],
)
def test_references_of_mixed_sizes_are_two_groups(sizes, groups):
    config = tiny.get_config()
    sides = np.array([(size, size) for size in sizes], np.float32)
    found = size_groups(sides, transform_config(config))
    assert [rows.tolist() for rows, _ in found] == groups


def test_a_model_with_a_fixed_scale_has_one_group():
    config = tiny.get_config()
    config.data.transform.scale = "shortest_side"
    sides = np.array([(10, 10), (90, 90)], np.float32)
    assert len(size_groups(sides, transform_config(config))) == 1
    assert len(size_groups(np.zeros((0, 2), np.float32), transform_config(tiny.get_config()))) == 1
