"""An open image file: a plane that is read when it is sliced, its coarser resolutions and the size of its pixels."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from fsis_jax.errors import FsisError
from fsis_jax.io.damage import CUT_OFF, damage_in

_LONGEST_SIDE = (1 << 31) - 1
_MOST_PIXELS = 1 << 36
_READ_AS = {"b1": "u1", "f2": "f4"}

ReadWindow = Callable[[int, int, int, int], np.ndarray]
"""read(top, bottom, left, right): the pixels of a window that lies in the plane and is not empty."""
Slices = slice | tuple[slice, slice]
"""Rows, or rows and columns."""


def check_size(name: str, height: int, width: int, most: int = _MOST_PIXELS, remedy: str = "export a part") -> None:
    """Raise FsisError if the sides that a file declares cannot be those of an image, or are too many pixels."""
    if not (isinstance(height, int) and isinstance(width, int)):  # a damaged file may declare several for one
        raise FsisError(f"{name}: declares {width} x {height} pixels: {CUT_OFF}")
    if not (0 < height <= _LONGEST_SIDE and 0 < width <= _LONGEST_SIDE and height * width <= most):
        raise FsisError(f"{name}: declares {width}x{height} pixels: {remedy if height * width else CUT_OFF}")


class ClosedError(ValueError):
    """A plane was sliced after its file was closed."""


class Plane:
    """(H, W), (H, W, 3) or (H, W, 4) of an image file (follows `Image`); a window is decoded when it is sliced.

    `np.asarray` reads all of it.
    Pixels are in the machine's byte order; bool is read as 0 and 255 (uint8), float16 as float32.

    Args:
        dtype: of the pixels that `read` returns.

    Raises:
        FsisError: sides or pixels that an image cannot have.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype, read: ReadWindow) -> None:
        check_size(name, shape[0], shape[1])
        if dtype.kind not in "buif" or dtype.itemsize > 8:
            raise FsisError(f"{name}: pixels of type {dtype}: save the image as 8-bit, 16-bit or float")
        self.shape, self.ndim = shape, len(shape)
        self.dtype = np.dtype(_READ_AS.get(dtype.newbyteorder("=").str[1:], dtype.newbyteorder("=")))
        self._name = name
        self._read: ReadWindow | None = read

    def __getitem__(self, window: Slices, /) -> np.ndarray:
        """The pixels of a window, clipped as numpy does.

        Raises:
            FsisError: the data are damaged.
            ValueError: not one or two slices, a step, a negative limit, or the file was closed.
        """
        rows, columns = _slices(window)
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        if bottom <= top or right <= left:
            return np.empty((max(bottom - top, 0), max(right - left, 0), *self.shape[2:]), self.dtype)
        read = self._opened()
        with damage_in(self._name, "damaged data"):
            pixels = read(top, bottom, left, right)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        return np.ascontiguousarray(pixels, self.dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{self._name}: an image file has no array to share: leave out copy=False")
        return self[:, :].astype(self.dtype if dtype is None else dtype, copy=False)

    def sample(self, index: int) -> "Plane":
        """One of the colours, (H, W)."""
        read = self._opened()
        return Plane(self._name, self.shape[:2], self.dtype, lambda *window: read(*window)[..., index])

    def close(self) -> None:
        """Let go of the file and of what was read of it."""
        self._read = None

    def _opened(self) -> ReadWindow:
        if self._read is None:
            raise ClosedError(f"{self._name}: sliced after it was closed")
        return self._read


def _slices(window: Slices) -> tuple[slice, slice]:
    """Rows and columns of a window, all columns where it names none."""
    both = window if isinstance(window, tuple) else (window, slice(None))
    if len(both) != 2 or not all(isinstance(limits, slice) for limits in both):
        raise ValueError(f"image[{window}]: slice rows and columns, image[y0:y1, x0:x1]")
    for limits in both:
        if limits.step not in (None, 1) or min(limits.start or 0, limits.stop or 0) < 0:
            raise ValueError(f"image[{both[0]}, {both[1]}]: slice with limits from 0 on and step 1")
    return both


class ImageFile:
    """An image file as `open_image` opens it; a context manager that closes it. It follows `Image`.

    `np.asarray` reads all of it.

    Attributes:
        path: as it was given.
        shape: (H, W), (H, W, 3) or (H, W, 4).
        ndim: 2 or 3.
        dtype: of what slicing returns.
        pixel_size: side of a pixel in micrometres, where the file's metadata state it.
        coarser: lower resolutions of the same plane, the largest first.
    """

    def __init__(
        self, path: str, planes: Sequence[Plane], pixel_size: float | None, close: Callable[[], None] | None = None
    ) -> None:
        """Take `planes`, all resolutions, the highest first; `close` is called once, after the planes are closed."""
        self.path, self.pixel_size = path, pixel_size
        self._plane, *coarser = planes
        self.coarser = tuple(coarser)
        self.shape, self.ndim, self.dtype = self._plane.shape, self._plane.ndim, self._plane.dtype
        self._close = close

    def __getitem__(self, window: Slices, /) -> np.ndarray:
        return self._plane[window]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self._plane.__array__(dtype, copy)

    def on_close(self, close: Callable[[], None]) -> None:
        """Have `close` called once, after the planes are closed."""
        self._close = close

    def close(self) -> None:
        for plane in (self._plane, *self.coarser):
            plane.close()
        if self._close:
            self._close()
            self._close = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
