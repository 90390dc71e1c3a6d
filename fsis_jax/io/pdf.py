"""Pictures as the pages of a PDF."""

import os
from collections.abc import Iterator, Mapping

from PIL import Image, ImageDraw, ImageFont

from fsis_jax.io.files import atomic_write

_CAPTION = 34
"""Pixels above a picture."""
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def write_pdf(path: str | os.PathLike[str], pages: Mapping[str, str | os.PathLike[str]]) -> None:
    """A page for each picture, with its caption above.

    Args:
        pages: caption -> PNG file. One is held in memory at a time.

    Raises:
        OutputError: the file cannot be written.
    """
    drawn = _draw(pages)
    with atomic_write(path) as file:
        next(drawn).save(file, format="PDF", save_all=True, append_images=drawn, resolution=150)


def _draw(pages: Mapping[str, str | os.PathLike[str]]) -> Iterator[Image.Image]:
    font = ImageFont.load_default(size=18)
    for caption, picture in pages.items():
        with Image.open(picture) as opened:
            page = Image.new("RGB", (opened.width, opened.height + _CAPTION), _PAPER)
            page.paste(opened, (0, _CAPTION))
        ImageDraw.Draw(page).text((10, 7), caption, fill=_INK, font=font)
        yield page
