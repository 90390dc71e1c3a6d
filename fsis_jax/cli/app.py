"""`fsis app`: a page in the browser to show cells by pointing, to look at what is found, and to correct it."""

import argparse
import importlib.util
import logging
import pathlib
import webbrowser
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, add_plane_options, pixel_size, tile_side
from fsis_jax.errors import FsisError
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.saved import hold, saved_checkpoint
from fsis_jax.interactive.session import SESSION_FILE, UPLOADS, Session
from fsis_jax.io.atomic import check_folder, user_path
from fsis_jax.pretrained import default_weights

_logger = logging.getLogger(__name__)
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
    if importlib.util.find_spec("bokeh") is None:
        raise FsisError('the page needs Bokeh, which is not installed: pip install "fsis_jax[app]"')
    output = user_path(options.output)
    check_folder(output)
    with hold(output):
        _serve(options, output)


def _serve(options: argparse.Namespace, output: pathlib.Path) -> None:
    """The page of a session, until Ctrl-C."""
    from fsis_jax.app.page import Page
    from fsis_jax.app.server import PageServer, is_local
    from fsis_jax.app.uploads import UPLOAD, UploadHandler

    folders = Folders(options.images, [output / UPLOADS])
    named = options.checkpoint or saved_checkpoint(output / SESSION_FILE)
    checkpoint = named or default_weights()
    _logger.info(f"loading {checkpoint}")
    settings = OutputSettings(
        channel=options.channel,
        page=options.page,
        series=options.series,
        pixel_size=options.pixel_size,
        tile=options.tile,
        category=options.category,
    )
    segmenter = Segmenter.from_pretrained(checkpoint)
    session = Session(segmenter, folders, output, settings, checkpoint=named)
    if session.load():
        _logger.info(f"going on with the session in {output}")
    uploads = [(UPLOAD, UploadHandler, {"session": session})]
    server = PageServer(lambda document: Page(document, session), options.host, options.port, uploads)
    if not is_local(options.host):
        _logger.warning(
            f"--host {options.host}: other machines can reach the page, and whoever has its address can open the "
            "images; what is sent is not encrypted"
        )
    print(f"The page: {server.url}\nIts address holds a secret: give it to nobody. Ctrl-C ends it.", flush=True)
    if not options.no_browser:
        webbrowser.open(server.url)
    try:
        server.run()
    finally:
        session.stop()
        session.save_changes()
