"""`fsis segment` and `fsis references`: their arguments. What they do is imported when it is asked for."""

import math
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, finite, pixel_size, tile_side
from fsis_jax.cli.part_option import part
from fsis_jax.cli.reference_options import add_references, check_there
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path
from fsis_jax.io.names import DEFAULT, FILES, REFERENCES_SUFFIX, RESULTS


def segment_parser() -> Parser:
    """The arguments of `fsis segment`."""
    parser = Parser(
        prog="fsis segment",
        description="Segment every cell like the references, in any number of images. A model of named categories "
        "(config.model.classes) is given no references: it finds what it knows.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, TIFF, OME-TIFF, OME-Zarr, .czi, .nd2, .lif, .ims or a whole slide; a folder of them; or a "
        "pattern like 'plate/*.tif'",
    )
    add_references(parser, several=True)
    parser.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="OUT",
        help="folder for the results; OUT/summary.csv has count, median area and density of each image and kind there",
    )
    parser.add_argument(
        "--save",
        nargs="+",
        choices=[*RESULTS, "all"],
        default=list(DEFAULT),
        metavar="KIND",
        help=f"what is written for each image, of: {', '.join(FILES)}; all of these; zarr, label images of OME-Zarr "
        f"(NGFF 0.5), or zarr-0.4. Default: {' '.join(DEFAULT)}",
    )
    parser.add_argument("--pdf", action="store_true", help="also OUT/overlays.pdf, with a page for each image")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each image instead of a sentence, with the count of each kind in `kinds`",
    )
    parser.add_argument(
        "--pixel-size",
        type=pixel_size,
        metavar="UM",
        help="micrometres per pixel of the images; default: as the file says, if it does",
    )
    parser.add_argument(
        "--min-score", type=finite, help="least score of an instance; default: the best on the validation images"
    )
    parser.add_argument(
        "--tile",
        type=tile_side,
        default=0,
        metavar="PIXELS",
        help="side of the tiles of larger images, each prepared as an image of its own; default: as the model needs",
    )
    parser.add_argument(
        "--augment",
        action="store_true",
        help="look at each image also flipped, and at the scales of the model's config.eval.scales, which takes at "
        "least twice as long",
    )
    parser.add_argument(
        "--min-area", type=finite, default=0.0, metavar="PIXELS", help="leave out cells of fewer pixels"
    )
    parser.add_argument(
        "--max-area", type=finite, default=math.inf, metavar="PIXELS", help="leave out cells of more pixels"
    )
    parser.add_argument(
        "--exclude-edges", action="store_true", help="leave out cells that reach the border of the image"
    )
    parser.add_argument(
        "--raw-masks",
        action="store_true",
        help="masks as the network gives them; else holes are filled, and of a mask in pieces the largest is kept",
    )
    parser.add_argument(
        "--link",
        choices=("z", "t"),
        help="link cells of neighbouring planes that overlap, with --page all: in z each cell of a stack is counted "
        "once, in t it is followed; OUT/NAME-linked.csv has a line for each, OUT/NAME-linked-labels.tif their ids",
    )
    parser.add_argument("--category", metavar="NAME", help="what COCO and QuPath call the cells; default: cell")
    parser.add_argument(
        "--force",
        action="store_true",
        help="segment also images that are finished, and take over OUT/NAME.lock of runs on other machines that have "
        "ended without removing it",
    )
    parser.add_argument(
        "--part",
        type=part,
        metavar="I/N",
        help="do the I-th of N parts of the work, for `fsis merge OUT` to put together when all are done; auto/N: I is "
        "the number, from 1, of the task in a job array of SLURM, PBS, LSF or Grid Engine; auto: so is N",
    )
    parser.add_argument(
        "--dask",
        metavar="SCHEDULER",
        help="have the workers of a Dask cluster find what is in the tiles (extra `dask`): the address of its "
        "scheduler, its scheduler file, or local:N for N processes on this machine",
    )
    return parser


def references_parser() -> Parser:
    """The arguments of `fsis references`."""
    parser = Parser(prog="fsis references", description="Encode references once, to segment with them again and again.")
    add_references(parser)
    parser.add_argument(
        "--output", "-o", required=True, metavar="FILE", help=f"name of the new file, such as nuclei{REFERENCES_SUFFIX}"
    )
    return parser


def segment(arguments: Sequence[str]) -> None:
    """`segment IMAGE... --references CROP... --output OUT`."""
    options = segment_parser().parse_args(arguments)
    check_there(options.images, options)
    if options.part is not None and options.dask is not None:
        raise FsisError("--part and --dask: two ways to many machines: give one")
    if options.part is not None:
        from fsis_jax.cli.merging import run_part

        run_part(options)
        return
    if options.dask is not None:
        from fsis_jax.cli.dask_cluster import run_on_dask

        run_on_dask(options)
        return
    from fsis_jax.cli.segmenting_run import run_segment

    run_segment(options)


def references(arguments: Sequence[str]) -> None:
    """`references --references CROP... --output FILE.refs`."""
    options = references_parser().parse_args(arguments)
    file = user_path(options.output)
    if file.suffix != REFERENCES_SUFFIX:
        raise FsisError(
            f"{options.output}: give a name that ends in {REFERENCES_SUFFIX}, "
            f"such as {file.stem or 'nuclei'}{REFERENCES_SUFFIX}"
        )
    check_there((), options)
    from fsis_jax.cli.segmenting_run import run_references

    run_references(options, file)
