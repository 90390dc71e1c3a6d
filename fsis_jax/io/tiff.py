"""TIFF in all its dialects (OME, ImageJ, BigTIFF, slides), read window by window.

The file is mapped into memory. A plane that lies there as plain numbers is sliced from the map; of others the tiles
or strips that a window touches are decoded and kept for a while. Of a file with several series the first is read,
which is the main image; its pyramid gives the coarser resolutions.
"""

import contextlib
import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import ChunkCache, Chunks, check_chunk
from fsis_jax.io.image_file import CUT_OFF, ImageFile, Plane, ReadWindow, check_size, one_line
from fsis_jax.io.planes import Choice, Wanted, choose_plane
from fsis_jax.io.tiff_metadata import channel_names, pixel_size

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC = tifffile.PHOTOMETRIC
_COLOURED = (_PHOTOMETRIC.RGB, _PHOTOMETRIC.YCBCR, _PHOTOMETRIC.PALETTE)

# What tifffile logs of odd files either does not matter or is an error of ours.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False


def open_tiff(file: str | os.PathLike[str] | bytes, name: str, wanted: Wanted) -> ImageFile:
    """Open a TIFF by its path or its bytes; `name` stands for it in messages.

    Raises:
        FsisError: a damaged or truncated file, no such plane, a stack of which no plane was chosen.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    with _tiff_errors(name), tifffile.TiffFile(source, name=os.path.basename(name)) as tiff:
        data = _Data(file)
        if not tiff.pages:
            raise FsisError(f"{name}: truncated or damaged TIFF (no image in it): {CUT_OFF}")
        check_size(name, tiff.pages.first.imagelength, tiff.pages.first.imagewidth)
        series = _all_series(tiff)[0]
        axes = _axes(series, name)
        palette = series.keyframe.photometric == _PHOTOMETRIC.PALETTE
        shape = (*_dimensions(series)[1], *((3,) if palette else ()))
        names = channel_names(tiff, dict(zip(axes, shape, strict=True)).get("C", 1))
        choice = choose_plane(name, axes, shape, wanted, names)
        cache = ChunkCache()
        planes = [_plane(level, axes, choice, data, cache, name) for level in _levels(tiff)]
        return ImageFile(name, planes, pixel_size(tiff))


@contextlib.contextmanager
def _tiff_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (FsisError, MemoryError):
        raise
    except Exception as error:  # a damaged header may lead the parser to any exception
        raise FsisError(f"{name}: truncated or damaged TIFF ({one_line(error)}): {CUT_OFF}") from error


class _Data:
    """The bytes (uint8 arrays) of a TIFF, and of the files that it refers to (OME-TIFF in several files)."""

    def __init__(self, file: str | os.PathLike[str] | bytes) -> None:
        self._whole = np.frombuffer(file, np.uint8) if isinstance(file, bytes) else None
        self._maps: dict[str, np.ndarray] = {}

    def of(self, page: tifffile.TiffPage | tifffile.TiffFrame) -> np.ndarray:
        if self._whole is not None:
            return self._whole
        path = page.parent.filehandle.path
        if path not in self._maps:
            self._maps[path] = np.memmap(path, np.uint8, "r")
        return self._maps[path]


def _all_series(tiff: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """All series, with their axes of length 1 where tifffile must be told so when it makes them (since 2026.5.2)."""
    return list(tiff.series(squeeze=False) if callable(tiff.series) else tiff.series)


def _dimensions(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Axes and shape of one of `_all_series`, with the axes of length 1."""
    if hasattr(series, "get_axes") and hasattr(series, "get_shape"):  # before that
        return series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    return series.axes, series.shape


