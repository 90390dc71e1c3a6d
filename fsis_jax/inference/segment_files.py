"""Segmenting image files into a folder of results, in this process or on the workers of a Dask cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fsis_jax.inference.files_run import segment_from
from fsis_jax.inference.output_settings import Outcome, OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_source import TileSource

if TYPE_CHECKING:
    from distributed import Client


def segment_files(
    segmenter: Segmenter,
    paths: Sequence[str | os.PathLike[str]],
    references: References | None,
    output: str | os.PathLike[str],
    settings: OutputSettings | None = None,
    *,
    force: bool = False,
    progress: Callable[[str, int, int], object] | None = None,
    client: "Client | None" = None,
) -> Iterator[Outcome]:
    """Segment image files; one that fails does not stop the others.

    Args:
        paths: of image files, whose names without their suffixes differ. (Of an image in several files, the named one
            tells whether it has changed.)
        references: None for a closed-set detector.
        output: folder for the results, made if missing. Other processes may write there too.
        force: segment also what is finished, and take over what runs on other machines have left there, which must
            have ended.
        progress: called with a path, the number of finished tiles of the image and of all its tiles.
        client: of a Dask cluster (`distributed.Client`), whose workers find what is in the tiles; None: this process.

    Yields:
        First the images that an earlier run finished, then the others, in order; those last that another run has.

    Raises:
        FsisError: two files have one name, the results there are of another file or plane, the references are not
            for this model, or Dask's workers are not as they should be.
        OutputError: a result cannot be written; those before are complete.
        KeyboardInterrupt: as it came, after the results so far of a half-finished image were written.
    """
    places = [os.fspath(path) for path in paths]
    if client is None:
        source = TileSource(segmenter)
        return segment_from(source, places, references, output, settings, force=force, progress=progress)
    from fsis_jax.inference.dask_tiles import DaskTiles  # of an extra

    workers = DaskTiles(segmenter, references, client)
    outcomes = segment_from(workers, places, references, output, settings, force=force, progress=progress)
    return _with(workers, outcomes)


def _with(source: AbstractContextManager[object], outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    with source:
        yield from outcomes
