"""Whole slides through OpenSlide (the optional packages of the extra `slides`): RGB, with the slide's own levels."""

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import CACHE_BYTES
from fsis_jax.io.damage import one_line
from fsis_jax.io.image_file import ImageFile, Plane
from fsis_jax.io.pixel_size import micrometres
from fsis_jax.io.planes import Listed, Wanted, choose_plane, choose_series

try:
    import openslide
except ImportError:  # not installed, or without its library
    openslide = None  # type: ignore[assignment]

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
_ROWS = 512
"""Rows that are read at once: OpenSlide gives 4 bytes per pixel, and as many are needed to drop the alpha."""


def is_readable_slide(path: str) -> bool:
    """Whether OpenSlide is there and knows the file."""
    return openslide is not None and openslide.OpenSlide.detect_format(path) is not None


def unreadable_slide(path: str) -> FsisError:
    """The error for a slide that is not `is_readable_slide`, nor a TIFF."""
    if openslide is None:
        return FsisError(f'{path}: a whole slide, which needs OpenSlide: pip install "fsis_jax[slides]"')
    return FsisError(f"{path}: not a slide that OpenSlide knows: copy it again with all files that belong to it")


def open_slide(path: str, wanted: Wanted) -> ImageFile:
    """Open a slide that `is_readable_slide`. What was not scanned (transparent) is white.

    Raises:
        FsisError: a damaged file, or one without the files that belong to it.
    """
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise _damaged(path, error, "slide") from error
    try:
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        width, height = slide.dimensions
        choose_series(path, [Listed("", "YXS", (height, width, 3))], wanted)
        choice = choose_plane(path, "YXS", (height, width, 3), wanted)
        planes = [_plane(path, slide, level) for level in range(slide.level_count)]
        if choice.sample is not None:
            planes = [plane.sample(choice.sample) for plane in planes]
        return ImageFile(path, planes, _pixel_size(slide), slide.close)
    except BaseException:
        slide.close()
        raise


def _damaged(path: str, error: Exception, what: str) -> FsisError:
    return FsisError(f"{path}: damaged {what} ({one_line(error)}): copy it again, with all files beside it")


def _pixel_size(slide: "openslide.OpenSlide") -> float | None:
    properties = slide.properties
    if properties.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff":
        return None  # from the resolution tags, which are not trusted (tiff_metadata.py)
    return micrometres(
        properties.get(openslide.PROPERTY_NAME_MPP_X), properties.get(openslide.PROPERTY_NAME_MPP_Y), "µm"
    )


def _plane(path: str, slide: "openslide.OpenSlide", level: int) -> Plane:
    width, height = slide.level_dimensions[level]
    factor = slide.level_downsamples[level]

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        window = np.empty((bottom - top, right - left, 3), np.uint8)
        for y in range(top, bottom, _ROWS):
            size = right - left, min(_ROWS, bottom - y)
            # Its place is given in pixels of the highest level.
            try:
                part = np.asarray(slide.read_region((round(left * factor), round(y * factor)), level, size))
            except openslide.OpenSlideError as error:
                raise _damaged(path, error, "data") from error
            alpha = part[..., 3:]
            if alpha.min() < 255:
                weight = alpha.astype(np.uint16)
                mixed = (part[..., :3] * weight + 255 * (255 - weight) + 127) // 255
                window[y - top : y - top + size[1]] = mixed
            else:
                window[y - top : y - top + size[1]] = part[..., :3]
        return window

    return Plane(path, (height, width, 3), np.dtype(np.uint8), read)