def _axes(series: tifffile.TiffPageSeries, name: str) -> str:
    """The axes of a series, as `choose_plane` takes them."""
    (axes, _), keyframe = _dimensions(series), series.keyframe
    if keyframe.photometric in (_PHOTOMETRIC.SEPARATED, _PHOTOMETRIC.CIELAB, _PHOTOMETRIC.ICCLAB):
        raise FsisError(f"{name}: colours as CMYK or Lab: save the image as RGB")
    if keyframe.photometric == _PHOTOMETRIC.PALETTE:
        return axes.replace("S", "Q") + "S"
    samples = keyframe.samplesperpixel
    if samples > 4 or (samples == 4 and keyframe.photometric not in _COLOURED):
        return axes.replace("C", "Q").replace("S", "C")  # stains, not colours
    return axes


def _levels(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPageSeries]:
    """The first series, and its coarser resolutions: its SubIFDs, or later pages that are marked as reduced."""

    def stack(level: tifffile.TiffPageSeries) -> tuple[object, ...]:
        axes, shape = _dimensions(level)
        sizes = tuple(size for axis, size in zip(axes, shape, strict=True) if axis not in "YX")
        return axes, sizes, level.dtype, level.keyframe.photometric

    first, *others = _all_series(tiff)
    yield first
    _, _, height, width, _ = first.keyframe.shaped
    largest = height * width
    for level in (*first.levels[1:], *(series for series in others if series.keyframe.is_reduced)):
        _, _, high, wide, _ = level.keyframe.shaped
        # A slide's thumbnail or label is marked as reduced too.
        same_field = abs(high * width / height - wide) <= 2 + 0.01 * wide
        if high * wide < largest and same_field and stack(level) == stack(first):
            largest = high * wide
            yield level


def _plane(
    series: tifffile.TiffPageSeries, axes: str, choice: Choice, data: _Data, cache: ChunkCache, name: str
) -> Plane:
    """The chosen plane of one resolution."""
    separate, depth, height, width, contiguous = series.keyframe.shaped
    check_size(name, height, width)
    shape = _dimensions(series)[1]
    y = axes.index("Y")
    stack, pixel = shape[:y], shape[y + 2 :]  # axes before Y and X, which number layers, and after them
    if shape[y : y + 2] != (height, width) or math.prod(stack) % (separate * depth) or math.prod(pixel) != contiguous:
        raise FsisError(f"{name}: a TIFF of shape {shape}, axes {axes}: save one plane, grey or RGB")
    colours = next((size for i, size in zip(choice.index, stack, strict=False) if i is None), 1)
    reads = [
        _read_layer(series, _number([colour if i is None else i for i in choice.index[:y]], stack), data, cache, name)
        for colour in range(colours)
    ]
    sample = next((i for i, size in zip(choice.index[y + 2 :], pixel, strict=False) if size > 1), 0)
    finish = _finish(series)

    def read(*window: int) -> np.ndarray:
        if colours > 1:
            return finish(np.stack([read_layer(*window)[..., 0] for read_layer in reads], axis=-1))
        return finish(reads[0](*window)[..., slice(None) if sample is None else sample])

    palette = series.keyframe.photometric == _PHOTOMETRIC.PALETTE
    samples = 3 if palette else contiguous if sample is None else colours
    plane_shape = (height, width) if samples == 1 else (height, width, samples)
    plane = Plane(name, plane_shape, np.dtype(np.uint8) if palette else series.dtype, read)
    return plane if choice.sample is None else plane.sample(choice.sample)


def _number(indices: Sequence[int], sizes: Sequence[int]) -> int:
    """The number of a layer among all of the series."""
    number = 0
    for i, size in zip(indices, sizes, strict=True):
        number = number * size + i
    return number


