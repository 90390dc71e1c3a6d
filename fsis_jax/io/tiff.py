"""TIFF in all its dialects (OME, ImageJ, BigTIFF, slides), read window by window.

Here a file is opened: which of its images is meant (`tiff_images.py`), which plane (`planes.py`), and what its metadata
tell of it (`tiff_metadata.py`). `tiff_planes.py` reads the pixels.
"""

import io
import logging
import os

import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.damage import CUT_OFF, damage_in
from fsis_jax.io.image_file import ImageFile, check_size
from fsis_jax.io.planes import Wanted, choose_plane
from fsis_jax.io.tiff_images import choose_image
from fsis_jax.io.tiff_metadata import channel_names, check_ome, pixel_size
from fsis_jax.io.tiff_planes import Reader

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# What tifffile logs of odd files either does not matter or is an error of ours.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False


def open_tiff(file: str | os.PathLike[str] | bytes, name: str, wanted: Wanted) -> ImageFile:
    """Open a TIFF by its path or its bytes; `name` stands for it in messages.

    Raises:
        FsisError: a damaged or truncated file, no such image or plane, several images or a stack of which none was
            chosen.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else os.fspath(file)
    with damage_in(name, "truncated or damaged TIFF"), tifffile.TiffFile(source, name=os.path.basename(name)) as tiff:
        if not tiff.pages:
            raise FsisError(f"{name}: truncated or damaged TIFF (no image in it): {CUT_OFF}")
        check_size(name, tiff.pages.first.imagelength, tiff.pages.first.imagewidth)
        check_ome(tiff)
        image = choose_image(tiff, name, wanted)
        reader = Reader(file if isinstance(file, bytes) else os.fspath(file), name, wanted.labels)
        axes, shape = reader.axes(image.series)
        names = channel_names(tiff, image, dict(zip(axes, shape, strict=True)).get("C", 1))
        choice = choose_plane(name, axes, shape, wanted, names)
        planes = [reader.plane(level, axes, choice) for level in (image.series, *image.coarser)]
        return ImageFile(name, planes, pixel_size(tiff, image))
