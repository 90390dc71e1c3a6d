"""Which images a TIFF holds, as its writer meant them: series, stacks of appended planes, pyramids, previews.

tifffile groups pages into series as each dialect says. Of these only those count whose pages lie in the file itself: a
file of an OME-TIFF set lists the images of all others too. Planes that were appended one by one are a stack. Pages that
are marked as reduced, and what slide scanners add to a slide, are never taken for the image unless they are asked for.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tifffile

from fsis_jax.io.planes import Listed, Wanted, choose_series

_SLIDES = frozenset({"svs", "ndpi", "bif", "scn", "qpi", "avs", "philips"})
"""Dialects of slide scanners, as tifffile calls them."""
_BESIDE_A_SLIDE = frozenset({"thumbnail", "label", "macro", "map", "overview", "probability"})
_BESIDE_IN_OME = frozenset({"label image", "macro image", "thumbnail image"})
"""As Bio-Formats names them."""


@dataclasses.dataclass(frozen=True)
class TiffImage:
    """One image of a TIFF.

    Attributes:
        series: at the highest resolution.
        coarser: the same stack at lower ones, the largest first.
        first: whether the file's own metadata, where they tell of one image, tell of this one.
    """

    series: tifffile.TiffPageSeries
    coarser: tuple[tifffile.TiffPageSeries, ...]
    first: bool


def dimensions(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Axes and shape of a series, with the axes of length 1."""
    if hasattr(series, "get_axes") and hasattr(series, "get_shape"):  # before tifffile 2026.5.2
        return series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    return series.axes, series.shape


def all_series(tiff: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """All series, with their axes of length 1: tifffile must be told so when it makes them since 2026.5.2."""
    return list(tiff.series(squeeze=False) if callable(tiff.series) else tiff.series)


def choose_image(tiff: tifffile.TiffFile, name: str, wanted: Wanted) -> TiffImage:
    """The image that is wanted, or the only one.

    Raises:
        FsisError: there is none like it, or none was chosen of several.
    """
    own = [_own_positions(series, tiff) for series in all_series(tiff) if _lies_in(series, tiff)]
    images = _stacked(own or [tifffile.TiffPageSeries([tiff.pages.first])])
    main = [series for series in images if not _is_aside(series)]
    reduced = [series for series in images if series.keyframe.is_reduced]
    # Pages marked as reduced are levels of the only image; of several it cannot be told whose they are.
    levels = {id(series): tuple(_coarser(series, reduced if len(main) == 1 else ())) for series in images}
    below = {id(level) for series in main for level in levels[id(series)]}
    images = [series for series in images if id(series) not in below]
    listed = [Listed(series.name, *dimensions(series), _is_aside(series)) for series in images]
    chosen = images[choose_series(name, listed, wanted)]
    return TiffImage(chosen, levels[id(chosen)], chosen is (main or images)[0])


def _lies_in(series: tifffile.TiffPageSeries, tiff: tifffile.TiffFile) -> bool:
    """Whether the file itself has pages of a series; in its metadata it may tell of other files' ones."""
    if not series.is_multifile:
        return series.keyframe.parent is tiff
    return any(page is not None and page.parent is tiff for page in series)


def _own_positions(series: tifffile.TiffPageSeries, tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The positions of a Micro-Manager set that lie in the file itself; all others' come with each of its files."""
    axes, shape = dimensions(series)
    count = axes.index("Y")
    pages = list(series)
    if series.kind != "mmstack" or "R" not in axes[:count] or math.prod(shape[:count]) != len(pages):
        return series
    numbers, axis = np.arange(len(pages)).reshape(shape[:count]), axes.index("R")
    here = np.array([page is not None and page.parent is tiff for page in pages])[numbers]
    positions = np.flatnonzero(np.moveaxis(here, axis, 0).reshape(shape[axis], -1).any(axis=1))
    chosen = np.take(numbers, positions, axis=axis)
    shape, kept = (*chosen.shape, *shape[count:]), [pages[number] for number in chosen.ravel().tolist()]
    return tifffile.TiffPageSeries(kept, shape, series.dtype, axes, kind=series.kind, parent=tiff, name=series.name)


def _is_aside(series: tifffile.TiffPageSeries) -> bool:
    """A preview, a mask, or what lies beside the tissue on a slide."""
    keyframe, named = series.keyframe, series.name.strip().casefold()
    beside = named in (_BESIDE_A_SLIDE if series.kind in _SLIDES else _BESIDE_IN_OME)
    return bool(keyframe.is_reduced or keyframe.is_mask or keyframe.is_subifd or beside)


def _stacked(images: Sequence[tifffile.TiffPageSeries]) -> list[tifffile.TiffPageSeries]:
    """The same images, those without a name that are equal planes as one stack."""
    equal: dict[object, list[tifffile.TiffPageSeries]] = {}
    for series in images:
        keyframe, (axes, shape) = series.keyframe, _plane(series)
        single = math.prod(shape) == math.prod(keyframe.shape) and series.kind in ("shaped", "generic")
        alone = not single or _is_aside(series) or bool(series.name) or series.is_pyramidal
        looks = axes, shape, series.dtype, keyframe.photometric, keyframe.planarconfig, keyframe.extrasamples
        equal.setdefault(id(series) if alone else looks, []).append(series)
    return [group[0] if len(group) == 1 else _stack(group) for group in equal.values()]


def _plane(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Axes and shape without the axis that tifffile gives to pages of which it only knows that they are alike."""
    axes, shape = dimensions(series)
    return (axes[1:], shape[1:]) if series.kind == "generic" else (axes, shape)


def _stack(equal: Sequence[tifffile.TiffPageSeries]) -> tifffile.TiffPageSeries:
    """One series of the planes of several, in the order in which they lie in the file."""
    axes, shape = _plane(equal[0])
    pages = sorted((page for series in equal for page in series if page is not None), key=lambda page: page.index)
    parent, dtype = equal[0].parent, equal[0].dtype
    return tifffile.TiffPageSeries(pages, (len(pages), *shape), dtype, f"I{axes}", kind="appended", parent=parent)


def _coarser(
    series: tifffile.TiffPageSeries, reduced: Sequence[tifffile.TiffPageSeries]
) -> Iterator[tifffile.TiffPageSeries]:
    """The coarser resolutions of a series: its SubIFDs, or pages that are marked as reduced."""

    def stack(level: tifffile.TiffPageSeries) -> tuple[object, ...]:
        axes, shape = dimensions(level)
        sizes = tuple(size for axis, size in zip(axes, shape, strict=True) if axis not in "YX")
        return axes, sizes, level.dtype, level.keyframe.photometric

    _, _, height, width, _ = series.keyframe.shaped
    largest = height * width
    for level in (*series.levels[1:], *reduced):
        _, _, high, wide, _ = level.keyframe.shaped
        # A slide's thumbnail or label is marked as reduced too.
        same_field = abs(high * width / height - wide) <= 2 + 0.01 * wide
        if high * wide < largest and same_field and stack(level) == stack(series):
            largest = high * wide
            yield level
