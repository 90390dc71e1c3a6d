"""What `fsis segment` and `fsis references` do: example cells and images in, files and counts out."""

import argparse
import contextlib
import dataclasses
import json
import logging
import pathlib
import signal
import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from fsis_jax.cli.many_planes import base_settings, link_planes
from fsis_jax.cli.prepared_run import PreparedRun, prepare
from fsis_jax.cli.references_given import NO_REFERENCE, load_model, read_examples
from fsis_jax.cli.streams import say
from fsis_jax.errors import FsisError, printable
from fsis_jax.inference.example_cells import encode_examples
from fsis_jax.inference.files_run import segment_from
from fsis_jax.inference.output_settings import Outcome, OutputSettings
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_source import TileSource
from fsis_jax.io.pdf import write_pdf

_logger = logging.getLogger(__name__)


def run_segment(options: argparse.Namespace) -> None:
    """`fsis segment`, of its arguments."""
    run = prepare(options)
    segment_prepared(run, options, TileSource(run.segmenter))


def segment_prepared(run: PreparedRun, options: argparse.Namespace, source: TileSource) -> None:
    """Segment the images of a run, and tell what became of them.

    Args:
        options: of which `force`, `json`, `pdf` and `link` are looked at.
        source: as for `segment_from`.
    """
    segmenter, groups, output = run.segmenter, run.groups, run.output
    done: list[tuple[OutputSettings, Outcome]] = []
    progress = tqdm(total=run.count, unit="image", file=sys.stderr, disable=None, bar_format=_BAR)
    with ends_as_by_ctrl_c(), progress as bar:

        def advance(path: str, tile: int, total: int) -> None:
            if run.count > 1:
                bar.n = round(len(done) + tile / total, 2)
                tiles = f"{pathlib.Path(path).name}: tile {tile}/{total}" if total > 1 else ""
                bar.set_postfix_str(tiles, refresh=False)
            else:
                if bar.unit == "image":  # the rate is that of this run
                    bar.unit, bar.total, bar.initial = "tile", total, tile - 1
                bar.n = tile
            bar.refresh()

        shown = None if bar.disable else advance
        for chosen, own in groups:
            started = segment_from(source, own, run.references, output, chosen, force=options.force, progress=shown)
            for outcome in started:
                done.append((chosen, outcome))
                _tell(outcome, segmenter, json_lines=options.json, planes=len(groups) > 1)
    outcomes = [outcome for _, outcome in done]
    finished = [outcome for outcome in outcomes if not outcome.error]
    if options.pdf and finished:
        pages = {_told(outcome, segmenter, len(groups) > 1): outcome.files["overlay"] for outcome in finished}
        write_pdf(output / f"overlays{base_settings(run.settings).suffix}.pdf", pages)
    for linked in link_planes(options.link, output, done) if options.link else ():
        if options.json:
            say(json.dumps({**dataclasses.asdict(linked), "link": options.link}))
        else:
            what = " ".join([linked.image, *linked.plane])
            say(printable(f"{what}: {linked.cells} cells in {linked.planes} planes, linked in {options.link}"))
    report_failures(outcomes, output)


def _tell(outcome: Outcome, segmenter: Segmenter, *, json_lines: bool, planes: bool) -> None:
    """Print what became of an image, or of one of several planes."""
    if json_lines:
        tqdm.write(json.dumps(dataclasses.asdict(outcome)))
    elif not outcome.error:
        tqdm.write(printable(_told(outcome, segmenter, planes)))
        for cause in outcome.causes:
            tqdm.write(printable(f"  {cause}"), file=sys.stderr)


def _told(outcome: Outcome, segmenter: Segmenter, planes: bool) -> str:
    """How many cells an image has, or one of several planes of it; of several kinds how many of each."""
    what = " ".join([outcome.image, *outcome.plane]) if planes else outcome.image
    if segmenter.names:
        return f"{what}: {outcome.cells} instances"
    kinds = [f"{count} {kind}" for kind, count in outcome.kinds.items()]
    return f"{what}: {', '.join(kinds) if len(kinds) > 1 else f'{outcome.cells} cells'}"


_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


@contextlib.contextmanager
def ends_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, by which a cluster ends a job, is Ctrl-C: what is written is complete, and no lock stays."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report_failures(outcomes: Sequence[Outcome], output: pathlib.Path) -> None:
    """Raise FsisError where images failed, of several with a line in the log for each."""
    failed = [outcome for outcome in outcomes if outcome.error]
    others = len(outcomes) - len(failed)
    kept = f"; {output} has the results of the others ({others})" if others else ""
    if len(failed) == 1:
        raise FsisError(f"{failed[0].error}{kept}")
    if failed:
        for outcome in failed:
            _logger.error(f"failed: {outcome.error}")
        raise FsisError(f"{len(failed)} of {len(outcomes)} images failed, as told above{kept}")


def run_references(options: argparse.Namespace, file: pathlib.Path) -> None:
    """`fsis references`, of its arguments."""
    saved, examples = read_examples(options, None)
    if saved is not None:
        raise FsisError(f"{options.references[0]}: these references are encoded already")
    if not examples:
        raise FsisError(NO_REFERENCE)
    encoded = encode_examples(load_model(options.checkpoint), examples)
    encoded.save(file)
    count = len(encoded.sides)
    say(f"{count} reference{'s' * (count > 1)} written to {file}")
