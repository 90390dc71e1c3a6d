"""`fsis corrections`: its arguments. What it does is imported when it is asked for."""

import argparse
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, add_plane_options, check_exists
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import check_unused, user_path


def corrections_parser() -> Parser:
    """The arguments of `fsis corrections`."""
    parser = Parser(
        prog="fsis corrections",
        description="Make a COCO folder to train on of corrected results, or of cells that were drawn by hand. Every "
        "cell of an image must be in its file: what is in none is learnt as background.",
    )
    parser.add_argument(
        "result",
        nargs="?",
        metavar="OUT",
        help="folder of results of `fsis segment`, whose GeoJSON, ROIs or label images were corrected there, or were "
        "looked at and are right",
    )
    parser.add_argument("--output", "-o", required=True, metavar="DIR", help="name of the new folder")
    parser.add_argument(
        "--image", nargs="+", default=[], metavar="NAME", help="of images, as their results have them; default: all"
    )
    parser.add_argument(
        "--corrected",
        nargs="+",
        action="extend",
        default=[],
        metavar="IMAGE=FILE",
        help="the cells of an image of OUT, given by its name, or without OUT of any image, given by its path: GeoJSON "
        "of QuPath, ROIs of ImageJ (.zip, .roi) or a label image; classes of QuPath and groups of ROIs are categories",
    )
    add_plane_options(parser)
    return parser


def corrections(arguments: Sequence[str]) -> None:
    """`corrections OUT -o DIR`, or `corrections --corrected IMAGE=FILE ... -o DIR`."""
    options = corrections_parser().parse_args(arguments)
    folder = user_path(options.output)
    check_unused(folder)
    corrected = _corrected(options)
    from fsis_jax.cli.corrections_run import run_corrections

    run_corrections(options, folder, corrected)


def _corrected(options: argparse.Namespace) -> dict[str, str]:
    """Image -> file of its cells, as --corrected gives them.

    Raises:
        FsisError: something is not there, or nothing is given.
    """
    given: dict[str, str] = {}
    for text in options.corrected:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise FsisError(f"--corrected {text}: give IMAGE=FILE, like cells.tif=cells.geojson")
        if name in given:
            raise FsisError(f"--corrected {text}: {name} has {given[name]} already: give one file for each image")
        given[name] = file
    if options.result is not None:
        check_exists(options.result, "no results: give the --output of `fsis segment`")
    elif options.image:
        raise FsisError(f"--image {options.image[0]}: give OUT, the folder with its results")
    elif not given:
        raise FsisError("nothing given: give OUT, a folder of results, or --corrected IMAGE=FILE")
    for path in [*(given if options.result is None else ()), *given.values()]:
        check_exists(path)
    return given