def _finish(series: tifffile.TiffPageSeries) -> Callable[[np.ndarray], np.ndarray]:
    """From stored numbers to grey levels or colours."""
    keyframe, bits = series.keyframe, series.keyframe.bitspersample
    if keyframe.photometric == _PHOTOMETRIC.PALETTE:
        table = np.asarray(keyframe.colormap)
        # 16 bits, but some writers use only the lower 8.
        table = np.ascontiguousarray((table >> 8 if table.max(initial=0) > 255 else table).T.astype(np.uint8))
        return lambda pixels: table[pixels.astype(np.intp)]
    if series.transform is not None:
        return series.transform
    if series.dtype.kind != "u" or not isinstance(bits, int):
        return lambda pixels: pixels
    largest = np.array((1 << bits) - 1, series.dtype)
    # Levels of 2 or 4 bits, which would all be nearly black, take the range of 8.
    factor = series.dtype.type(255 // largest if bits < 8 else 1)
    if keyframe.photometric == _PHOTOMETRIC.MINISWHITE:
        return lambda pixels: (largest - pixels) * factor
    return (lambda pixels: pixels * factor) if factor > 1 else (lambda pixels: pixels)


def _read_layer(series: tifffile.TiffPageSeries, number: int, data: _Data, cache: ChunkCache, name: str) -> ReadWindow:
    """Reads windows (h, w, samples) of a layer of a series: a page, or one of its separate samples or depths."""
    separate, depth, height, width, samples = series.keyframe.shaped
    layers, dtype = separate * depth, _dtype(series.keyframe)
    size = height * width * samples * dtype.itemsize
    # Where all planes follow each other the later ones may have no page of their own.
    page = series[0 if series.dataoffset is not None else number // layers]
    if page is None:
        raise FsisError(f"{name}: the plane is missing in the file: copy all files of the set, or export it again")
    stored = data.of(page)
    if series.dataoffset is not None:
        offset = series.dataoffset + number * size
    elif page.is_final:
        offset = page.dataoffsets[0] + number % layers * size
    else:
        return _read_chunks(page, number % layers, stored, cache, name)
    _check_end(name, offset + size, stored)
    pixels = stored[offset : offset + size].view(dtype.newbyteorder(page.parent.byteorder))
    pixels = pixels.reshape(height, width, samples)
    return lambda top, bottom, left, right: pixels[top:bottom, left:right].astype(dtype)


def _read_chunks(
    page: tifffile.TiffPage | tifffile.TiffFrame, layer: int, stored: np.ndarray, cache: ChunkCache, name: str
) -> ReadWindow:
    """Reads windows of a layer of a page whose tiles or strips have to be decoded."""
    keyframe = page.keyframe
    assert keyframe is not None
    dtype = _dtype(keyframe)
    _, depth, height, width, samples = keyframe.shaped
    deep, high, wide = 1, min(keyframe.rowsperstrip, height), width
    if keyframe.is_tiled:
        deep, high, wide = keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth
    check_chunk(name, (deep, high, wide, samples), dtype.itemsize)
    rows, columns, slabs = -(-height // high), -(-width // wide), -(-depth // deep)
    first = (layer // depth * slabs + layer % depth // deep) * rows * columns
    offsets, counts = page.dataoffsets, page.databytecounts
    if min(len(offsets), len(counts)) < first + rows * columns and not keyframe.is_philips:  # which omits empty tiles
        raise FsisError(f"{name}: truncated or damaged TIFF ({len(offsets)} tiles or strips listed): {CUT_OFF}")
    _check_end(name, max((offset + count for offset, count in zip(offsets, counts, strict=False)), default=0), stored)
    decode_segment, nodata = keyframe.decode, keyframe.nodata
    tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}

    def decode(row: int, column: int) -> np.ndarray:
        i = first + row * columns + column
        if i >= len(offsets) or not offsets[i] or not counts[i]:
            return np.full((high, wide, samples), nodata, dtype)
        segment = decode_segment(stored[offsets[i] : offsets[i] + counts[i]].tobytes(), i, **tables)[0]
        assert segment is not None
        return segment[layer % depth % deep]

    return Chunks((height, width, samples), dtype, (high, wide), decode, cache)


def _dtype(keyframe: tifffile.TiffPage) -> np.dtype:
    if keyframe.dtype is None:
        raise ValueError(f"pixels of {keyframe.bitspersample} bits, format {keyframe.sampleformat}")
    return keyframe.dtype


def _check_end(name: str, end: int, stored: np.ndarray) -> None:
    if end > len(stored):
        raise FsisError(f"{name}: truncated TIFF (ends after {len(stored)} bytes of {end}): {CUT_OFF}")
