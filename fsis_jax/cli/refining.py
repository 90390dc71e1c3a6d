"""`fsis refine`: its arguments. What it does is imported when it is asked for."""

from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, add_plane_options, check_exists
from fsis_jax.cli.reference_options import add_checkpoint, check_checkpoint
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path
from fsis_jax.io.names import REFERENCES_SUFFIX


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
    check_exists(options.references, "no such file: make it with `fsis references`")
    check_exists(options.result, "no results: give the --output of `fsis segment`")
    if options.corrected:
        check_exists(options.corrected)
    check_checkpoint(options.checkpoint)
    from fsis_jax.cli.refining_run import run_refine

    run_refine(options, file)
