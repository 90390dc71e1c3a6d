"""Neither the canvas on which an image lies, nor its neighbours in the batch, change what is found.

Nor does an architecture without a pyramid round the size of an image, which is then what the network alone would see.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from tiny_detector import QUICK_COMPILE, blobs, tiny_c4_config, tiny_config, tiny_detector

from fsis_jax.models.detection import Detections, View, detect
from fsis_jax.models.normalise import normalise

SIZES = ((70, 96), (61, 40))
"""Of the two images; their extents are 96 x 96 and 64 x 64."""
CANVASES = ((96, 96), (128, 160))

Detect = Callable[[tuple[int, int], tuple[int, ...]], Detections]


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
    model.matching.norm = "batch"
    model.rpn.anchor_sizes = (8, 16, 32, 64, 128)
    model.relation = "concat"
    return config


def c4() -> ConfigDict:
    """As converted weights without a pyramid. Both images have maps of odd sizes on the way to level 4."""
    config = tiny_c4_config()
    model = config.model
    model.legacy_boxes = model.background_outputs = True
    model.backbone.norm = model.box_head.norm = "frozen"
    model.matching.norm = "batch"
    model.rpn.anchor_sizes = (8, 16, 32, 64)
    model.relation = "concat"
    return config


def c4_torchvision() -> ConfigDict:
    """With group norms, and with the pool of torchvision's stem, which rounds differently."""
    config = tiny_c4_config()
    config.model.backbone.padded_pool = True
    return config


def deformable() -> ConfigDict:
    config = tiny_config()
    model = config.model
    model.backbone.depth = 50
    model.backbone.width = 4
    model.backbone.deformable = "interleaved"
    return config


VARIANTS = {function.__name__: function for function in (compact, legacy, c4, c4_torchvision, deformable)}
SLOW = ("legacy", "c4_torchvision", "deformable")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in VARIANTS],
)
def detector(request: pytest.FixtureRequest) -> Detect:
    """(canvas, which images in which order) -> detections; what lies outside an image is noise."""
    graph, state = nnx.split(tiny_detector(VARIANTS[request.param](), seed=3))
    references = np.stack([blobs(20, 32, 32), blobs(21, 32, 32)])[None]

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def run(state: nnx.State, images: jax.Array, sizes: jax.Array) -> Detections:
        model = nnx.merge(graph, state)
        encoded = model.encode_references(normalise(references))
        return detect(model, [View(normalise(images, sizes), sizes)], encoded)

    def find(canvas: tuple[int, int], order: tuple[int, ...]) -> Detections:
        images = np.random.default_rng(sum(canvas)).integers(0, 256, (len(order), *canvas, 3), dtype=np.uint8)
        for row, image in enumerate(order):
            height, width = SIZES[image]
            images[row, :height, :width] = blobs(image, height, width)
        return jax.device_get(run(state, images, np.array([SIZES[image] for image in order], np.int32)))

    return find


def assert_same(a: Detections, b: Detections, rows: tuple[int, ...]) -> None:
    """Row i of a is row rows[i] of b."""
    assert a.valid.sum() > 4 * len(rows)
    for mine, other in enumerate(rows):
        np.testing.assert_array_equal(a.valid[mine], b.valid[other])
        valid = a.valid[mine]
        for name in ("boxes", "scores", "masks"):
            ours, theirs = getattr(a, name)[mine, valid], getattr(b, name)[other, valid]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3, err_msg=name)


def test_two_canvases(detector: Detect) -> None:
    assert_same(detector(CANVASES[0], (0, 1)), detector(CANVASES[1], (0, 1)), rows=(0, 1))


def test_place_in_the_batch(detector: Detect) -> None:
    assert_same(detector(CANVASES[0], (0, 1)), detector(CANVASES[0], (1, 0)), rows=(1, 0))


@pytest.mark.slow
@pytest.mark.parametrize("image", [0, 1])
def test_alone(detector: Detect, image: int, request: pytest.FixtureRequest) -> None:
    """On a canvas that is the image's own extent."""
    multiple = 1 if "c4" in request.node.name else 32
    height, width = (-(-side // multiple) * multiple for side in SIZES[image])
    assert_same(detector((height, width), (image,)), detector(CANVASES[1], (0, 1)), rows=(image,))


def test_detections_are_ordered_and_inside(detector: Detect) -> None:
    found = detector(CANVASES[1], (0, 1))
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert ((found.masks >= 0) & (found.masks <= 1)).all()
    for row, (height, width) in enumerate(SIZES):
        boxes = found.boxes[row, found.valid[row]]
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
