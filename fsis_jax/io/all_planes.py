"""All planes of a file: what `--page all`, `--channel all` and `--series all` stand for."""

import collections
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from fsis_jax.io.outputs import plane_suffix
from fsis_jax.io.planes import Contents
from fsis_jax.io.source import contents

ALL = "all"


class PlaneChoice(NamedTuple):
    """One plane, as `open_image` takes it; None where a file leaves no choice."""

    series: str | None
    channel: str | None
    page: str | None


def all_planes(path: str, wanted: PlaneChoice) -> list[PlaneChoice]:
    """The planes of a file that a choice with "all" in some places stands for, in the file's order.

    Pages are named by their axes, `Z3,T1`; channels by their names where they differ, else by number. Previews are
    among the series only if there is nothing else. A picture in colours is one plane.

    Raises:
        FsisError: the file cannot be read.
    """
    whole = contents(path, None if wanted.series == ALL else wanted.series)
    series: list[str | None] = [wanted.series]
    if wanted.series == ALL:
        numbers = [i for i, image in enumerate(whole.images, start=1) if not image.aside]
        numbers = numbers or [*range(1, len(whole.images) + 1)]
        series = [str(number) for number in numbers] if len(whole.images) > 1 else [None]
    found = []
    for name in series:
        told = whole if name is None or name == wanted.series else contents(path, name)
        channels = list(_channels(told)) if wanted.channel == ALL else [wanted.channel]
        pages = list(_pages(told)) if wanted.page == ALL else [wanted.page]
        found += [PlaneChoice(name, channel, page) for channel in channels for page in pages]
    return found


def without_axis(page: str, axis: str) -> tuple[str, int] | None:
    """A page of `all_planes` as the other axes have it, and its number on this one; None where it is not among them.

    A stack with one axis of pages that is none of Z and T counts as either.
    """
    parts = page.split(",")
    own = [part for part in parts if part[0] == axis]
    if not own and len(parts) == 1 and parts[0][0] not in "ZT":
        own = parts
    if len(own) != 1:
        return None
    return ",".join(part for part in parts if part != own[0]), int(own[0][1:])


def _channels(told: Contents) -> Iterator[str | None]:
    sizes = dict(zip(told.axes, told.shape, strict=True))
    count = 1 if sizes.get("S", 1) > 2 else sizes.get("C", 1)
    names = [name.strip() for name in told.channels]
    parts = collections.Counter(plane_suffix([name]).casefold() for name in names)
    distinct = len(names) == count == len(parts) and all(names) and not any(map(str.isdecimal, names))
    if count < 2:
        yield None
    for number in range(count) if count > 1 else ():
        yield names[number] if distinct else str(number + 1)


def _pages(told: Contents) -> Iterator[str | None]:
    sizes = [(axis, size) for axis, size in zip(told.axes, told.shape, strict=True) if axis not in "YXCS" and size > 1]
    for numbers in itertools.product(*(range(1, size + 1) for _, size in sizes)):
        yield ",".join(f"{axis}{number}" for (axis, _), number in zip(sizes, numbers, strict=True)) or None
