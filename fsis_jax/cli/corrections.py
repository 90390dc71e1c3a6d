"""`fsis corrections`: what a person corrected, as data to train on."""

import argparse
import functools
import shlex
from collections.abc import Iterator, Sequence

from fsis_jax.cli.parsing import Parser, add_plane_options
from fsis_jax.errors import FsisError
from fsis_jax.inference.corrections import Correction, corrections_in
from fsis_jax.inference.drawn_cells import read_cells
from fsis_jax.inference.training_data import CorrectedImage, suited_steps, write_training_data
from fsis_jax.io.atomic import check_unused, user_path
from fsis_jax.io.outputs import plane_parts
from fsis_jax.io.source import open_image


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
    chosen = _chosen(options)
    images, cells = write_training_data(folder, _read(chosen, options))
    as_written = sum(not each.corrected for each in chosen)
    told = f" ({as_written} as `fsis segment` wrote {'them' if as_written > 1 else 'it'})" if as_written else ""
    print(f"{folder}: {cells} cells in {images} pictures, of {len(chosen)} image{'s' * (len(chosen) > 1)}{told}")
    print(f"next: {next_command(options.output, images)}")


def next_command(folder: str, images: int) -> str:
    """The training that suits so many images."""
    root = shlex.quote(f"--config.data.root={folder}")
    steps = f"--config.training.steps={suited_steps(images)}"
    return f"fsis train --config configs/few_images.py {root} {steps} --workdir runs/few_images"


def _chosen(options: argparse.Namespace) -> list[Correction]:
    given: dict[str, str] = {}
    for text in options.corrected:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise FsisError(f"--corrected {text}: give IMAGE=FILE, like cells.tif=cells.geojson")
        if name in given:
            raise FsisError(f"--corrected {text}: {name} has {given[name]} already: give one file for each image")
        given[name] = file
    if options.result is not None:
        plane = plane_parts(series=options.series, channel=options.channel, page=options.page)
        return corrections_in(options.result, options.image, given, plane=plane)
    if options.image:
        raise FsisError(f"--image {options.image[0]}: give OUT, the folder with its results")
    if not given:
        raise FsisError("nothing given: give OUT, a folder of results, or --corrected IMAGE=FILE")
    return [Correction(image, file, corrected=True) for image, file in given.items()]


def _read(chosen: Sequence[Correction], options: argparse.Namespace) -> Iterator[CorrectedImage]:
    opener = functools.partial(open_image, channel=options.channel, page=options.page, series=options.series)
    named: dict[tuple[str, ...], str] = {}
    for each in chosen:
        with opener(each.image) as image:
            cells = read_cells(each.file, (image.shape[0], image.shape[1]), open_image)
            if len(cells):
                named.setdefault(cells.names, each.file)
                _check_names(named)
            yield CorrectedImage(image, cells)


def _check_names(named: dict[tuple[str, ...], str]) -> None:
    """Raise FsisError where some files have classes and others none, which would make them a category of their own."""
    classes = {name for names in named for name in names}
    if () in named and classes - {"cell"}:
        known = ", ".join(sorted(classes))
        raise FsisError(f"{named[()]}: its cells have no class, those of other images have ({known}): give them one")
