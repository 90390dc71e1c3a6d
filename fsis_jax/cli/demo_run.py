"""What `fsis demo` does: a drawn image with two kinds of cell, segmented with examples of each. It needs no data.

Everything is done as `fsis segment` does it, and the command line that does the same is printed. The folder has the
image, the examples, and a folder of results; `demo.txt`, which says all that was printed, also tells a later run that
the folder is a demo's.
"""

import argparse
import dataclasses
import logging
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.evaluation.instance_metrics import match
from fsis_jax.inference.example_cells import crop_example, encode_examples
from fsis_jax.inference.output_settings import Outcome
from fsis_jax.inference.segment_files import segment_files
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.atomic import atomic_write, check_folder, user_path
from fsis_jax.io.decoding import read_image
from fsis_jax.io.source import open_image
from fsis_jax.io.table import read_table
from fsis_jax.io.writers import write_png
from fsis_jax.preprocess.transforms import cut_reference
from fsis_jax.pretrained import default_weights
from fsis_jax.synthetic.sample import KINDS, draw_sample

_logger = logging.getLogger(__name__)
_REPORT = "demo.txt"
_RESULTS = "results"
_TITLE = "fsis demo: a drawn image with two kinds of cell, segmented with examples of each"


def run_demo(options: argparse.Namespace) -> None:
    """`fsis demo`, of its arguments."""
    folder = _demo_folder(options.output)
    checkpoint = options.checkpoint or default_weights()
    segmenter = Segmenter.from_pretrained(checkpoint)
    _logger.info(f"segmenting with {checkpoint} on {jax.default_backend()}; the first time takes longer: it compiles")
    _write_report(folder, _TITLE)
    sample = draw_sample(0)
    image = str(folder / "sample.png")
    write_png(image, sample.image)
    shown = _write_examples(folder)
    examples = [
        dataclasses.replace(crop_example(path, open_image), kind=kind)
        for kind, paths in shown.items()
        for path in paths
    ]
    references = encode_examples(segmenter, examples)
    (outcome,) = segment_files(segmenter, [image], references, folder / _RESULTS)
    if outcome.error:
        raise FsisError(outcome.error)
    rows = [_row(kind, len(shown[kind]), labels, sample.labels[kind]) for kind, labels in _found(outcome).items()]
    report = "\n".join([_TITLE, "", _COLUMNS, *rows, "", _next(image, shown, outcome, options.checkpoint)])
    _write_report(folder, report)
    print(report)


def _found(outcome: Outcome) -> dict[str, np.ndarray]:
    """Kind -> (H, W) label image of what was found of it."""
    labels = read_image(outcome.files["labels"])
    rows = read_table(outcome.files["table"])
    own = {kind: [int(row["label"]) for row in rows if row["kind"] == kind] for kind in KINDS}
    return {kind: np.where(np.isin(labels, numbers), labels, 0) for kind, numbers in own.items()}


def _demo_folder(output: str) -> pathlib.Path:
    """The folder, relative where it can be, for the commands that are printed.

    Raises:
        FsisError: it has other files than a demo's, or cannot be written to.
    """
    folder = user_path(output)
    here = pathlib.Path.cwd()
    folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    check_folder(folder)
    report = folder / _REPORT
    ours = report.is_file() and report.read_text(errors="replace").startswith(_TITLE)
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise FsisError(f"{folder}: has files that are not a demo's: choose a new folder by --output")
    return folder


def _write_report(folder: pathlib.Path, text: str) -> None:
    with atomic_write(folder / _REPORT) as file:
        file.write(f"{text}\n".encode())


def _write_examples(folder: pathlib.Path) -> dict[str, list[str]]:
    """Kind -> files of crops of its cells, out of another image than the one to segment."""
    other = draw_sample(1)
    files: dict[str, list[str]] = {}
    for kind in KINDS:
        files[kind] = []
        for number, box in enumerate(other.examples(kind), start=1):
            path = folder / f"{kind}-{number}.png"
            write_png(path, cut_reference(other.image, box))
            files[kind].append(str(path))
    return files


_COLUMNS = f"{'kind':14}{'shown':>7}{'in the image':>14}{'found':>8}{'missed':>8}{'false':>7}{'mean area':>12}"


def _row(kind: str, shown: int, found: np.ndarray, truth: np.ndarray) -> str:
    """A line of the table: label images (H, W) of what was found of a kind and of what is there."""
    counts = match(truth, found)
    there = counts.true_positives + counts.false_negatives
    outlines = counts.true_positives + counts.false_positives
    area = f"{np.count_nonzero(found) / outlines:.0f} px" if outlines else "-"
    return (
        f"{kind:14}{shown:7}{there:14}{counts.true_positives:8}{counts.false_negatives:8}"
        f"{counts.false_positives:7}{area:>12}"
    )


def _next(image: str, shown: Mapping[str, Sequence[str]], outcome: Outcome, checkpoint: str | None) -> str:
    """What the numbers mean, where the pictures are, and what to type."""
    model = ["--checkpoint", checkpoint] if checkpoint else []
    kinds = [word for kind, (first, *others) in shown.items() for word in ("--kind", f"{kind}={first}", *others)]
    output = os.path.dirname(outcome.files["labels"])
    command = shlex.join(["fsis", "segment", image, *kinds, *model, "--output", output])
    yours = " ".join(["fsis segment IMAGE --reference IMAGE:X1,Y1,X2,Y2", *map(shlex.quote, model), "--output OUT"])
    return "\n".join(
        [
            "found: cells of the kind that an outline of it covers (IoU of at least 0.5); false: its other outlines.",
            "The cells are drawn: this shows that all works, not how well the model does on yours.",
            "",
            "The picture:",
            f"  {outcome.files['overlay']}",
            "",
            "The same by `fsis segment`:",
            f"  {command}",
            "",
            "Your own image, with a box around one of its cells, in pixels; --reference may be given again:",
            f"  {yours}",
            "Add `--save all` for QuPath, ImageJ and COCO. All arguments: `fsis segment --help`.",
        ]
    )
