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

from fsis_jax.cli.many_planes import base_settings, each_plane, link_planes
from fsis_jax.cli.references_given import NO_REFERENCE, load_model, read_examples
from fsis_jax.cli.streams import say
from fsis_jax.errors import FsisError, printable
from fsis_jax.inference.augmentation import variants
from fsis_jax.inference.example_cells import encode_examples
from fsis_jax.inference.output_settings import Outcome, OutputSettings
from fsis_jax.inference.segment_files import segment_files
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tidying import Tidying
from fsis_jax.io.all_planes import ALL
from fsis_jax.io.atomic import user_path
from fsis_jax.io.finding import image_files
from fsis_jax.io.names import FILES
from fsis_jax.io.outputs import check_results
from fsis_jax.io.pdf import write_pdf
from fsis_jax.pretrained import default_weights

_logger = logging.getLogger(__name__)


def run_segment(options: argparse.Namespace) -> None:
    """`fsis segment`, of its arguments."""
    paths = image_files(options.images)
    only = paths[0] if len(paths) == 1 else None
    saved, examples = read_examples(options, only)
    segmenter = load_model(options.checkpoint)
    if segmenter.names:
        _check_closed_set(segmenter, options, saved is not None or len(examples) > 0)
    elif saved is None and not examples:
        raise FsisError(NO_REFERENCE)
    segmenter = segmenter.with_options(
        min_score=options.min_score,
        variants=variants(flip=True, scales=segmenter.config.eval.scales) if options.augment else None,
    )
    references = saved or (encode_examples(segmenter, examples, options.category) if examples else None)
    kinds = list(FILES) if "all" in options.save else list(dict.fromkeys(options.save))
    if options.pdf and "overlay" not in kinds:
        kinds.append("overlay")
    if options.link and (options.page != ALL or "labels" not in kinds):
        raise FsisError(f"--link {options.link}: links the planes of --page all by their labels: give both, or neither")
    output = user_path(options.output)
    settings = OutputSettings(
        save=tuple(kinds),
        channel=options.channel,
        page=options.page,
        series=options.series,
        pixel_size=options.pixel_size,
        tile=options.tile,
        category=options.category,
        tidying=Tidying(
            whole=not options.raw_masks,
            exclude_edges=options.exclude_edges,
            min_area=options.min_area,
            max_area=options.max_area,
        ),
    )
    read = [*options.references, options.reference_mask, options.reference_outlines, options.reference_image]
    groups = each_plane(paths, settings, options.link)
    names = [chosen.name(path) for chosen, own in groups for path in own]
    check_results([path for path in read if path], names, output, kinds)
    done: list[tuple[OutputSettings, Outcome]] = []
    progress = tqdm(total=len(names), unit="image", file=sys.stderr, disable=None, bar_format=_BAR)
    with _ends_as_by_ctrl_c(), progress as bar:

        def advance(path: str, tile: int, total: int) -> None:
            if len(names) > 1:
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
            started = segment_files(segmenter, own, references, output, chosen, force=options.force, progress=shown)
            for outcome in started:
                done.append((chosen, outcome))
                _tell(outcome, segmenter, json_lines=options.json, planes=len(groups) > 1)
    outcomes = [outcome for _, outcome in done]
    finished = [outcome for outcome in outcomes if not outcome.error]
    if options.pdf and finished:
        pages = {_told(outcome, segmenter, len(groups) > 1): outcome.files["overlay"] for outcome in finished}
        write_pdf(output / f"overlays{base_settings(settings).suffix}.pdf", pages)
    for linked in link_planes(options.link, output, done) if options.link else ():
        if options.json:
            say(json.dumps({**dataclasses.asdict(linked), "link": options.link}))
        else:
            what = " ".join([linked.image, *linked.plane])
            say(printable(f"{what}: {linked.cells} cells in {linked.planes} planes, linked in {options.link}"))
    _report_failures(outcomes, output)


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
def _ends_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, by which a cluster ends a job, is Ctrl-C: what is written is complete, and no lock stays."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_closed_set(segmenter: Segmenter, options: argparse.Namespace, referenced: bool) -> None:
    """Raise FsisError where a model of named categories is asked for what only references do."""
    known = ", ".join(segmenter.names[:5]) + ", ..." * (len(segmenter.names) > 5)
    name = options.checkpoint or default_weights()
    if referenced:
        raise FsisError(f"{name} finds what it knows by name ({known}): leave the references out")
    if options.category is not None:
        raise FsisError(f"--category {options.category}: {name} has names of its own ({known}): leave it out")


def _report_failures(outcomes: Sequence[Outcome], output: pathlib.Path) -> None:
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
