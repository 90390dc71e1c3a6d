"""Opening an image to segment as the settings say, with what its user should know before."""

import logging

from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.io.false_colour import only_stain
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.source import open_image
from fsis_jax.io.writers import check_coco

_logger = logging.getLogger(__name__)


def open_target(
    path: str, settings: OutputSettings, references: References, *, warn: bool = True
) -> tuple[ImageFile, float | None]:
    """The plane that is chosen of a file, and its micrometres per pixel, where they are known.

    Raises:
        FsisError: it cannot be read, or has too many pixels for a kind of result.
    """
    image = open_image(path, channel=settings.channel, page=settings.page, series=settings.series)
    stain = only_stain(image) if warn else None
    if stain is not None:
        _logger.warning(f"{path}: read as colour, but shows one stain: --channel {stain} reads it as grey")
    if "coco" in settings.save:
        check_coco(path, image.shape)
    size = image.pixel_size if settings.pixel_size is None else settings.pixel_size
    if warn and size is None and references.pixel_size is not None:
        _logger.warning(
            f"{path}: its pixel size is not known; taken for that of the references, "
            f"{references.pixel_size:g} µm: tell by --pixel-size"
        )
    return image, size
