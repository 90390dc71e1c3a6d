"""`fsis segment --part` and `fsis merge`: a run in parts, and what they make together."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, check_exists
from fsis_jax.cli.streams import say
from fsis_jax.errors import FsisError, printable
from fsis_jax.io.atomic import user_path

_NO_PARTS = "has no parts: run `fsis segment ... --part 1/16` into it, and the others"


def merge_parser() -> Parser:
    """The arguments of `fsis merge`."""
    parser = Parser(
        prog="fsis merge",
        description="Make the results of a run whose parts were segmented by `fsis segment ... --part 3/16`: the files "
        "that one run would have written.",
    )
    parser.add_argument("output", metavar="OUT", help="the folder that was given to the parts as --output")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each image instead of a sentence")
    return parser


def merge(arguments: Sequence[str]) -> None:
    """`merge OUT`."""
    options = merge_parser().parse_args(arguments)
    check_exists(options.output, _NO_PARTS)
    from fsis_jax.cli.prepared_run import prepare
    from fsis_jax.cli.segmenting_run import segment_prepared
    from fsis_jax.inference.parts import Merged, PartsFolder

    folder = PartsFolder(user_path(options.output))
    plan = folder.plan()
    if plan is None:
        raise FsisError(f"{options.output}: {_NO_PARTS}")
    folder.done(plan.count)  # before the model is read
    given = argparse.Namespace(**{**plan.command, "output": options.output, "json": options.json})
    run = prepare(given, encoded=folder.references())
    segment_prepared(run, given, Merged(run.segmenter, run.groups, run.references, folder, plan))


def run_part(options: argparse.Namespace) -> None:
    """`fsis segment --part`, of its arguments."""
    from tqdm import tqdm

    from fsis_jax.cli.prepared_run import prepare
    from fsis_jax.cli.segmenting_run import ends_as_by_ctrl_c, report_failures
    from fsis_jax.inference.output_settings import Outcome
    from fsis_jax.inference.part_plan import Part
    from fsis_jax.inference.parts import segment_part

    part = Part(*options.part)
    if options.force:
        raise FsisError(f"--force with --part {part}: a part that is run again does what it lacks: leave one out")
    run = prepare(options)
    outcomes = []
    progress = tqdm(unit="tile", file=sys.stderr, disable=None)
    with ends_as_by_ctrl_c(), progress as bar:
        before: dict[str, int] = {}

        def advance(path: str, tile: int, total: int) -> None:
            bar.set_postfix_str(f"{pathlib.Path(path).name}: tile {tile}/{total}", refresh=False)
            bar.update(tile - before.get(path, tile - 1))
            before[path] = tile

        done = segment_part(
            run.segmenter, run.groups, run.references, run.output, part, _command(options, run.paths), progress=advance
        )
        for path, error in done:
            outcomes.append(Outcome(path, error=error))
    report_failures(outcomes, run.output)
    count = len(outcomes)
    say(printable(f"{run.output}: part {part} is done, {count} image{'s' * (count != 1)}: `fsis merge` when all are"))


def _command(options: argparse.Namespace, paths: Sequence[str]) -> dict[str, object]:
    """What `merge` must know of the arguments of a part; paths are absolute, and references are kept apart."""
    from fsis_jax.pretrained import default_weights

    checkpoint = options.checkpoint or default_weights()
    return {
        **vars(options),
        "images": [os.path.abspath(path) for path in paths],
        "checkpoint": str(user_path(checkpoint)) if os.path.exists(user_path(checkpoint)) else checkpoint,
        **{name: [] for name in ("references", "reference", "kind", "unwanted")},
        **dict.fromkeys(("reference_mask", "reference_outlines", "reference_image"), None),
        "part": None,
    }
