"""Targets and references as the network reads them against the PyTorch project's, in levels of 8-bit images.

The original normalises an image and resizes the result; ours resizes the 8-bit image and normalises on the device.
Both are the same up to the rounding of pixels to whole levels, which is within one level (1/255).
"""

import pathlib

import numpy as np
import pytest
from differences import largest, relative, unequal
from golden_files import VARIANTS, Vectors, load
from golden_fixture import open_fixture
from parity_table import Figures

from fsis_jax.config import base_config
from fsis_jax.io.decoding import decode_image
from fsis_jax.models.detector import EXTENT_MULTIPLE
from fsis_jax.models.extent import Extent
from fsis_jax.models.normalise import MEAN, STD, normalise
from fsis_jax.preprocess.transform_config import TransformConfig, transform_config
from fsis_jax.preprocess.transforms import (
    cut_reference,
    pad_to_square,
    place,
    reference_image,
    resize,
    resize_square,
    scaled_size,
    shortest_side_scale,
    to_8bit,
)

TARGET, REFERENCE = "target pixels, levels of 255", "reference pixels, levels of 255"
LEVEL = 1.0
LAST_PIXEL = np.array([0, 0, 1, 1], np.float32)
"""What the original's boxes lack in width and height: they name the last pixel inside."""


def parity_transform(**changes: object) -> TransformConfig:
    """The transforms of the default config, with the original's reference crops."""
    config = base_config()
    config.data.transform.update({"legacy_reference_crop": True, **changes})
    return transform_config(config)


def levels(normalised: np.ndarray) -> np.ndarray:
    """(..., 3, h, w) network input as (..., h, w, 3) of 0..255."""
    return (np.moveaxis(np.asarray(normalised, np.float64), -3, -1) * STD + MEAN) * 255


def input_of(image: np.ndarray, scale: float, shape: tuple[int, int]) -> np.ndarray:
    """(3, h, w) float32, what the network reads of a target on a canvas of `shape` (h, w)."""
    resized = resize(to_8bit(image, parity_transform()), scale, antialias=False)
    read = normalise(place(resized, shape)[None], np.array([resized.shape[:2]], np.int32))
    return np.asarray(read)[0].transpose(2, 0, 1)


def check_target(figures: Figures, variant: str, image: np.ndarray, scale: float, blob: np.ndarray) -> None:
    """A target (3, h, w), with its padding."""
    ours = input_of(image, scale, blob.shape[1:])
    figures.check(TARGET, variant, largest(levels(ours), levels(blob)), LEVEL)


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "ops.npz")


