"""`fsis refine`: references that know what a person says of a result."""

import argparse
from collections.abc import Sequence

import numpy as np

from fsis_jax.cli.parsing import Parser, add_plane_options
from fsis_jax.cli.reference_options import add_checkpoint
from fsis_jax.cli.references_given import load_model
from fsis_jax.errors import FsisError
from fsis_jax.inference.references import References
from fsis_jax.inference.references_file import load_references
from fsis_jax.inference.refining import corrected, read_result, traits_of
from fsis_jax.io.atomic import user_path
from fsis_jax.io.names import REFERENCES_SUFFIX
from fsis_jax.io.source import open_image


def refine_parser() -> Parser:
    """The arguments of `fsis refine`."""
    parser = Parser(
        prog="fsis refine",
        description="Tell what is wrong in a result, so that the next images are better: the references learn from it "
        "in a second, without training. Cells are named by their numbers in the table, or a corrected GeoJSON tells.",
    )
    parser.add_argument(
        "references", metavar="PANEL", help=f"the {REFERENCES_SUFFIX} file that the result was made with"
    )
    parser.add_argument("--result", required=True, metavar="OUT", help="the folder of results of `fsis segment`")
    parser.add_argument("--image", metavar="NAME", help="of the image, as its results have it; default: the only one")
    parser.add_argument(
        "--wrong", nargs="+", default=[], metavar="ID", help="numbers of what is no cell of any of the kinds"
    )
    parser.add_argument(
        "--right",
        nargs="+",
        action="append",
        default=[],
        metavar="KIND=ID",
        help="numbers of cells that are of this kind, whatever they were taken for, as in --right dead=3 17",
    )
    parser.add_argument(
        "--corrected",
        metavar="FILE",
        help="the result's GeoJSON, corrected in QuPath: what is gone is wrong, a changed class is right, a new "
        "outline is a cell that was missed",
    )
    parser.add_argument("--output", "-o", required=True, metavar="FILE", help="name of the new file of references")
    add_checkpoint(parser)
    add_plane_options(parser)
    return parser


def refine(arguments: Sequence[str]) -> None:
    """`refine PANEL.refs --result OUT --wrong ID... -o BETTER.refs`."""
    options = refine_parser().parse_args(arguments)
    file = user_path(options.output)
    if file.suffix != REFERENCES_SUFFIX:
        raise FsisError(f"{options.output}: give a name that ends in {REFERENCES_SUFFIX}")
    if not (options.wrong or options.right or options.corrected):
        raise FsisError("no correction given: give --wrong ID, --right KIND=ID or --corrected FILE")
    panel = load_references(options.references)
    segmenter = load_model(options.checkpoint)
    segmenter.check_references(panel)
    result = read_result(options.result, options.image, model=segmenter.fingerprint)
    kinds = panel.kinds or ("cell",)
    wrong, right = _rows(options, len(result.boxes))
    boxes = result.boxes
    if options.corrected:
        gone, changed, missed = corrected(result, options.corrected, kinds)
        wrong, right, boxes = [*wrong, *gone], {**changed, **right}, np.concatenate([boxes, missed])
    chosen = sorted({*wrong, *right})
    plane = {"channel": options.channel, "page": options.page, "series": options.series}
    with open_image(result.path, **plane) as image:
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
        right |= {row(text, "--right"): name for text in (number, *others)}
    return [row(text, "--wrong") for text in options.wrong], right
