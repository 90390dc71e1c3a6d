"""The intensity stretch: limits taken once over a whole image, in bounded memory, and applied to any part of it.

The limits are two percentiles of all values, exact for every dtype. They are found as a radix sort would find them: a
histogram of the upper 16 bits of the values, then one of the next 16 bits of those values that share their upper bits
with a wanted one, until no bits are left. Each pass reads the image in bands of rows by plain slicing, so that it may
be an array, a memory map or anything that is read when it is sliced, and no second image is ever made. 8-bit and 16-bit
images take one pass, 32-bit ones two.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from fsis_jax.errors import FsisError

_BAND = 1 << 20
"""Values that are looked at at once, or one row."""
_PASS_BITS = 16


class Image(Protocol):
    """What is read of an image (H, W) or (H, W, C): `image[y0:y1, x0:x1]`, where not all of it need be in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, window: tuple[slice, slice], /) -> Any: ...


def coarsest(image: Image, factor: float) -> Image:
    """The coarsest level of a pyramid whose pixels are at most `factor` pixels of the image wide; else the image.

    A pyramid is an image with `coarser`: images of the same field of view, by descending size.
    """
    levels: Sequence[Image] = getattr(image, "coarser", ())
    fine = [level for level in levels if max(image.shape[i] / level.shape[i] for i in (0, 1)) <= factor]
    return fine[-1] if fine else image


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Maps `low` to level 0 and `high` to level 255; all values to 0 if `high` is not above `low`."""

    low: float
    high: float

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Levels (uint8) of pixels of any shape; values that are not finite become 0."""
        if pixels.dtype in (np.uint8, np.uint16):
            # Few possible values: a table is many times faster than arithmetic.
            return self._levels(np.arange(np.iinfo(pixels.dtype).max + 1, dtype=np.float64))[pixels]
        return self._levels(pixels.astype(np.float64))

    def _levels(self, values: np.ndarray) -> np.ndarray:
        if self.high <= self.low:
            return np.zeros(values.shape, np.uint8)
        # Divided before it is multiplied: 255 * (high - low) may overflow, as may high - low of extreme floats.
        unit = (values / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return np.rint(np.where(np.isfinite(values), np.clip(unit, 0, 1), 0) * 255).astype(np.uint8)


def check_shape(image: Image) -> None:
    """Raise FsisError if the shape is not an image's."""
    shape = image.shape
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise FsisError(f"an image of shape {shape}: give (H, W), (H, W, 3) or (H, W, 4)")


def without_alpha(pixels: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) of a part of an image."""
    if pixels.ndim == 3:
        return pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    return pixels


def find_stretch(
    image: Image,
    percentiles: tuple[float, float] = (1.0, 99.8),
    bands: Callable[[], Iterable[np.ndarray]] | None = None,
) -> Stretch:
    """The stretch between two percentiles of all finite values, the channels together (colours stay what they are).

    Where they coincide, between the extremes.

    Args:
        bands: gives the parts of the image that count, without alpha, as often as it is called; None: all of it does.
    """
    check_shape(image)
    values = _Values(image.dtype, bands or functools.partial(_bands, image))
    total = values.total
    if not total:
        return Stretch(0.0, 0.0)
    positions = [percent / 100 * (total - 1) for percent in percentiles]
    wanted = [0, total - 1] + [int(rounded(position)) for position in positions for rounded in (np.floor, np.ceil)]
    least, most, *pairs = values.at(wanted)
    low, high = (
        first + (second - first) * (position - np.floor(position)) if second > first else first
        for first, second, position in zip(pairs[::2], pairs[1::2], positions, strict=True)
    )
    return Stretch(float(low), float(high)) if high > low else Stretch(least, most)


class _Values:
    """All finite values of an image, of which some are looked up by rank."""

    def __init__(self, dtype: Any, bands: Callable[[], Iterable[np.ndarray]]) -> None:
        self._dtype, self._bands = dtype, bands
        self._first = self._count({0}, 0)
        self.total = int(self._first[0].sum())

    def at(self, ranks: list[int]) -> list[float]:
        """The values that have these ranks in ascending order."""
        prefixes, left, known, counts = [0] * len(ranks), list(ranks), 0, self._first
        while True:
            for i, prefix in enumerate(prefixes):
                below = np.cumsum(counts[prefix])
                digit = int(np.searchsorted(below, left[i], side="right"))
                left[i] -= int(below[digit - 1]) if digit else 0
                prefixes[i] = (prefix << _PASS_BITS) | digit
            known += _PASS_BITS
            if known >= _key_type(self._dtype).itemsize * 8:
                return [_value(prefix, self._dtype) for prefix in prefixes]
            counts = self._count(set(prefixes), known)

    def _count(self, prefixes: set[int], known: int) -> dict[int, np.ndarray]:
        """For each prefix, the histogram of the next bits of those keys whose first `known` bits are the prefix."""
        bits = _key_type(self._dtype).itemsize * 8
        shift = max(bits - known - _PASS_BITS, 0)
        size = 1 << min(bits, _PASS_BITS)
        counts = {prefix: np.zeros(size, np.int64) for prefix in prefixes}
        for pixels in self._bands():
            keys = _keys(pixels)
            upper = keys >> shift
            for prefix, histogram in counts.items():
                chosen = upper if not known else upper[(upper >> _PASS_BITS) == prefix]
                digits = chosen & (size - 1) if known else chosen
                histogram += np.bincount(digits.astype(np.intp), minlength=size)  # uint64 is refused before NumPy 2.3
        return counts


def _bands(image: Image) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    rows = max(_BAND // (width * (image.shape[2] if len(image.shape) == 3 else 1)), 1)
    for top in range(0, height, rows):
        yield without_alpha(np.asarray(image[top : top + rows, :width]))


def _key_type(dtype: Any) -> np.dtype:
    return np.dtype(f"u{min(np.dtype(dtype).itemsize, 8)}")


def _keys(pixels: np.ndarray) -> np.ndarray:
    """(n,) unsigned integers in the order of the finite values."""
    unsigned = _key_type(pixels.dtype)
    values = pixels.ravel()
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)].astype(f"f{unsigned.itemsize}")
        bits = values.view(unsigned)
        top = unsigned.type(1 << (8 * unsigned.itemsize - 1))
        return np.where(bits & top, ~bits, bits | top)
    if values.dtype.kind == "i":
        return values.astype(f"i{unsigned.itemsize}").view(unsigned) ^ unsigned.type(1 << (8 * unsigned.itemsize - 1))
    return values.astype(unsigned, copy=False)


def _value(key: int, dtype: Any) -> float:
    """The value of a key."""
    unsigned = _key_type(dtype)
    top = 1 << (8 * unsigned.itemsize - 1)
    kind = np.dtype(dtype).kind
    if kind == "f":
        bits = key ^ top if key & top else ~key & (2 * top - 1)
        return float(np.array(bits, unsigned).view(f"f{unsigned.itemsize}"))
    return float(key - top) if kind == "i" else float(key)
