"""`fsis app`, a page in the browser to show cells by pointing and to correct what is found: its arguments.

What it does is imported when it is asked for.
"""

import argparse
import importlib.util
import os
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, add_plane_options, check_exists, pixel_size, tile_side
from fsis_jax.cli.reference_options import check_checkpoint
from fsis_jax.errors import FsisError

_LOCAL = "127.0.0.1"


def app_parser() -> Parser:
    """Of `app`."""
    parser = Parser(
        prog="fsis app",
        description="Show cells by pointing, correct by clicking: a page in the browser of this machine. It prints the "
        "page's address, and stops at Ctrl-C.",
    )
    parser.add_argument(
        "images",
        nargs="*",
        default=["."],
        metavar="IMAGE",
        help="images and folders of them; no other files can be opened. Default: the current folder",
    )
    parser.add_argument(
        "--output",
        "-o",
        default="fsis-app",
        metavar="OUT",
        help="folder for results and for the session; one that is there is gone on with",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="W",
        help="the model, as for `fsis segment`; default: that of the session in OUT, else as there",
    )
    add_plane_options(parser)
    parser.add_argument(
        "--pixel-size",
        type=pixel_size,
        metavar="UM",
        help="micrometres per pixel of the images; default: as the file says, if it does",
    )
    parser.add_argument(
        "--tile",
        type=tile_side,
        default=0,
        metavar="PIXELS",
        help="side of the tiles of larger images, as for `fsis segment`; default: as the model needs",
    )
    parser.add_argument("--category", metavar="NAME", help="what COCO and QuPath call the cells; default: cell")
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="port of the page; default: any that is free"
    )
    parser.add_argument(
        "--host",
        default=_LOCAL,
        metavar="ADDRESS",
        help=f"address to listen on; with another than {_LOCAL} other machines reach the page, unencrypted",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address of the page without opening it")
    return parser


def _port(text: str) -> int:
    """The number of a port."""
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number below {1 << 16}")
    return int(text)


def app(arguments: Sequence[str]) -> None:
    """`app [IMAGE...] [--output OUT]`."""
    options = app_parser().parse_args(arguments)
    for path in options.images:
        check_exists(path, "no such file or folder: check the path")
    check_checkpoint(options.checkpoint)
    if importlib.util.find_spec("bokeh") is None:
        raise FsisError('the page needs Bokeh, which is not installed: pip install "fsis_jax[app]"')
    # On a GPU JAX would take most of the memory at once, and the process of a fine-tuning needs some, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from fsis_jax.cli.app_run import run_app

    run_app(options)
