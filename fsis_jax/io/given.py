"""What a caller of the Python interface gives as an image, a crop or the size of a pixel, made what is worked with.

Arrays of any library on the host, nested lists, PIL's images and paths are images. Whatever is none is an FsisError
here, and nothing odd later.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import ArrayLike

from fsis_jax.errors import FsisError
from fsis_jax.io.damage import one_line
from fsis_jax.io.intensity import Image, check_shape
from fsis_jax.io.pixel_size import LARGEST, SMALLEST, micrometres
from fsis_jax.io.source import open_image

ImageLike = Image | ArrayLike | PIL.Image.Image | str | os.PathLike[str]
"""What `as_image` takes."""
_REMEDY = "give an array (H, W) or (H, W, 3) of numbers, a PIL image or the path of a file"
_PLAIN_MODES = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "RGB", "RGBA")
"""PIL's modes whose numbers are grey levels or red, green and blue."""


def as_image(given: ImageLike, name: str = "the image") -> Image:
    """An image: what is sliced lazily stays so, a path is opened (`open_image`), anything else becomes an array.

    Args:
        name: of the image, for messages.

    Raises:
        FsisError: no image, or one that is not on the host.
    """
    image: Any = given
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    if isinstance(image, PIL.Image.Image):
        image = _from_pil(image, name)
    if not (hasattr(image, "shape") and isinstance(getattr(image, "dtype", None), np.dtype)):
        try:
            image = np.asarray(image)
        except (TypeError, ValueError, RuntimeError) as error:  # lists of no one length, tensors of a GPU or with grad
            raise FsisError(f"{name}: not an array ({one_line(error)}): {_REMEDY}") from error
    if image.dtype.kind not in "buif" or image.dtype.itemsize > 8:
        what = type(given).__name__ if image.dtype == object else f"pixels of type {image.dtype}"
        raise FsisError(f"{name}: {what}: {_REMEDY}")
    if image.dtype == bool:
        image = np.asarray(image).astype(np.uint8) * np.uint8(255)
    elif image.dtype == np.float16:
        image = np.asarray(image).astype(np.float32)
    check_shape(image)
    return image


def _from_pil(image: PIL.Image.Image, name: str) -> np.ndarray:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise FsisError(f"{name}: a PIL image of {frames} frames: give one, or open_image(path, page=...)")
    try:
        if image.mode in ("LA", "La"):
            return np.asarray(image.getchannel(0))
        return np.asarray(image if image.mode in _PLAIN_MODES else image.convert("RGB"))
    except (OSError, ValueError) as error:  # of its file, which is read only now
        raise FsisError(f"{name}: a PIL image that cannot be read ({one_line(error)}): {_REMEDY}") from error


def as_crops(given: Sequence[ImageLike], names: Sequence[str] = ()) -> tuple[Sequence[str], list[np.ndarray]]:
    """Crops of cells as arrays, with their names in messages: `names`, or "reference 1" and so on.

    Raises:
        FsisError: none, a single one that is not in a list, or one that is no image.
    """
    shape: tuple[int, ...] = getattr(given, "shape", ())
    single = isinstance(given, str | bytes | os.PathLike | PIL.Image.Image) or len(shape) == 2
    if single or (len(shape) == 3 and shape[2] <= 4) or not hasattr(given, "__iter__"):
        raise FsisError(f"references of type {type(given).__name__}: give a list of crops, [crop], or encoded ones")
    crops = list(given)
    if not crops:
        raise FsisError("no reference given: give at least one crop of a cell")
    names = names or [f"reference {number}" for number in range(1, len(crops) + 1)]
    return names, [np.asarray(as_image(crop, name)) for crop, name in zip(crops, names, strict=True)]


def known_pixel_size(image: Image | None, given: float | None) -> float | None:
    """Micrometres per pixel: as given, else as the image itself says (`ImageFile.pixel_size`), if it does.

    Raises:
        FsisError: no number, or none that the side of a pixel can have.
    """
    if given is None:
        return getattr(image, "pixel_size", None)
    if micrometres(given, given, "µm") is None:
        raise FsisError(f"pixel_size={given!r}: give micrometres per pixel, from {SMALLEST:g} to {LARGEST:g}, or None")
    return float(given)
