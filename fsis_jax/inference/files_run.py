"""A run over image files into a folder of results: one file after the other, on where an earlier run stopped.

`OUT/images.jsonl` gets a line for each finished image: what it was made from, counts and files. An image that has such
a line, for the same content, references, model and settings, and its files as they were written, is not segmented
again. `OUT/summary.csv` is made of these lines (`summary.py`).
`OUT/.tiles/NAME` has what was found in each tile of a large image: an interrupted run goes on from it, and another
threshold or kind of output needs no network. Results are written into `OUT/NAME.partial/` and moved to their place when
all are there; Ctrl-C leaves those so far in it. NAME is that of the image and of the plane that is chosen of it.

All this belongs to the process that has `OUT/NAME.lock` (`lock.py`). Several may share OUT: who comes to an image that
another one is at work on does the others first, and then waits.
"""

import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fsis_jax.errors import FsisError, OutputError
from fsis_jax.inference.causes import no_cell_causes
from fsis_jax.inference.finished_images import FinishedImages, fingerprints
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.lock import BusyError, Lock, acquire
from fsis_jax.inference.opening import open_target
from fsis_jax.inference.output_folder import OutputFolder
from fsis_jax.inference.output_settings import Outcome, OutputSettings
from fsis_jax.inference.references import NO_REFERENCES, References
from fsis_jax.inference.result_keys import ResultKeys
from fsis_jax.inference.summary import Summary, summarised
from fsis_jax.inference.tile_source import SourceLostError, TileSource
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.kinds import counts
from fsis_jax.io.names import RESULTS, ZARR
from fsis_jax.io.outputs import check_names, check_results, file_name, write_outputs
from fsis_jax.io.zarr_plates import write_plates

_logger = logging.getLogger(__name__)
_TILES = ".tiles"
_PAUSE = 0.2
"""Seconds between two looks at what another run is at work on."""


@dataclasses.dataclass(frozen=True)
class _FileJob(Job):
    image: ImageFile
    references: References
    journal: Journal  # type: ignore[misc]  # dataclasses take the default of the base class
    key: str = dataclasses.field(kw_only=True)
    lock: Lock = dataclasses.field(kw_only=True)


def segment_from(
    source: TileSource,
    paths: Sequence[str],
    references: References | None,
    output: str | os.PathLike[str],
    settings: OutputSettings | None = None,
    *,
    force: bool = False,
    progress: Callable[[str, int, int], object] | None = None,
) -> Iterator[Outcome]:
    """As `segment_files`, where what the tiles show comes from a source, which other calls may share."""
    references, settings = references or NO_REFERENCES, settings or OutputSettings()
    return _Run(source, paths, references, pathlib.Path(output), settings, force, progress).outcomes()


