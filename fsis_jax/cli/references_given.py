"""What the options that say what example cells are (`reference_options.py`) stand for, read from files."""

import argparse
import dataclasses
import functools
import logging
from collections.abc import Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.example_cells import (
    Example,
    Opener,
    box_example,
    crop_example,
    is_box,
    label_examples,
    outlined_examples,
)
from fsis_jax.inference.references import References, check_kind_names
from fsis_jax.inference.references_file import load_references
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.all_planes import ALL, PlaneChoice
from fsis_jax.io.finding import image_files
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.names import REFERENCES_SUFFIX
from fsis_jax.io.source import open_image
from fsis_jax.pretrained import default_weights

_logger = logging.getLogger(__name__)

NO_REFERENCE = (
    "no reference given: give --references CROP, --reference IMAGE:x1,y1,x2,y2, --kind NAME=EXAMPLE, "
    "--reference-mask LABELS or --reference-outlines FILE"
)


def load_model(checkpoint: str | None) -> Segmenter:
    """The model that is named, or the default one, which is told."""
    if not checkpoint:
        checkpoint = default_weights()
        _logger.info(f"no --checkpoint: the model is {checkpoint}")
    return Segmenter.from_pretrained(checkpoint)


def read_examples(options: argparse.Namespace, only: str | None) -> tuple[References | None, list[Example]]:
    """Encoded references of a file, or example cells, of which there may be none.

    Args:
        only: the one image that is segmented, which a mask or outlines belong to if nothing else is said.
    """
    encoded = [path for path in options.references if path.lower().endswith(REFERENCES_SUFFIX)]
    others = [options.reference, options.reference_mask, options.reference_outlines, options.kind, options.unwanted]
    if options.reference_image and not any(others[1:3]):
        raise FsisError("--reference-image alone: give a mask or outlines too, or --reference IMAGE:x1,y1,x2,y2")
    if encoded:
        if len(options.references) > 1 or any(others):
            raise FsisError(f"{encoded[0]}: encoded references stand alone: give no other references")
        saved = load_references(encoded[0])
        size = options.reference_pixel_size
        return (saved if size is None else dataclasses.replace(saved, pixel_size=size)), []
    opener: Opener = functools.partial(_open, plane=PlaneChoice(options.series, options.channel, options.page))
    examples = [crop_example(path, opener) for path in options.references]
    examples += [box_example(text, opener) for text in options.reference]
    for option, file, read in (
        ("--reference-mask", options.reference_mask, label_examples),
        ("--reference-outlines", options.reference_outlines, outlined_examples),
    ):
        if file is None:
            continue
        image = options.reference_image or only
        if image is None:
            raise FsisError(f"{option} {file}: name the image that it belongs to by --reference-image")
        examples += read(file, image, opener)
    if options.kind and examples and not any(example.kind for example in examples):
        raise FsisError("--kind beside references without a name: give these a --kind NAME=EXAMPLE, too")
    examples += _of_kinds(options, opener)
    if options.reference_pixel_size is not None:
        examples = [dataclasses.replace(example, pixel_size=options.reference_pixel_size) for example in examples]
    return None, examples


def _open(path: str, /, *, plane: PlaneChoice, labels: bool = False) -> ImageFile:
    """`open_image`, where "all" planes are those of the images to segment and say nothing of a reference's."""
    series, channel, page = (None if part == ALL else part for part in plane)
    try:
        return open_image(path, channel=channel, page=page, series=series, where_there=True, labels=labels)
    except FsisError as error:
        if ALL not in plane:
            raise
        remedy = "all planes are segmented, but a reference is on one: encode it first, by `fsis references --page 1`"
        raise FsisError(f"{error}; {remedy}") from error


def _of_kinds(options: argparse.Namespace, opener: Opener) -> list[Example]:
    """The examples of --kind and of --not."""
    found: list[Example] = []
    names: list[str] = []
    for first, *others in options.kind:
        name, equals, example = first.partition("=")
        if not equals:
            raise FsisError(f"--kind {first}: give NAME=EXAMPLE, like living=cells.png:120,80,164,131")
        names.append(name)
        texts = [text for text in (example, *others) if text]
        if not texts:
            raise FsisError(f"--kind {first}: a kind without an example: give a crop or IMAGE:x1,y1,x2,y2 after it")
        found += [dataclasses.replace(cell, kind=name) for cell in _given(texts, opener, "--kind")]
    for number, texts in enumerate(options.unwanted, start=1):
        name = f"not {number}" if len(options.unwanted) > 1 else "not"
        names.append(name)
        found += [dataclasses.replace(cell, kind=name, wanted=False) for cell in _given(texts, opener, "--not")]
    check_kind_names(names)
    return found


def _given(texts: Sequence[str], opener: Opener, option: str) -> list[Example]:
    """Examples of crops, patterns of crops and boxes in images."""
    found = []
    for text in texts:
        if is_box(text):
            found.append(box_example(text, opener, option))
        else:
            found += [crop_example(path, opener) for path in image_files([text])]
    return found
