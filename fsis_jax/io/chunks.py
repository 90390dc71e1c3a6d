"""Decoded chunks (tiles, strips) of an image file, kept so that none is decoded again for the next window.

Windows overlap, and the bands in which an image's stretch is found are as wide as the image and may be one row high:
without a cache each would decode a whole row of tiles for itself.
"""

import collections
import threading
from collections.abc import Callable, Hashable

import numpy as np

from fsis_jax.errors import FsisError

CACHE_BYTES = 256 << 20
"""Decoded bytes that are kept of an open file, unless one row of its chunks takes more."""
_MOST_BYTES = 1 << 30


def check_chunk(name: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Raise FsisError if one chunk of this shape, all of which is decoded at once, takes more than a gibibyte."""
    size = itemsize
    for side in shape:
        size *= side
    if size > _MOST_BYTES:
        what = " x ".join(map(str, shape))
        raise FsisError(f"{name}: compressed in parts of {what} ({size >> 20} MiB): save it in tiles of 512 x 512")


class ChunkCache:
    """The decoded chunks of one open file: those used last, up to `limit` bytes, and always the last one."""

    def __init__(self) -> None:
        self.limit = CACHE_BYTES
        self._chunks: collections.OrderedDict[Hashable, np.ndarray] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The chunk of this key, decoded if it is not there. It must not be written to."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        chunk = decode()  # two threads may decode one chunk, which is better than that one waits for all others
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self._bytes += chunk.nbytes
            while self._bytes > self.limit and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes
        return chunk


class Chunks:
    """Reads windows of a plane (H, W) or (H, W, C) that lies in a grid of chunks (h, w) from its upper left corner.

    Args:
        decode: decode(row, column) gives the chunk at this place of the grid, (h, w) or (h, w, C); at the lower and
            right border it may be as small as what is left of the plane.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        chunk: tuple[int, int],
        decode: Callable[[int, int], np.ndarray],
        cache: ChunkCache,
    ) -> None:
        self._shape, self._dtype, self._chunk = shape, dtype, chunk
        self._decode, self._cache = decode, cache
        # With less than a row of chunks, reading row by row would drop each chunk just before it is wanted again.
        columns = -(-shape[1] // chunk[1])
        colours = shape[2] if len(shape) == 3 else 1
        row = columns * chunk[0] * chunk[1] * colours * dtype.itemsize
        cache.limit = max(cache.limit, row)

    def __call__(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """The pixels of a window that lies in the plane and is not empty."""
        high, wide = self._chunk
        window = np.empty((bottom - top, right - left, *self._shape[2:]), self._dtype)
        for row in range(top // high, -(-bottom // high)):
            for column in range(left // wide, -(-right // wide)):
                y, x = row * high, column * wide
                chunk = self._cache.get((self, row, column), lambda r=row, c=column: self._decode(r, c))  # type: ignore[misc]
                y0, y1, x0, x1 = max(top, y), min(bottom, y + high), max(left, x), min(right, x + wide)
                window[y0 - top : y1 - top, x0 - left : x1 - left] = chunk[y0 - y : y1 - y, x0 - x : x1 - x]
        return window
