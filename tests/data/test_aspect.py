"""Training images whose aspect ratio is out of bounds are cropped."""

import dataclasses

import numpy as np
import pytest
from memory_source import MemorySource, annotate, disc

from fsis_jax.data.episodes import Episode, ReferenceBox
from fsis_jax.data.examples import ImageCache, training_example
from fsis_jax.data.pipeline import bucket_targets
from fsis_jax.preprocess.aspect import bounded_size
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import own_scale

BOUNDS = (0.5, 2.0)
CONFIG = TransformConfig(
    scale="shortest_side",
    shortest_side=64,
    longest_side=160,
    intensity="none",
    reference_size=32,
    max_instances=8,
    flip=0.0,
)
CROPPED = dataclasses.replace(CONFIG, aspect_bounds=BOUNDS)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 199), (100, 199)),
        ((100, 200), (100, 200)),
        ((100, 201), (100, 200)),
        ((200, 100), (200, 100)),
        ((333, 101), (202, 101)),
        ((1, 9), (1, 2)),
    ],
)
def test_only_the_longer_side_is_cut(size, expected):
    assert bounded_size(size, BOUNDS) == expected
    assert bounded_size(size, ()) == size


def test_uneven_bounds_are_kept_to_the_pixel():
    for height, width in ((100, 301), (301, 100), (7, 20), (20, 7)):
        kept = bounded_size((height, width), (0.6, 1.7))
        assert 0.6 <= kept[1] / kept[0] <= 1.7
        assert min(kept) == min(height, width)


def _source(size, places):
    masks = [disc(size, x, y, 6) for x, y in places]
    image = np.full(size, 20, np.uint8)
    image[np.any(masks, axis=0)] = 200
    return MemorySource([image], [annotate(masks, [1] * len(masks), size=size)])


def _example(source, config, seed, canvas=(64, 160), kind="present"):
    references = (ReferenceBox(0, tuple(source.annotations[0].boxes[0].tolist())),)
    episode = Episode(0, kind, 1, references) if kind == "present" else Episode(0, "plain", None, ())
    return training_example(
        ImageCache(source, config), episode, config, canvas=canvas, trainable=[1], rng=np.random.default_rng(seed)
    )


@pytest.mark.parametrize("kind", ["present", "plain"])
def test_a_long_target_is_cropped_about_one_of_its_instances(kind):
    source = _source((64, 160), [(16, 20), (80, 40), (150, 30)])
    sizes, counts = set(), []
    for seed in range(20):
        example = _example(source, CROPPED, seed, kind=kind)
        height, width = example["image_sizes"].tolist()
        sizes.add((height, width))
        counts.append(int((example["gt_valid"] & ~example["gt_ignore"]).sum()))
        bright = example["images"][..., 0] > 100
        assert not bright[:, width:].any()
        boxes = example["gt_boxes"][example["gt_valid"]]
        assert (boxes[:, 2] <= width).all()
        for x1, y1, x2, y2 in boxes.astype(int):
            assert bright[(y1 + y2) // 2, (x1 + x2) // 2]
    assert sizes == {(64, 128)}
    assert set(counts) == {2, 3} or set(counts) == {2}
    whole = _example(source, CONFIG, 0, kind=kind)
    assert whole["image_sizes"].tolist() == [64, 160]


def test_the_scale_and_the_canvas_are_those_of_the_cropped_size():
    """A long image is not shrunk for its longest side once that has been cut."""
    source = _source((64, 320), [(16, 20), (300, 40)])
    canvases = [(64, 64), (64, 128), (64, 160)]
    assert own_scale(source.annotations[0], CONFIG) == 0.5
    assert own_scale(source.annotations[0], CROPPED) == 1
    assert bucket_targets(source, [0], CONFIG, canvases) == {(64, 160): [0]}
    assert bucket_targets(source, [0], CROPPED, canvases) == {(64, 128): [0]}
    example = _example(source, CROPPED, 0, canvas=(64, 128))
    assert example["image_sizes"].tolist() == [64, 128]
    box = example["gt_boxes"][0]
    assert box[3] - box[1] == pytest.approx(12)


def test_an_upright_target_is_cropped_too_and_one_within_the_bounds_is_not():
    high = _source((300, 64), [(30, 150)])
    assert _example(high, CROPPED, 0, canvas=(160, 64))["image_sizes"].tolist() == [128, 64]
    square = _source((64, 96), [(30, 30)])
    for name, value in _example(square, CROPPED, 0).items():
        np.testing.assert_array_equal(value, _example(square, CONFIG, 0)[name])
