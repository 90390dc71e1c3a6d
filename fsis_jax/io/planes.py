"""Which image of a file is meant, by `series`, and which plane of it: axes, `channel` and `page` to one index per axis.

Axes are letters: Y, X, S the samples of a pixel (colours), C channels; all others (Z, T, Q, I ...) number pages.
"""

import dataclasses
import re
from collections.abc import Sequence

from fsis_jax.errors import FsisError

_COLOURS = ("red", "green", "blue")
_MOST_NAMES = 8
"""Names of channels, or images of a file, that a message lists."""


@dataclasses.dataclass
class Contents:
    """What a file has, filled in when it is opened and before anything is chosen.

    Attributes:
        images: all of them.
        axes: of the one that was chosen; "" where none could be.
    """

    images: "Sequence[Listed]" = ()
    axes: str = ""
    shape: tuple[int, ...] = ()
    channels: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The plane that is asked for.

    Attributes:
        channel: a number from 1, or a name.
        page: a number from 1 where one axis numbers pages; `Z3,T1` in general.
        series: of a file with several images: a number from 1, or a name.
        where_there: leave out what an image does not have, such as the channel of a stack for a crop of one plane.
        labels: the pixels are numbers of objects: as they are stored, whatever colours stand for them.
        no_choice: nobody can be asked for any of these: the file must hold one plane.
        told: gets what there is to choose from.
    """

    channel: str | None = None
    page: str | None = None
    series: str | None = None
    where_there: bool = False
    labels: bool = False
    no_choice: bool = False
    told: Contents | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """A plane of a stack.

    Attributes:
        index: for each axis the number (from 0) that is read; None for Y, X and the axis of the colours, which stay.
        sample: the colour that is read alone, or None.
    """

    index: tuple[int | None, ...]
    sample: int | None


@dataclasses.dataclass(frozen=True)
class Listed:
    """One of the images of a file, for the choice among them.

    Attributes:
        name: "" where the file states none.
        shape: (H, W), or more, as `axes` says.
        aside: a preview, a thumbnail, a label of the slide: only taken when it is asked for.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    aside: bool = False


def choose_series(name: str, images: Sequence[Listed], wanted: Wanted) -> int:
    """The number (from 0) of the image that is wanted of a file, or the only one that is none of those aside.

    Raises:
        FsisError: it is not there, or none was chosen of several; with a list of what there is.
    """
    if wanted.told is not None and not wanted.told.images:  # a collection of OME-Zarr chooses twice
        wanted.told.images = tuple(images)
    if wanted.series is not None:
        named = wanted.series.strip().casefold()
        found = [i for i, image in enumerate(images) if image.name.strip().casefold() == named]
        if named.isdecimal() and 1 <= int(named) <= len(images):
            return int(named) - 1
        if len(found) == 1:
            return found[0]
        if len(images) > 1:
            what = f"{len(found)} images are called {wanted.series}" if found else f"no image {wanted.series}"
            raise FsisError(f"{name}: {what}: choose with --series {_list_images(images)}")
        if not wanted.where_there:
            raise FsisError(f"{name}: the file has one image only: leave out --series")
    main = [i for i, image in enumerate(images) if not image.aside]
    if len(main) != 1 and len(images) > 1:
        remedy = f"choose one with --series {_list_images(images)}"
        if wanted.no_choice:
            remedy = "save the one that is meant as a file of its own"
        raise FsisError(f"{name}: {len(images)} images in one file: {remedy}")
    return main[0] if main else 0


def _list_images(images: Sequence[Listed]) -> str:
    """`1..2 (1: DAPI 512x512; 2: 64x64, a preview)`"""
    told = []
    for number, image in enumerate(images[:_MOST_NAMES], start=1):
        height, width = (image.shape[image.axes.index(axis)] for axis in "YX")
        others = [f"{axis} {size}" for axis, size in zip(image.axes, image.shape, strict=True) if axis not in "YXS"]
        planes = "".join(f", {text}" for text in others if not text.endswith(" 1"))
        title = " ".join(image.name.split())
        told.append(f"{number}: {title} {width}x{height}{planes}{', a preview' * image.aside}".replace(":  ", ": "))
    more = "; ..." if len(images) > _MOST_NAMES else ""
    return f"1..{len(images)} ({'; '.join(told)}{more})"


