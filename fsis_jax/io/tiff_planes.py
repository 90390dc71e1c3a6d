"""Reading a plane of a TIFF window by window.

Of a plane that lies in the file as plain numbers the rows of a window are read; of others the tiles or strips that it
touches, which are decoded and kept for a while.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tifffile

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import ChunkCache, Chunks, check_chunk
from fsis_jax.io.colour_maps import MOST_COLOURS, is_for_display, is_grey, table_to_8bit
from fsis_jax.io.damage import CUT_OFF
from fsis_jax.io.image_file import Plane, ReadWindow, check_size
from fsis_jax.io.jpeg import check_part
from fsis_jax.io.planes import Choice
from fsis_jax.io.stored import Stored
from fsis_jax.io.tiff_images import dimensions

_PHOTOMETRIC = tifffile.PHOTOMETRIC
_COLOURED = (_PHOTOMETRIC.RGB, _PHOTOMETRIC.YCBCR)
_MICROSCOPES = ("imagej", "ome", "lsm")
"""Dialects, as tifffile calls them, whose colour maps are for display only."""
_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.ALT_JPEG, tifffile.COMPRESSION.JPEG_LOSSY)
_CODECS_OF_COLOURS = (
    *_JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG2000, tifffile.COMPRESSION.JPEG_2000_LOSSY,
    tifffile.COMPRESSION.APERIO_JP2000_YCBC, tifffile.COMPRESSION.APERIO_JP2000_RGB, tifffile.COMPRESSION.WEBP,
    tifffile.COMPRESSION.JPEGXL, tifffile.COMPRESSION.JPEGXL_DNG, tifffile.COMPRESSION.JPEGXR,
)  # fmt: skip
"""Which give red, green and blue of what they store as light and colour."""
_FOREIGN: dict[int, str] = {
    _PHOTOMETRIC.SEPARATED: "CMYK",
    _PHOTOMETRIC.YCBCR: "YCbCr",
    _PHOTOMETRIC.CIELAB: "Lab",
    _PHOTOMETRIC.ICCLAB: "Lab",
    _PHOTOMETRIC.ITULAB: "Lab",
    _PHOTOMETRIC.CFA: "a camera's raw mosaic",
    _PHOTOMETRIC.LINEAR_RAW: "a camera's raw values",
    _PHOTOMETRIC.LOGL: "LogL",
    _PHOTOMETRIC.LOGLUV: "LogLuv",
}
"""Numbers that are neither greys nor red, green and blue."""
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


class Reader:
    """Makes planes of one open TIFF and of the files that it refers to (OME-TIFF in several files).

    Args:
        file: its path, or its bytes.
        name: of the file in messages.
        labels: pixels are numbers of objects, and none of them changes its value.
    """

    def __init__(self, file: str | bytes, name: str, labels: bool) -> None:
        self._name, self._labels = name, labels
        self._whole = Stored(file, name) if isinstance(file, bytes) else None
        self._files: dict[str, Stored] = {}
        self._cache = ChunkCache()

    def axes(self, series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
        """The axes and the shape of a series as `choose_plane` takes them.

        Raises:
            FsisError: colours that are not read.
        """
        (axes, shape), keyframe = dimensions(series), series.keyframe
        decoded = keyframe.photometric == _PHOTOMETRIC.YCBCR and keyframe.compression in _CODECS_OF_COLOURS
        if keyframe.photometric in _FOREIGN and not decoded:
            raise FsisError(f"{self._name}: colours as {_FOREIGN[keyframe.photometric]}: save the image as RGB")
        table = _table(series, self._labels)
        if table is not None and table.ndim == 2:
            return axes.replace("S", "Q") + "S", (*shape, 3)
        samples, extra = keyframe.samplesperpixel, keyframe.extrasamples
        stains = samples > 4 or (samples == 4 and keyframe.photometric not in _COLOURED)
        if stains or (samples == 2 and not (extra and extra[-1] in _ALPHA)):
            return axes.replace("C", "Q").replace("S", "C"), shape
        return axes, shape

    def plane(self, series: tifffile.TiffPageSeries, axes: str, choice: Choice) -> Plane:
        """The chosen plane of one resolution of an image with these axes."""
        name = self._name
        separate, depth, height, width, contiguous = series.keyframe.shaped
        check_size(name, height, width)
        shape = dimensions(series)[1]
        y = axes.index("Y")
        stack, pixel = shape[:y], shape[y + 2 :]  # axes before Y and X, which number layers, and after them
        layers = separate * depth
        if shape[y : y + 2] != (height, width) or math.prod(stack) % layers or math.prod(pixel) != contiguous:
            raise FsisError(f"{name}: a TIFF of shape {shape}, axes {axes}: save one plane, grey or RGB")
        chosen = next((size for i, size in zip(choice.index, stack, strict=False) if i is None), 1)
        reads = [
            self._layer(series, _number([colour if i is None else i for i in choice.index[:y]], stack))
            for colour in range(chosen)
        ]
        sample = next((i for i, size in zip(choice.index[y + 2 :], pixel, strict=False) if size > 1), 0)
        table = _table(series, self._labels)
        finish = _finish(series, table, self._labels)

        def read(*window: int) -> np.ndarray:
            if chosen > 1:
                return finish(np.stack([read_layer(*window)[..., 0] for read_layer in reads], axis=-1))
            return finish(reads[0](*window)[..., slice(None) if sample is None else sample])

        samples = contiguous if sample is None else chosen
        if table is not None:
            samples = 3 if table.ndim == 2 else 1
        plane_shape = (height, width) if samples == 1 else (height, width, samples)
        plane = Plane(name, plane_shape, series.dtype if table is None else table.dtype, read)
        return plane if choice.sample is None else plane.sample(choice.sample)

    def _stored(self, page: tifffile.TiffPage | tifffile.TiffFrame) -> Stored:
        if self._whole is not None:
            return self._whole
        path = page.parent.filehandle.path
        if path not in self._files:
            self._files[path] = Stored(path, self._name)
        return self._files[path]

    def _layer(self, series: tifffile.TiffPageSeries, number: int) -> ReadWindow:
        """Reads windows (h, w, samples) of a layer of a series: a page, or one of its separate samples or depths."""
        separate, depth, height, width, samples = series.keyframe.shaped
        layers, dtype = separate * depth, _dtype(series.keyframe)
        size = height * width * samples * dtype.itemsize
        # Where all planes follow each other the later ones may have no page of their own.
        page = series[0 if series.dataoffset is not None else number // layers]
        if page is None:
            raise FsisError(
                f"{self._name}: the plane is missing in the file: copy all files of the set, or export it again"
            )
        stored = self._stored(page)
        if series.dataoffset is not None:
            offset = series.dataoffset + number * size
        elif page.is_final:
            offset = page.dataoffsets[0] + number % layers * size
        else:
            return self._chunks(page, number % layers, stored)
        self._check_end(offset + size, stored)
        stored_as = dtype.newbyteorder(page.parent.byteorder)
        return lambda *window: stored.read_window(offset, width, samples, stored_as, window)

    def _chunks(self, page: tifffile.TiffPage | tifffile.TiffFrame, layer: int, stored: Stored) -> ReadWindow:
        """Reads windows of a layer of a page whose tiles or strips have to be decoded."""
        keyframe = page.keyframe
        assert keyframe is not None
        dtype = _dtype(keyframe)
        if keyframe.compression not in tifffile.TIFF.DECOMPRESSORS:
            how = getattr(keyframe.compression, "name", keyframe.compression)
            raise FsisError(f"{self._name}: compressed as {how}, which is not read: save it with LZW or Deflate")
        _, depth, height, width, samples = keyframe.shaped
        deep, high, wide = 1, min(keyframe.rowsperstrip, height), width
        if keyframe.is_tiled:
            deep, high, wide = keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth
        if not all(isinstance(side, int) and side > 0 for side in (deep, high, wide)):
            raise ValueError(f"tiles or strips of {deep} x {high} x {wide} pixels")
        check_chunk(self._name, (deep, high, wide, samples), dtype.itemsize)
        rows, columns, slabs = -(-height // high), -(-width // wide), -(-depth // deep)
        first = (layer // depth * slabs + layer % depth // deep) * rows * columns
        offsets, counts = page.dataoffsets, page.databytecounts
        # Philips omits empty tiles.
        if min(len(offsets), len(counts)) < first + rows * columns and not keyframe.is_philips:
            listed = f"{len(offsets)} tiles or strips listed"
            raise FsisError(f"{self._name}: truncated or damaged TIFF ({listed}): {CUT_OFF}")
        ends = (offset + count for offset, count in zip(offsets, counts, strict=False))
        self._check_end(max(ends, default=0), stored)
        decode_segment, nodata = keyframe.decode, keyframe.nodata
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}

        def decode(row: int, column: int) -> np.ndarray:
            i = first + row * columns + column
            if i >= len(offsets) or not offsets[i] or not counts[i]:
                return np.full((high, wide, samples), nodata, dtype)
            data = stored.read(offsets[i], counts[i])
            if keyframe.compression in _JPEG:
                check_part(data, page.jpegtables, keyframe.jpegheader, high, wide)
            segment = decode_segment(data, i, **tables)[0]
            assert segment is not None
            return segment[layer % depth % deep]

        return Chunks((height, width, samples), dtype, (high, wide), decode, self._cache)

    def _check_end(self, end: int, stored: Stored) -> None:
        if end > stored.size:
            raise FsisError(f"{self._name}: truncated TIFF (ends after {stored.size} bytes of {end}): {CUT_OFF}")


def _number(indices: Sequence[int], sizes: Sequence[int]) -> int:
    """The number of a layer among all of the series."""
    number = 0
    for i, size in zip(indices, sizes, strict=True):
        number = number * size + i
    return number


def _table(series: tifffile.TiffPageSeries, labels: bool) -> np.ndarray | None:
    """(n,) or (n, 3) uint8: greys or colours that the numbers of a series stand for; None where they are measured."""
    keyframe = series.keyframe
    if labels or keyframe.photometric != _PHOTOMETRIC.PALETTE or keyframe.colormap is None:
        return None
    table = table_to_8bit(np.asarray(keyframe.colormap))
    if series.kind in _MICROSCOPES or len(table) > MOST_COLOURS:
        return None
    if is_grey(table):
        return table[:, 0]
    return None if is_for_display(table) else table


def _finish(
    series: tifffile.TiffPageSeries, table: np.ndarray | None, labels: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """From stored numbers to grey levels or colours, with what `_table` gave."""
    keyframe, bits = series.keyframe, series.keyframe.bitspersample
    if labels:
        return lambda pixels: pixels
    if table is not None:
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


def _dtype(keyframe: tifffile.TiffPage) -> np.dtype:
    if keyframe.dtype is None:
        raise ValueError(f"pixels of {keyframe.bitspersample} bits, format {keyframe.sampleformat}")
    return keyframe.dtype
