"""Test-time augmentation, and several devices: what they change and what they do not."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny
import tiny_closed_set
from seen import candidates
from tiny_closed_set import discs, untrained

from fsis_jax.inference import programs as module
from fsis_jax.inference.augmentation import Variant, variants
from fsis_jax.inference.instances import Instances

pytestmark = pytest.mark.usefixtures("quick_compile")
FLIPPED, ALL = variants(flip=True, scales=()), variants(flip=True, scales=(1.5,))
"""Each choice of variants is a program, and to compile it takes longer than all that it runs."""
HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def plain(quick_compile):
    return untrained(tiny_closed_set.get_config())


@pytest.fixture
def augmented(plain):
    """The network with variants."""

    def choose(*chosen):
        return plain.with_options(variants=chosen)

    return choose


def _flipped(image):
    return np.ascontiguousarray(image[:, ::-1])


def _same(one, two):
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-2)
    np.testing.assert_array_equal(one.labels(0.0), two.labels(0.0))


def _mirror(found, width):
    """(scores, boxes, labels) as they are in the mirrored image."""
    boxes = found.boxes.copy()
    boxes[:, [0, 2]] = width - found.boxes[:, [2, 0]]
    return found.scores, boxes, found.labels(0.0)[:, ::-1]


def test_which_variants_the_keys_mean():
    assert variants(flip=False, scales=()) == ()
    assert variants(flip=True, scales=()) == (Variant(1.0, True),)
    assert variants(flip=False, scales=(0.5, 2.0)) == (Variant(0.5), Variant(2.0))
    # As Detectron's SCALE_H_FLIP: the other scales are flipped as well.
    assert variants(flip=True, scales=(2.0,)) == (Variant(2.0), Variant(1.0, True), Variant(2.0, True))


@pytest.mark.parametrize(
    ("chosen", "size"),
    [(FLIPPED, (60, 83)), *(pytest.param(chosen, (64, 80), marks=pytest.mark.slow) for chosen in (FLIPPED, ALL))],
)
def test_a_mirrored_image_has_the_mirrored_result(augmented, chosen, size):
    image = discs(size)
    network = augmented(*chosen)
    scores, boxes, labels = _mirror(candidates(network, image), size[1])
    found = candidates(network, _flipped(image))
    assert len(found) > 0
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-2)
    assert (found.labels(0.0) == labels).mean() > 0.995  # centres of pixels that lie on the outline


def test_without_the_flip_it_has_not(plain):
    scores, _, _ = _mirror(candidates(plain, discs()), 80)
    assert np.abs(candidates(plain, _flipped(discs())).scores - scores).max() > 1e-3


def test_a_second_look_of_the_same_kind_changes_nothing(plain, augmented):
    """What it finds is suppressed as found twice, and masks are means over the looks."""
    alone = candidates(plain, discs())
    _same(candidates(augmented(Variant()), discs()), alone)


@pytest.mark.parametrize("chosen", [Variant(1.0, True), Variant(0.5)])
def test_another_look_changes_scores(plain, augmented, chosen):
    alone = candidates(plain, discs())
    found = candidates(augmented(chosen), discs())
    assert len(found) == len(alone)
    assert np.abs(found.scores - alone.scores).max() > 1e-3
    assert found.scores[0] >= alone.scores[0]  # all that is found in one of them is a candidate
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [80, 64, 80, 64]).all()


def test_masks_are_means_over_the_looks(plain, augmented, monkeypatch):
    given = []
    paste = Instances.from_padded

    def watched(boxes, scores, valid, masks, *rest, **options):
        given.append((boxes, masks))
        return paste(boxes, scores, valid, masks, *rest, **options)

    monkeypatch.setattr(Instances, "from_padded", watched)
    image = (discs() // 2 + discs()[:, ::-1] // 2).astype(np.uint8)  # its own mirror image, nearly
    image = np.maximum(image, _flipped(image))
    candidates(augmented(Variant(1.0, True)), image)
    ((boxes, masks),) = given
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = 80 - boxes[:, [2, 0]]
    pairs = [
        (row, other)
        for row, box in enumerate(mirrored)
        for other, one in enumerate(boxes)
        if np.abs(box - one).max() < 1e-3
    ]
    assert pairs
    for row, other in pairs:
        np.testing.assert_allclose(masks[row], masks[other][:, ::-1], atol=1e-4)


def test_canvases_of_variants_follow_from_the_usual_one(plain, augmented):
    network = augmented(*ALL)
    for size in ((64, 80), (63, 61), (90, 64)):
        plan = network.plan(discs(size))
        (tile,) = plan.tiles
        for variant in network.variants:
            shown = plan.prepare_variant(tile, variant)
            sides = [32 * int(np.ceil(96 * variant.times / 32))] * 2
            assert list(shown.shape) == [*sides, 3]
            height, width = plan.extent_of(variant)
            assert not shown[height:].any()
            assert not shown[:, width:].any()
            assert (height, width) == tuple(round(side * plan.scale * variant.times) for side in size)
    before = module.find.count
    for size in ((64, 80), (63, 61), (90, 64), (130, 141)):
        candidates(network, discs(size))
    assert module.find.count - before <= 1


def test_tiles_are_shown_in_all_ways(plain, augmented):
    image = discs((150, 140))
    alone = candidates(plain, image, tile=64)
    found = candidates(augmented(*ALL), image, tile=64)
    assert len(found) > plain.config.model.detections.max_instances
    assert found.boxes[:, 3].max() > 100
    assert found.scores.sum() > alone.scores.sum() + 0.1


def test_cells_like_the_references_are_looked_for_in_all_ways(quick_compile):
    """In a few-shot model the scale follows the references, and that of a variant follows the scale."""
    network = untrained(tiny.get_config()).with_options(variants=(Variant(1.0, True),))
    image = discs((64, 64))
    crop = image[10:33, 20:44]
    references = network.encode_references([crop])
    scores, boxes, _ = _mirror(candidates(network, image, references), 64)
    found = candidates(network, _flipped(image), references)
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-2)


@pytest.mark.slow
def test_two_devices_give_the_results_of_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    command = [sys.executable, str(HERE / "two_devices.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "the same\n"
