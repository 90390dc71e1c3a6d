"""Pictures as the pages of a PDF."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from fsis_jax.io.atomic import atomic_write

_CAPTION = 34
"""Pixels above a picture."""
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_PER_INCH = 150


def write_pdf(path: str | os.PathLike[str], pages: Mapping[str, str | os.PathLike[str]]) -> None:
    """A page for each picture, with its caption above.

    Args:
        pages: caption -> PNG file. One is held in memory at a time.

    Raises:
        OutputError: the file cannot be written.
    """
    font = ImageFont.load_default(size=18)
    with atomic_write(path) as file, tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, "pages.pdf")
        for number, (caption, picture) in enumerate(pages.items()):
            # Given all pages at once, Pillow would hold all of them.
            _draw(caption, picture, font).save(made, format="PDF", append=number > 0, resolution=_PER_INCH)
        with made.open("rb") as source:
            shutil.copyfileobj(source, file)


def _draw(
    caption: str, picture: str | os.PathLike[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    """The picture with its caption above, RGB."""
    with Image.open(picture) as opened:
        page = Image.new("RGB", (opened.width, opened.height + _CAPTION), _PAPER)
        page.paste(opened, (0, _CAPTION))
    ImageDraw.Draw(page).text((10, 7), caption, fill=_INK, font=font)
    return page
