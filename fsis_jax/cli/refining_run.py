"""What `fsis refine` does: references learn what a person says of a result."""

import argparse
import pathlib

import numpy as np

from fsis_jax.cli.references_given import load_model
from fsis_jax.errors import FsisError
from fsis_jax.inference.references import References
from fsis_jax.inference.references_file import load_references
from fsis_jax.inference.refining import corrected, read_result, traits_of
from fsis_jax.io.all_planes import PlaneChoice
from fsis_jax.io.source import open_image


def run_refine(options: argparse.Namespace, file: pathlib.Path) -> None:
    """`fsis refine`, of its arguments; `file` is the new one."""
    panel = load_references(options.references)
    segmenter = load_model(options.checkpoint)
    segmenter.check_references(panel)
    plane = PlaneChoice(options.series, options.channel, options.page)
    result = read_result(options.result, options.image, model=segmenter.fingerprint, plane=plane)
    kinds = panel.kinds or ("cell",)
    wrong, right = _rows(options, len(result.boxes))
    boxes = result.boxes
    if options.corrected:
        gone, changed, missed = corrected(result, options.corrected, kinds)
        wrong, right, boxes = [*wrong, *gone], {**changed, **right}, np.concatenate([boxes, missed])
    chosen = sorted({*wrong, *right})
    with open_image(result.path, **result.plane._asdict()) as image:
        traits = traits_of(segmenter, image, boxes[chosen], panel, result.pixel_size)
    places = {row: place for place, row in enumerate(chosen)}
    better: References = panel.refined(
        traits, right={places[row]: kind for row, kind in right.items()}, wrong=[places[row] for row in wrong]
    )
    better.save(file)
    print(f"{len(chosen)} correction{'s' * (len(chosen) != 1)} of {result.name} written to {file}")


def _rows(options: argparse.Namespace, count: int) -> tuple[list[int], dict[int, str]]:
    """Rows that are wrong, and row -> kind of those that are of a kind, by the numbers of the table."""

    def row(text: str, option: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= count:
            raise FsisError(f"{option} {text}: give a number from 1 to {count} of the table")
        return int(text) - 1

    right: dict[int, str] = {}
    for first, *others in options.right:
        name, equals, number = first.partition("=")
        if not equals or not number:
            raise FsisError(f"--right {first}: give KIND=ID, like dead=3")
        for text in (number, *others):
            said = right.setdefault(row(text, "--right"), name)
            if said != name:
                raise FsisError(f"--right {text}: said to be {said} and {name}: leave one out")
    wrong = [row(text, "--wrong") for text in options.wrong]
    for text, place in zip(options.wrong, wrong, strict=True):
        if place in right:
            raise FsisError(f"--wrong {text}: said to be right, too: leave one out")
    return wrong, right