def choose_plane(
    name: str, axes: str, shape: tuple[int, ...], wanted: Wanted, channel_names: Sequence[str] = ()
) -> Choice:
    """The plane that is wanted of a stack, or the only one.

    Three channels of any dtype are red, green and blue unless one is wanted, as are three or four samples; of two
    samples the second is alpha.

    Raises:
        FsisError: what is missing, out of range, unknown or too much, and what may be given.
    """
    if sorted(axis for axis in axes if axis in "YXCS") not in (list("XY"), list("CXY"), list("SXY"), list("CSXY")):
        raise FsisError(f"{name}: {_describe(axes, shape)}: save one plane, grey or RGB")
    if wanted.told is not None:
        wanted.told.axes, wanted.told.shape, wanted.told.channels = axes, shape, tuple(channel_names)
    pages = _chosen_pages(name, axes, shape, wanted)
    channels, samples = (shape[axes.index(axis)] if axis in axes else 0 for axis in "CS")
    coloured = samples in (3, 4)
    channel = sample = None
    if wanted.channel is not None:
        try:
            if channels > 1 or (channels and samples < 2):
                channel = _channel(name, wanted.channel, channels, channel_names)
            elif samples > 1:
                sample = _channel(name, wanted.channel, min(samples, 3), _COLOURS if coloured else ())
            else:
                raise FsisError(f"{name}: the image has one channel only: leave out --channel")
        except FsisError:
            if not wanted.where_there:
                raise
    composed = channels == 3 and channel is None and not coloured
    if pages is None or (channels > 1 and channel is None and not composed):
        if wanted.no_choice:
            raise FsisError(f"{name}: a stack of {_describe(axes, shape)}: save one plane of it, grey or RGB")
        options = []
        if _long(axes, shape):
            options.append("--page " + _page_range(axes, shape))
        if channels > 1:
            text = "--channel " + _range(channels, channel_names)
            options.append(f"{text} unless these are red, green and blue" if composed else text)
        raise FsisError(f"{name}: a stack of {_describe(axes, shape)}: choose one plane with {' and '.join(options)}")
    kept: dict[str, int | None] = {
        "Y": None,
        "X": None,
        "C": None if composed else channel or 0,
        "S": None if coloured else sample or 0,
    }
    index = tuple(kept[axis] if axis in kept else pages.get(i, 0) for i, axis in enumerate(axes))
    return Choice(index, sample if coloured else None)


def _describe(axes: str, shape: tuple[int, ...]) -> str:
    """`shape (3, 512, 512), axes ZYX`, without axes of one element."""
    kept = [i for i, axis in enumerate(axes) if shape[i] > 1 or axis in "YX"]
    return f"shape {tuple(shape[i] for i in kept)}, axes {''.join(axes[i] for i in kept)}"


def _range(count: int, names: Sequence[str] = ()) -> str:
    """`1..5 (DAPI, GFP, ...)`"""
    listed = ", ".join(" ".join(name.split()) for name in names[:_MOST_NAMES]) + (
        ", ..." if len(names) > _MOST_NAMES else ""
    )
    return f"1..{count}" + (f" ({listed})" if any(names) else "")


def _long(axes: str, shape: tuple[int, ...]) -> list[int]:
    """The axes that have several pages."""
    return [i for i, axis in enumerate(axes) if axis not in "YXCS" and shape[i] > 1]


def _page_range(axes: str, shape: tuple[int, ...]) -> str:
    """`1..3` or `Z1,T1 (Z 1..3, T 1..4)`"""
    long = _long(axes, shape)
    if len(long) == 1:
        return _range(shape[long[0]])
    return f"{','.join(f'{axes[i]}1' for i in long)} ({', '.join(f'{axes[i]} {_range(shape[i])}' for i in long)})"


def _channel(name: str, channel: str, count: int, names: Sequence[str]) -> int:
    """The number (from 0) of a channel given by its number (from 1) or its name."""
    if channel.isdecimal() and 1 <= int(channel) <= count:
        return int(channel) - 1
    found = [i for i, other in enumerate(names[:count]) if other.strip().casefold() == channel.strip().casefold()]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} channels are called {channel}" if found else f"no channel {channel}"
    raise FsisError(f"{name}: {what}: choose with --channel {_range(count, names)}")


def _chosen_pages(name: str, axes: str, shape: tuple[int, ...], wanted: Wanted) -> dict[int, int] | None:
    """The axes of pages that are chosen, and the number (from 0) on each; None if there is a choice left."""
    numbers: dict[int, int] = {}
    if wanted.page is not None:
        try:
            numbers = _pages(name, axes, shape, wanted.page)
        except FsisError:
            if not wanted.where_there:
                raise
    return numbers if all(i in numbers for i in _long(axes, shape)) else None


def _pages(name: str, axes: str, shape: tuple[int, ...], page: str) -> dict[int, int]:
    """Axis to number (from 0), of `3` where there is one axis of pages, or `Z3,T1`."""
    pages, long = [i for i, axis in enumerate(axes) if axis not in "YXCS"], _long(axes, shape)
    numbers: dict[int, int] = {}
    for part in page.split(","):
        match = re.fullmatch(r"([A-Z]?)([0-9]{1,10})", part.strip().upper())
        letter = match[1] if match else ""
        free = [i for i in (long or pages) if not letter] + [i for i in pages if axes[i] == letter and i not in numbers]
        if match and free and (letter or len(long) < 2) and 1 <= int(match[2]) <= shape[free[0]]:
            numbers[free[0]] = int(match[2]) - 1
            continue
        if not long:
            raise FsisError(f"{name}: the image has one page only: leave out --page")
        raise FsisError(f"{name}: no page {page}: choose with --page {_page_range(axes, shape)}")
    return numbers
