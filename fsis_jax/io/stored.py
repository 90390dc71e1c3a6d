"""The bytes of a file, read part by part.

Not by a memory map: a process that touches a mapped page of a file that was cut off meanwhile, as one that is still
being written or lies on a network drive may be, is killed without a message.
"""

import os
import weakref

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import read_failure
from fsis_jax.io.damage import CUT_OFF

_PART = 8 << 20
"""Bytes that are read at once."""
_GAP = 8 << 10
"""Bytes beside a window in each row from which on they are not read with it."""


class Stored:
    """A file, or bytes that stand for one; it is closed with the last that refers to it.

    Args:
        file: path, or the bytes.
        name: of the file in messages.

    Attributes:
        size: bytes that were there when it was opened.
    """

    def __init__(self, file: str | os.PathLike[str] | bytes, name: str) -> None:
        self._name = name
        self._bytes = file if isinstance(file, bytes) else b""
        self.size = len(self._bytes)
        self._handle: int | None = None
        if not isinstance(file, bytes):
            try:
                self._handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise read_failure(name, error, "image") from error
            weakref.finalize(self, os.close, self._handle)
            self.size = os.fstat(self._handle).st_size

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on.

        Raises:
            FsisError: the file ends before, or cannot be read.
        """
        if self._handle is None:
            parts = [self._bytes[start : start + count]]
        else:
            parts = []
            left = count
            while left:
                try:
                    parts.append(os.pread(self._handle, min(left, _PART), start + count - left))
                except OSError as error:
                    raise read_failure(self._name, error, "image") from error
                left -= len(parts[-1])
                if not parts[-1]:
                    break
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(content) < count:
            raise FsisError(
                f"{self._name}: cut off since it was opened ({start + len(content)} bytes left of {self.size}): "
                f"{CUT_OFF}, and wait until it is written"
            )
        return content

    def read_window(
        self, start: int, width: int, samples: int, dtype: np.dtype, window: tuple[int, int, int, int]
    ) -> np.ndarray:
        """(h, w, samples) of a plane of plain numbers that begins at a byte, in the machine's byte order.

        Args:
            start: first byte of the plane.
            width: of the plane.
            dtype: with the byte order of the file.
            window: top, bottom, left, right.
        """
        top, bottom, left, right = window
        pixel = samples * dtype.itemsize
        row = width * pixel
        pixels = np.empty((bottom - top, right - left, samples), dtype.newbyteorder("="))
        if row - (right - left) * pixel > _GAP:
            for y in range(top, bottom):
                content = self.read(start + y * row + left * pixel, (right - left) * pixel)
                pixels[y - top] = np.frombuffer(content, dtype).reshape(right - left, samples)
            return pixels
        rows = max(_PART // row, 1)
        for y in range(top, bottom, rows):
            below = min(y + rows, bottom)
            content = self.read(start + y * row, (below - y) * row)
            band = np.frombuffer(content, dtype).reshape(below - y, width, samples)
            pixels[y - top : below - top] = band[:, left:right]
        return pixels