def as_float(image: np.ndarray) -> np.ndarray:
    return (image / np.float32(255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)


def test_targets(vectors: Vectors, figures: Figures) -> None:
    """Scale, size and canvas by the shortest and the longest side, and the pixels."""
    image = vectors["crop/im_u8"]
    for name in vectors.starting("prep/"):
        if not name.endswith("_target_max_scale"):
            continue
        shortest, longest, scale = vectors[name]
        case = name.removesuffix("_target_max_scale")
        config = parity_transform(shortest_side=int(shortest), longest_side=int(longest))
        found = shortest_side_scale(image.shape[:2], config)
        figures.check("scale of targets, relative", "", relative(found, scale), 1e-6)
        size = scaled_size(image.shape[:2], found)
        figures.check("size of targets, px", "", largest((*size, 3), vectors[f"{case}_resized_shape"]), 0)
        shape = vectors[f"{case}_blob_shape"][2:]
        extent = Extent.of(np.array([size]), EXTENT_MULTIPLE["fpn"]).sizes
        figures.check("size of targets, px", "", largest(extent[0], shape), 0)
        figures.check("size of targets, px", "", largest(shape, vectors[f"{case}_im_info"][0, :2]), 0)
        part = vectors[f"{case}_blob_sub"][0]
        ours = input_of(image, found, tuple(shape))[:, ::3, ::3]
        figures.check(TARGET, "", largest(levels(ours), levels(part)), LEVEL)
        # Resized after the normalisation, as there, the pixels are the same without any rounding.
        exact = np.zeros((*shape, 3), np.float32)
        exact[: size[0], : size[1]] = resize(as_float(image), found, antialias=False)
        error = relative(exact.transpose(2, 0, 1)[:, ::3, ::3], part)
        figures.check("resizing of float images, relative", "", error, 1e-5)


def test_references(vectors: Vectors, figures: Figures) -> None:
    """Crop, square and pixels. A crop of one pixel's width is refused by ours, and made here of its parts."""
    image, config = vectors["crop/im_u8"], parity_transform()
    for name in vectors.starting("crop/"):
        if not name.endswith("_box"):
            continue
        case = name.removesuffix("_box")
        crop = cut_reference(image, vectors[name] + LAST_PIXEL, legacy=True)
        square = pad_to_square(crop, legacy=True)
        for kind in ("square", "pad2square"):
            figures.check("squares of references, wrong values", "", unequal(square, vectors[f"{case}_{kind}_u8"]), 0)
        wide = min(crop.shape[:2]) > 1
        ours = reference_image(crop, config) if wide else resize_square(square, config.reference_size, antialias=False)
        blob = vectors[f"{case}_blob__ssub"][0]
        step = config.reference_size // blob.shape[-1]
        figures.check(REFERENCE, "", largest(ours[::step, ::step], levels(blob)), LEVEL)
        exact = resize_square(as_float(square), config.reference_size, antialias=False).transpose(2, 0, 1)
        error = relative(exact[:, ::step, ::step], blob)
        figures.check("resizing of float images, relative", "", error, 1e-5)
        if f"{case}_blob_full" in vectors:
            figures.check(REFERENCE, "", largest(ours, levels(vectors[f"{case}_blob_full"][0])), LEVEL)


def test_resizing_to_a_square(vectors: Vectors, figures: Figures) -> None:
    """An image that is no square loses its proportions, in the original's preparation of whole reference images."""
    for name in vectors.starting("prep/prep_query_"):
        ours = resize_square(vectors["crop/im_u8"], int(name.rpartition("_")[2]), antialias=False)
        figures.check(REFERENCE, "", largest(ours, levels(vectors[name].transpose(2, 0, 1))), LEVEL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_at_test(golden: pathlib.Path, figures: Figures, variant: str) -> None:
    """From the raw image and its boxes to all that the network reads. C4 pads no canvas."""
    vectors = load(golden, variant, "infer.npz")
    image, scale = vectors["im_u8"], float(vectors["im_scale"][0])
    check_target(figures, variant, image, scale, vectors["data"][0])
    references, config = vectors["query"], parity_transform()
    crops = [vectors[f"query_crop_u8_{row}"] for row in range(len(references))]
    boxes = vectors["gt_boxes"] + LAST_PIXEL
    squares = [pad_to_square(cut_reference(image, box, legacy=True), legacy=True) for box in boxes]
    for crop, reference in zip(crops, references, strict=True):
        assert any(np.array_equal(crop, square) for square in squares)
        figures.check(REFERENCE, variant, largest(reference_image(crop, config), levels(reference[0])), LEVEL)


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_targets_in_training(golden: pathlib.Path, figures: Figures, variant: str) -> None:
    """Of the variants whose training vectors are whole."""
    vectors = load(golden, variant, "train.npz")
    for row, blob in enumerate(vectors["data"]):
        scale = float(vectors["im_info"][row, 2])
        check_target(figures, variant, vectors[f"im_u8_{row}"], scale, blob)


def test_items_of_the_data_set(golden: pathlib.Path, figures: Figures, tmp_path: pathlib.Path) -> None:
    """Test-time items: scale and size of the target, and references that are cut from it (quirk Q7).

    Which of its cells the original takes depends on its random numbers: each reference must be one of them. The
    original's boxes end at their last pixel, ours one further.
    """
    items = load(golden, "data_items.npz")
    source, config = open_fixture(golden, tmp_path), parity_transform()
    for name in items.starting("testitem/"):
        if not name.endswith("_meta"):
            continue
        item = name.removesuffix("_meta")
        height, width, scale = items[f"{item}_im_info"]
        references = [items[key] for key in items if key.startswith(f"{item}_query")]
        candidates = []
        for row, record in enumerate(source.annotations):
            size = (record.height, record.width)
            ours = shortest_side_scale(size, config)
            if items[name][1] not in record.classes or abs(ours - scale) > 1e-5 * scale:
                continue
            if scaled_size(size, ours) != (height, width):
                continue
            image = decode_image(source[row].encoded, record.file_name)
            crops = [cut_reference(image, box, legacy=True) for box in record.boxes[~record.crowd]]
            candidates += [reference_image(crop, config)[::8, ::8] for crop in crops]
        assert candidates, f"{item}: no image of category {items[name][1]} has this scale and size"
        for reference in references:
            figures.check(REFERENCE, "", min(largest(c, levels(reference)) for c in candidates), LEVEL)
