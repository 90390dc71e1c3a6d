"""Which files say what the cells of an image are: results in a folder as they are now, or files that are named."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fsis_jax.errors import FsisError
from fsis_jax.inference.finished_images import fingerprints, is_of_plane, plane_of, result_of, results_in, some_of
from fsis_jax.io.all_planes import PlaneChoice
from fsis_jax.io.outputs import plane_parts

_READ = ("geojson", "rois", "labels")
"""Kinds of results that tell all cells, the best first: classes and holes, groups, pixels."""


@dataclasses.dataclass(frozen=True)
class Correction:
    """An image and the file with its cells."""

    image: str
    """Path."""
    file: str
    corrected: bool
    """Whether the file is another one than was written as the image's result."""
    plane: PlaneChoice
    """Of the image."""


def corrections_in(
    folder: str | os.PathLike[str], names: Sequence[str], given: Mapping[str, str], *, plane: PlaneChoice
) -> list[Correction]:
    """Of images of a folder of results.

    An image's own result is the one that was changed since it was written, else GeoJSON, ROIs or the label image.

    Args:
        names: of images, as their results have them; none: all, of `plane` if it is given.
        given: name -> another file for it.
        plane: of the images; what is None is as the results tell.

    Raises:
        FsisError: no such image, results of another plane, none that tells all cells, or several that were changed.
    """
    lines = results_in(folder)
    chosen = {name: result_of(folder, lines, name) for name in (*names, *given)}
    if not names:
        chosen = {name: line for name, line in lines.items() if name in given or is_of_plane(line, plane)}
    if not chosen:
        told = ",".join(plane_parts(**plane._asdict()))
        raise FsisError(f"{folder}: no results of the plane {told}: there are {some_of(lines)}")
    found = []
    for name, line in chosen.items():
        own_plane = plane_of(folder, line, plane)
        file = given.get(name)
        changed = _changed(line)
        if file is None and len(changed) > 1:
            raise FsisError(f"{folder}: {' and '.join(changed)} were changed: name one by --corrected {name}=FILE")
        own = [*changed, *_there(line).values()]
        if file is None and not own:
            raise FsisError(f"{folder}: no outlines or labels of {name}: run `fsis segment` again with --save geojson")
        found.append(Correction(line["path"], file or own[0], file is not None or bool(changed), own_plane))
    return found


def _there(line: Mapping[str, Any]) -> dict[str, str]:
    """Kind -> file of the results that tell all cells."""
    files = {kind: line["files"].get(kind, "") for kind in _READ}
    return {kind: file for kind, file in files.items() if os.path.isfile(file)}


def _changed(line: Mapping[str, Any]) -> list[str]:
    """Files that are not as they were written."""
    files, written = _there(line), line.get("written", {})
    return [files[kind] for kind, print_ in fingerprints(files).items() if written.get(kind, print_) != print_]
