"""Neither the canvas on which an image lies, nor its neighbours in the batch, change what is found."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from tiny_detector import QUICK_COMPILE, blobs, tiny_config, tiny_detector

from fsis_jax import ops
from fsis_jax.models.detector import Detections
from fsis_jax.models.extent import Extent
from fsis_jax.models.normalise import normalise

SIZES = ((70, 96), (61, 40))
"""Of the two images; their extents are 96 x 96 and 64 x 64."""
CANVASES = ((96, 96), (128, 160))

Detect = Callable[[tuple[int, int], tuple[int, int]], Detections]


def compact() -> ConfigDict:
    return tiny_config()


def legacy() -> ConfigDict:
    """As with converted weights: frozen and batch norm, legacy boxes, P6, two outputs."""
    config = tiny_config()
    model = config.model
    model.legacy_boxes = model.background_outputs = model.clip_to_padding = True
    model.backbone.norm = "frozen"
    model.fpn.norm = "none"
    model.fpn.coarsest = 6
    model.co_attention.norm = "batch"
    model.rpn.anchor_sizes = (8, 16, 32, 64, 128)
    model.box_head.relation = "concat"
    return config


@pytest.fixture(scope="module", params=[compact, pytest.param(legacy, marks=pytest.mark.slow)])
def detect(request: pytest.FixtureRequest) -> Detect:
    """(canvas, order of the two images) -> detections; what lies outside an image is noise."""
    graph, state = nnx.split(tiny_detector(request.param(), seed=3))
    references = np.stack([np.stack([blobs(20, 32, 32), blobs(21, 32, 32)])] * 2)

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def run(state: nnx.State, images: jax.Array, sizes: jax.Array) -> Detections:
        model = nnx.merge(graph, state)
        encoded = model.encode_references(normalise(references))
        return model.detect(normalise(images, sizes), sizes, encoded)

    def detect(canvas: tuple[int, int], order: tuple[int, int]) -> Detections:
        images = np.random.default_rng(sum(canvas)).integers(0, 256, (2, *canvas, 3), dtype=np.uint8)
        for row, image in enumerate(order):
            height, width = SIZES[image]
            images[row, :height, :width] = blobs(image, height, width)
        return jax.device_get(run(state, images, np.array([SIZES[image] for image in order], np.int32)))

    return detect


def assert_same(a: Detections, b: Detections, rows: tuple[int, int]) -> None:
    """Row i of a is row rows[i] of b."""
    assert a.valid.sum() > 8
    for mine, other in enumerate(rows):
        np.testing.assert_array_equal(a.valid[mine], b.valid[other])
        valid = a.valid[mine]
        for name in ("boxes", "scores", "masks"):
            ours, theirs = getattr(a, name)[mine, valid], getattr(b, name)[other, valid]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3, err_msg=name)


def test_two_canvases(detect: Detect) -> None:
    assert_same(detect(CANVASES[0], (0, 1)), detect(CANVASES[1], (0, 1)), rows=(0, 1))


def test_place_in_the_batch(detect: Detect) -> None:
    assert_same(detect(CANVASES[0], (0, 1)), detect(CANVASES[0], (1, 0)), rows=(1, 0))


@pytest.mark.parametrize("aligned", [False, True])
def test_rois_at_the_border(aligned: bool) -> None:
    """RoIAlign repeats the last pixel of a map; where the map goes on beyond the extent, it must read the same."""
    extent = Extent.of(jnp.array([[64, 96]]))
    exact = np.random.default_rng(0).normal(size=(1, 4, 6, 3)).astype(np.float32) + 5
    canvas = np.pad(exact, [(0, 0), (0, 3), (0, 2), (0, 0)])
    rois = jnp.array([[64.0, 8, 96, 64], [20, 40, 96, 64], [0, 0, 96, 64]])

    def pool(features: jax.Array) -> jax.Array:
        return ops.roi_align(features[0], rois, spatial_scale=1 / 16, output_size=4, sampling_ratio=2, aligned=aligned)

    np.testing.assert_allclose(pool(extent.repeat_edge(canvas, 16)), pool(exact), rtol=1e-6)
    assert np.abs(pool(jnp.asarray(canvas)) - pool(exact)).max() > 0.1


def test_detections_are_ordered_and_inside(detect: Detect) -> None:
    found = detect(CANVASES[1], (0, 1))
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert ((found.masks >= 0) & (found.masks <= 1)).all()
    for row, (height, width) in enumerate(SIZES):
        boxes = found.boxes[row, found.valid[row]]
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