class _Run:
    """One call of `segment_from`."""

    def __init__(
        self,
        source: TileSource,
        paths: Sequence[str],
        references: References,
        output: pathlib.Path,
        settings: OutputSettings,
        force: bool,
        progress: Callable[[str, int, int], object] | None,
    ) -> None:
        self.source, self.segmenter = source, source.segmenter
        self.references, self.settings = references, settings
        self.output, self.folder = output, OutputFolder(output)
        self.force, self.progress = force, progress
        self.names = {path: settings.name(path) for path in paths}
        self.plane = tuple(settings.plane)
        check_names(paths)
        check_results(paths, self.names.values(), output, settings.save)
        self.segmenter.check_references(references)
        self.keys = ResultKeys(self.segmenter, references, settings)
        self.record = FinishedImages(output)
        self.summary = Summary(output, self.record)
        for path, name in self.names.items():
            self.record.check_place(path, name, settings.plane)
        self.before = dict(self.record.lines)
        self.open: list[_FileJob] = []
        self.taken = ""
        self.busy: list[str] = []
        self.elsewhere: list[Outcome] = []
        self.met: set[str] = set()

    def outcomes(self) -> Iterator[Outcome]:
        left = []
        for path in self.names:
            finished = self._finished(path)
            if finished is not None:
                yield finished
            else:
                left.append(path)
        told = False
        try:
            while left:
                self.busy, self.elsewhere = [], []
                yield from self._segment(iter(left))
                yield from self.elsewhere
                if self.busy and not told:
                    _logger.warning(f"{self.output}: waiting for the other run")
                    told = True
                if self.busy == left:
                    time.sleep(_PAUSE)
                left = self.busy
            self.folder.check()
            self.summary.update()
            self._write_plates()
        except KeyboardInterrupt:
            for job in self.open:
                try:
                    self._save_partial(job)
                except FsisError as error:
                    _logger.warning(f"{error}")
            raise
        finally:
            for job in list(self.open):
                self._close(job)
            self.folder.remove_if_new()

    def _write_plates(self) -> None:
        """Put the label images of fields of plates into plates, with those of earlier runs."""
        for kind in set(ZARR).intersection(self.settings.save):
            lines = [line for line in self.record.lines.values() if line["key"] and kind in line["files"]]
            own = {line["path"]: line["files"][kind] for line in lines if line.get("plane") == self.settings.plane}
            there = {path: folder for path, folder in own.items() if os.path.isdir(folder)}
            write_plates(self.output, there, kind, self.settings.suffix)

    def _segment(self, waiting: Iterator[str]) -> Iterator[Outcome]:
        """Those images that no other run is at work on."""
        while True:
            self.taken = ""
            stream = self.source.candidates(self._jobs(waiting), settings=self.settings, progress=self._report)
            try:
                for job, found in stream:
                    if isinstance(found, FsisError):
                        self._close(job)
                        yield Outcome(job.image.path, plane=self.plane, error=str(found))
                    else:
                        yield self._finish(job, found)
                return
            except (OutputError, SourceLostError):
                raise
            except FsisError as error:  # of the file that was taken last: results of those before were given
                for job in list(self.open):
                    self._close(job)
                yield Outcome(self.taken, plane=self.plane, error=str(error))

    def _jobs(self, waiting: Iterator[str]) -> Iterator[_FileJob]:
        for path in waiting:
            self.taken = path
            self.folder.check()
            try:
                lock = acquire(self.output / f"{self.names[path]}.lock", force=self.force)
            except BusyError as error:
                if not error.passes:
                    raise
                if path not in self.met:
                    _logger.warning(f"{path}: another run is at work on it ({error.holder}): left until that is done")
                self.met.add(path)
                self.busy.append(path)
                continue
            try:
                self.folder.check()
                job = self._job(path, lock)
            except BaseException:
                lock.release()
                raise
            if job is None:
                lock.release()
            else:
                self.open.append(job)
                self.source.begin(self.names[path], job.key, job.journal)
                yield job

    def _job(self, path: str, lock: Lock) -> _FileJob | None:
        """An image to segment; None if another run has done it meanwhile."""
        name, key = self.names[path], self.keys.of_tiles(path)
        self.record.refresh()
        finished, line = self._finished(path), self.record.lines.get(name, {})
        if finished is not None:
            self.elsewhere.append(finished)
            return None
        if line is not self.before.get(name) and line.get("key", "") not in ("", self.keys.of_files(key)):
            raise FsisError(
                f"{path}: another run ({line.get('run', 'of an older version')}) has written {name} to "
                f"{self.output} meanwhile with other references or settings: give each a folder of its own"
            )
        image, size = open_target(path, self.settings, self.references)
        journal = Journal(self.output / _TILES / name, key, again=self.force)
        return _FileJob(image, self.references, size, journal, key=key, lock=lock)

    def _finished(self, path: str) -> Outcome | None:
        """What the record says of an image that was finished with the same settings, whose files are there."""
        line = self.record.lines.get(self.names[path], {})
        again = self.force and line is self.before.get(self.names[path])
        same = line.get("key") == self.keys.of_files(self.keys.of_tiles(path))
        if not again and same and self.record.is_whole(line, self.settings.save):
            causes, kinds = tuple(line.get("causes", ())), line.get("kinds", {})
            return Outcome(path, line["cells"], line["pixel_size"], line["files"], causes, kinds, self.plane)
        return None

    def _report(self, job: _FileJob, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(job.image.path, done, total)

    def _finish(self, job: _FileJob, found: Instances) -> Outcome:
        """Write the results of an image and note it as done."""
        path, counted = job.image.path, self._counted(found)
        try:
            self.folder.check()
            files, written = self._move(self._write(job, counted), self.record.lines.get(self.names[path]))
            causes = () if len(counted) else self._causes(job, found)
            outcome = Outcome(path, len(counted), job.pixel_size, files, causes, counts(counted), self.plane)
            self._note(outcome, job, written, summarised(path, counted))
            self.summary.update_or_warn()
            return outcome
        except OutputError:
            raise
        except FsisError as error:
            return Outcome(path, plane=self.plane, error=str(error))
        finally:
            name = self.names[path]
            self.folder.remove_partial(name, [file.format(name) for file in RESULTS.values()])
            self._close(job)

    def _causes(self, job: _FileJob, found: Instances) -> tuple[str, ...]:
        size, references = job.pixel_size, self.references
        plan = self.segmenter.plan(job.image, references, pixel_size=size, tile=self.settings.tile)
        return no_cell_causes(found, self.segmenter.min_score, plan, references.sides_in(size))

    def _move(
        self, files: dict[str, str], earlier: dict[str, Any] | None
    ) -> tuple[dict[str, str], dict[str, list[Any]]]:
        """All files to where they belong, or none if a folder is there; kind -> path, and `fingerprints`."""
        places = dict(zip(files, self.folder.places(files.values()), strict=True))
        written = fingerprints(files)
        if earlier is not None:
            self.record.append({**earlier, "key": ""})  # until all are there, its files may be of two runs
        for kind, place in places.items():
            self.folder.move(files[kind], place)
        return {kind: str(place) for kind, place in places.items()}, written

    def _note(self, outcome: Outcome, job: _FileJob, written: dict[str, list[Any]], found: dict[str, Any]) -> None:
        """Add a line to the record, with what is `found` and the files of an earlier run that tell the same."""
        name, key = self.names[outcome.image], self.keys.of_files(job.key)
        earlier = self.record.lines.get(name, {"key": "", "files": {}})
        others = {kind: file for kind, file in earlier["files"].items() if kind not in outcome.files}
        if earlier["key"] != key:
            for file in filter(os.path.exists, others.values()):
                _logger.warning(f"{file}: of an earlier run with other references or settings")
            others = {}
        kept = {kind: told for kind, told in earlier.get("written", {}).items() if kind in others}
        line = {**dataclasses.asdict(outcome), **found, "files": {**others, **outcome.files}, "key": key}
        line["written"] = {**kept, **written}
        where = {"name": name, "path": os.path.abspath(outcome.image), "plane": self.settings.plane}
        line["opened"] = [self.settings.series, self.settings.channel, self.settings.page]
        self.record.append({**where, **line, "model": self.segmenter.fingerprint, "run": str(job.lock.holder)})

    def _save_partial(self, job: _FileJob) -> None:
        """Write what the finished tiles of an interrupted image hold."""
        if job.journal.finished:
            _logger.warning(f"{job.image.path}: writing what was found so far; Ctrl-C again leaves at once")
            found = self.segmenter.found_so_far(job, tile=self.settings.tile)
            self._write(job, self._counted(found))
            _logger.warning(
                f"{job.image.path}: {len(job.journal.finished)} tiles are done; their cells are in "
                f"{self.folder.partial(self.names[job.image.path])}, and the same command goes on"
            )

    def _counted(self, found: Instances) -> Instances:
        return dataclasses.replace(self.settings.tidying(found), category=self.settings.category)

    def _write(self, job: _FileJob, counted: Instances) -> dict[str, str]:
        path = job.image.path
        return write_outputs(
            self.folder.open_partial(self.names[path]),
            self.names[path],
            job.image,
            counted,
            self.settings.save,
            file_name=file_name(path),
            references=list(self.references.images),
            pixel_size=job.pixel_size,
            place=self.output,
        )

    def _close(self, job: _FileJob) -> None:
        job.image.close()
        job.journal.close()
        job.lock.release()
        if job in self.open:
            self.open.remove(job)
