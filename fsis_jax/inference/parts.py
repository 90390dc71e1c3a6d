"""A run in parts, as by the job arrays of clusters: each part does its share of the tiles, and `fsis merge` the rest.

`OUT/.parts/plan.json` is what all parts agree on (`part_plan.py`): the first that comes makes it. What a part finds in
the tiles of an image is in `OUT/.parts/tiles/NAME/NUMBER-TOKEN`, a journal that one process alone writes; `NUMBER.json`
says that a part is done, by which key it knew each image, and which it could not read. So no part needs a lock, a part
that was killed goes on from what it left, and one that is run twice does no harm. `Merged` puts together what all have
found, and `segment_from` does all else as in a run of one process.
"""

import dataclasses
import json
import os
import pathlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fsis_jax.errors import FsisError, OutputError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import J, Job, Work
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.opening import open_target
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.part_plan import Group, Part, Plan, Target, machine, make_plan, plan_of, shared_by_all
from fsis_jax.inference.references import NO_REFERENCES, References
from fsis_jax.inference.references_file import load_references
from fsis_jax.inference.result_keys import ResultKeys
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_source import TileSource
from fsis_jax.io.atomic import atomic_write, check_folder, write_once
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outputs import check_names, check_results

Command = Mapping[str, Any]


class PartsFolder:
    """What the parts of a run leave in its folder of results."""

    def __init__(self, output: pathlib.Path) -> None:
        self.output, self._place = output, output / ".parts"
        self._references = self._place / "references.refs"

    def plan(self) -> Plan | None:
        """What the parts agree on; None before the first has come.

        Raises:
            FsisError: a file that is no plan.
        """
        try:
            content = (self._place / "plan.json").read_bytes()
        except FileNotFoundError:
            return None
        return self._read(content)

    def make_plan(self, plan: Plan) -> Plan:
        """Have this one, unless another part was first: that which all have."""
        return self._read(write_once(self._place / "plan.json", json.dumps(plan.as_json()).encode()))

    def _read(self, content: bytes) -> Plan:
        try:
            return plan_of(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FsisError(f"{self._place / 'plan.json'}: is no plan of parts: delete {self._place}") from error

    def keep_references(self, references: References) -> None:
        """Keep what the cells are like, for the merging, unless they are kept already."""
        if len(references.sides) and not self._references.exists():
            references.save(self._references)

    def references(self) -> References | None:
        """What was kept; None for a model that takes none."""
        return load_references(self._references) if self._references.exists() else None

    def journal(self, name: str, number: int, key: str) -> Journal:
        """What a part has found in an image so far, to which only this process adds."""
        folder = self._place / "tiles" / name
        mine = Journal(folder / f"{number}-{secrets.token_hex(4)}", key)
        for file in sorted(folder.glob(f"{number}-*")):
            mine.finished.update(Journal(file, key).finished)
        return mine

    def finish(self, part: Part, keys: Mapping[str, str], errors: Mapping[str, str]) -> None:
        """Note that a part is done.

        Args:
            keys: name of each image of the part -> what its tiles depend on.
            errors: name -> why it could not be segmented.
        """
        with atomic_write(self._place / f"{part.number}.json") as file:
            file.write(json.dumps({"keys": dict(keys), "errors": dict(errors)}).encode())

    def done(self, count: int) -> list[dict[str, dict[str, str]]]:
        """What `finish` noted of each part.

        Raises:
            FsisError: some are not done.
        """
        found, missing = [], []
        for number in range(1, count + 1):
            try:
                found.append(json.loads((self._place / f"{number}.json").read_bytes()))
            except (FileNotFoundError, ValueError):
                missing.append(number)
        if missing:
            few = ", ".join(map(str, missing[:10])) + ", ..." * (len(missing) > 10)
            what = f"part {few} of {count} is" if len(missing) == 1 else f"parts {few} of {count} are"
            raise FsisError(
                f"{self.output}: {what} missing: run `fsis segment ... --part {missing[0]}/{count}`, then merge again"
            )
        return found


def segment_part(
    segmenter: Segmenter,
    groups: Sequence[Group],
    references: References | None,
    output: str | os.PathLike[str],
    part: Part,
    command: Command,
    *,
    progress: Callable[[str, int, int], object] | None = None,
) -> Iterator[tuple[str, str]]:
    """Do a part of `segment_files`, whose results `Merged` then makes.

    Args:
        groups: settings, and the paths of the image files that are read so.
        references: None for a closed-set detector.
        output: the folder for the results, which all parts can write to.
        command: kept in the plan, for the merging.
        progress: as for `segment_files`.

    Yields:
        Of each image of which the part does something the path, and why it could not be segmented, else "".

    Raises:
        FsisError: the parts that were there before are not of this run.
        OutputError: something cannot be written.
    """
    return _PartRun(segmenter, groups, references or NO_REFERENCES, pathlib.Path(output), part, progress).run(command)


@dataclasses.dataclass(frozen=True)
class _PartJob(Job):
    image: ImageFile
    journal: Journal  # type: ignore[misc]  # dataclasses take the default of the base class


class _PartRun:
    """One call of `segment_part`."""

    def __init__(
        self,
        segmenter: Segmenter,
        groups: Sequence[Group],
        references: References,
        output: pathlib.Path,
        part: Part,
        progress: Callable[[str, int, int], object] | None,
    ) -> None:
        check_folder(output)
        for settings, paths in groups:
            check_names(paths)
            check_results(paths, map(settings.name, paths), output, settings.save)
        segmenter.check_references(references)
        self.segmenter, self.groups, self.references = segmenter, groups, references
        self.folder, self.part, self.progress = PartsFolder(output), part, progress
        self.keys: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.open: list[_PartJob] = []
        self.taken = ""

    def run(self, command: Command) -> Iterator[tuple[str, str]]:
        count, output = self.part.count, str(self.folder.output)
        mine = {**shared_by_all(self.segmenter, self.groups, self.references, count), **machine(self.segmenter)}
        plan = self.folder.plan()
        if plan is None:
            plan = make_plan(self.segmenter, self.groups, self.references, count, command)
            plan = self.folder.make_plan(plan)
        plan.check(output, mine)
        self.folder.keep_references(self.references)
        targets = {target.name: target for target in plan.targets}
        for settings, paths in self.groups:
            own = [path for path in paths if self._is_mine(targets[settings.name(path)])]
            yield from self._segment(settings, own, targets)
        self.folder.finish(self.part, self.keys, self.errors)

    def _is_mine(self, target: Target) -> bool:
        return target.owner == self.part.number or len(target.tiles_of(self.part)) > 0

    def _segment(
        self, settings: OutputSettings, paths: Sequence[str], targets: Mapping[str, Target]
    ) -> Iterator[tuple[str, str]]:
        waiting = iter(paths)
        keys = ResultKeys(self.segmenter, self.references, settings)
        while True:
            self.taken = ""
            try:
                works = self._works(settings, waiting, targets, keys)
                for work in self.segmenter.find_tiles(works, progress=self._report):
                    self._close(work.job)
                    yield work.job.image.path, ""
                return
            except OutputError:
                raise
            except FsisError as error:  # of the file that was taken last
                self.errors[settings.name(self.taken)] = str(error)
                yield self.taken, str(error)
            finally:
                for job in list(self.open):
                    self._close(job)

    def _works(
        self, settings: OutputSettings, waiting: Iterator[str], targets: Mapping[str, Target], keys: ResultKeys
    ) -> Iterator[Work[_PartJob]]:
        for path in waiting:
            self.taken, name = path, settings.name(path)
            target = targets[name]
            self.keys[name] = keys.of_tiles(path)
            journal = self.folder.journal(name, self.part.number, self.keys[name])
            image, size = open_target(path, settings, self.references)
            only = target.tiles_of(self.part) if target.tiles else range(1 << 62)
            job = _PartJob(image, self.references, size, journal, only, target.stretches)
            self.open.append(job)
            work = self.segmenter.work(job, tile=settings.tile)
            if target.tiles and len(work.tiles) != target.tiles:
                raise FsisError(
                    f"{path}: has changed: {len(work.tiles)} tiles, where the parts were planned for {target.tiles}"
                )
            yield work

    def _report(self, job: _PartJob, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(job.image.path, done, total)

    def _close(self, job: _PartJob) -> None:
        job.image.close()
        job.journal.close()
        self.open.remove(job)


class Merged(TileSource):
    """What all parts of a run have found.

    Args:
        groups: as for `segment_part`.

    Raises:
        FsisError: a part is missing, or they are of another run.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        groups: Sequence[Group],
        references: References | None,
        folder: PartsFolder,
        plan: Plan,
    ) -> None:
        super().__init__(segmenter)
        plan.check(str(folder.output), shared_by_all(segmenter, groups, references or NO_REFERENCES, plan.count))
        self._folder, self._count = folder, plan.count
        self._targets = {target.name: target for target in plan.targets}
        self._done = folder.done(plan.count)

    def begin(self, name: str, key: str, journal: Journal) -> None:
        """Add what the parts have found in an image."""
        target = self._targets[name]
        for number in range(1, self._count + 1):
            if target.owner not in (None, number):
                continue
            noted = self._done[number - 1]
            if name in noted["errors"]:
                raise FsisError(noted["errors"][name])
            if target.tiles_of(Part(number, self._count)) and noted["keys"].get(name) != key:
                raise FsisError(
                    f"{name}: the image has changed since part {number} was run: run all parts of it again, then merge"
                )
            for tile, found in self._folder.journal(name, number, key).finished.items():
                if target.tiles > 1 and tile not in journal.finished:
                    journal.add(tile, found)
                journal.finished[tile] = found

    def candidates(
        self, jobs: Iterable[J], *, settings: OutputSettings, progress: Callable[[J, int, int], object]
    ) -> Iterator[tuple[J, Instances | FsisError]]:
        """As `TileSource.candidates`; tiles that no part noted show nothing."""
        for job in jobs:
            yield job, self.segmenter.found_so_far(job, tile=settings.tile)
