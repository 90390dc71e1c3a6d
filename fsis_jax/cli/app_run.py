"""What `fsis app` does: it shows the page of a session, until Ctrl-C."""

import argparse
import logging
import pathlib
import webbrowser

from fsis_jax.app.page import Page
from fsis_jax.app.server import PageServer
from fsis_jax.app.uploads import UPLOAD, UploadHandler
from fsis_jax.cli.segmenting_run import ends_as_by_ctrl_c
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.saved import hold, saved_checkpoint
from fsis_jax.interactive.session import SESSION_FILE, UPLOADS, Session
from fsis_jax.io.atomic import check_folder, user_path
from fsis_jax.pretrained import default_weights

_logger = logging.getLogger(__name__)


def run_app(options: argparse.Namespace) -> None:
    """`fsis app`, of its arguments."""
    output = user_path(options.output)
    check_folder(output)
    with ends_as_by_ctrl_c(), hold(output):
        _serve(options, output)


def _serve(options: argparse.Namespace, output: pathlib.Path) -> None:
    """The page of a session, until Ctrl-C."""
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
    if not server.is_local:
        _logger.warning(
            f"--host {options.host}: other machines can reach the page, and whoever has its address can open the "
            "images; what is sent is not encrypted"
        )
    print(f"The page: {server.url}\nIts address holds a secret: give it to nobody. Ctrl-C ends it.", flush=True)
    if not options.no_browser:
        webbrowser.open(server.url)
    session.keep()
    try:
        server.run()
    finally:
        session.close()
