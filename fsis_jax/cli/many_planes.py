"""`fsis segment` of all planes of its images: which there are, and the linking of their cells."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.output_settings import Outcome, OutputSettings
from fsis_jax.io.all_planes import ALL, PlaneChoice, all_planes, without_axis
from fsis_jax.io.outputs import plane_parts

Group = tuple[OutputSettings, list[str]]
"""A plane, and the images that have it."""


def each_plane(paths: Sequence[str], settings: OutputSettings, link: str | None) -> list[Group]:
    """The planes that "all" stands for; an image that cannot be read is told when it is segmented.

    Args:
        link: "z" or "t", if the planes are to be linked.

    Raises:
        FsisError: an image has no such axis.
    """
    wanted = PlaneChoice(settings.series, settings.channel, settings.page)
    if ALL not in wanted:
        return [(settings, list(paths))]
    groups: dict[PlaneChoice, list[str]] = {}
    for path in paths:
        try:
            planes = all_planes(path, wanted)
        except FsisError:
            planes = [PlaneChoice(*(None if part == ALL else part for part in wanted))]
        else:
            if link:
                _check_axis(path, planes, link.upper())
        for plane in planes:
            groups.setdefault(plane, []).append(path)
    return [
        (dataclasses.replace(settings, series=plane.series, channel=plane.channel, page=plane.page), own)
        for plane, own in groups.items()
    ]


def _check_axis(path: str, planes: Sequence[PlaneChoice], axis: str) -> None:
    """Raise FsisError where planes of a file are not along an axis, Z or T."""
    lacking = [each for each in planes if each.page is None or without_axis(each.page, axis) is None]
    if lacking:
        first = lacking[0]
        pages = dict.fromkeys(each.page for each in lacking if each.page and each.series == first.series)
        told = f"pages {', '.join(list(pages)[:3])} ..." if first.page else "only one plane"
        where = f" in series {first.series}" if first.series else ""
        raise FsisError(f"{path}: {told}{where}, no axis {axis}: leave out --link")


def base_settings(settings: OutputSettings) -> OutputSettings:
    """The settings without what "all" stands for, for the names of files of all planes together."""
    series, channel, page = (None if p == ALL else p for p in (settings.series, settings.channel, settings.page))
    return dataclasses.replace(settings, series=series, channel=channel, page=page)


@dataclasses.dataclass(frozen=True)
class Linked:
    """The cells of the planes of one image along one axis."""

    image: str
    plane: tuple[str, ...]
    """What is chosen besides that axis."""
    planes: int
    cells: int


def link_planes(link: str, output: pathlib.Path, done: Iterable[tuple[OutputSettings, Outcome]]) -> list[Linked]:
    """Link the results of all planes of each image, and write what `link_results` does.

    An image of which a plane failed is left out.

    Raises:
        FsisError: a file cannot be read or written.
    """
    stacks: dict[tuple[str, OutputSettings], dict[int, Outcome]] = {}
    for settings, outcome in done:
        split = without_axis(settings.page or "", link.upper()) if settings.page else None
        if split is not None:
            page, number = split
            stacks.setdefault((outcome.image, dataclasses.replace(settings, page=page or None)), {})[number] = outcome
    from fsis_jax.inference.linking import link_results  # SciPy takes as long to import as all that segments

    found = []
    for (path, settings), planes in stacks.items():
        if any(outcome.error for outcome in planes.values()):
            continue
        files = [(number, planes[number].files) for number in sorted(planes)]
        cells = link_results(output, settings.name(path), files)
        chosen = plane_parts(series=settings.series, channel=settings.channel, page=settings.page)
        found.append(Linked(path, tuple(chosen), len(files), cells))
    return found
