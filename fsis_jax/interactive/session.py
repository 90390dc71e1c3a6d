"""The session: references, results and corrections of any number of images, and what is done with them.

A front end shows what is here and calls what is here. All that it does to the state is one step of undo. A piece of
work in a thread (`Task`) may end between two calls: who reads the state several times takes it once (`session.state`).
"""

import dataclasses
import os
import pathlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.causes import no_cell_causes
from fsis_jax.inference.example_cells import encode_examples
from fsis_jax.inference.finished_images import content_digest
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tidying import WHOLE_CELLS
from fsis_jax.interactive.editing import Editing
from fsis_jax.interactive.finding import find_all, find_in_part
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.learning import Basis, refined
from fsis_jax.interactive.loading import what_is_there
from fsis_jax.interactive.saved import SessionFile, read_session
from fsis_jax.interactive.state import NOT_THIS, Filters, Reference, Result, State
from fsis_jax.interactive.task import StoppedError, Task
from fsis_jax.io.outlines import Box

SESSION_FILE = "session.json"
FINE_TUNED = "fine-tuned"
"""Folder in that of the results, and how the names of more begin, for models that learnt from corrections."""
UPLOADS = "uploads"
"""Folder in that of the results, for images that are given to a front end."""
_SAVE = 10.0
"""Seconds between two looks at whether the session is to be saved."""


class Session(Editing):
    """What one person does; several pages may show it, and then show the same.

    Args:
        segmenter: a model that is shown references.
        folders: what may be opened.
        output: folder for results and for the session itself.
        settings: plane, size of pixels, tiles and category, as `fsis segment` takes them; the tidying is `filters`'.
        checkpoint: the model's name in commands; None: the default one.

    Raises:
        FsisError: the model is shown no references.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        folders: Folders,
        output: str | os.PathLike[str],
        settings: OutputSettings | None = None,
        *,
        checkpoint: str | None = None,
    ) -> None:
        if segmenter.names:
            known = ", ".join(segmenter.names[:5]) + ", ..." * (len(segmenter.names) > 5)
            raise FsisError(f"this model finds what it knows by name ({known}), and not what it is shown")
        super().__init__(folders, settings or OutputSettings(), Filters(segmenter.min_score))
        self.segmenter = segmenter
        self.output = pathlib.Path(output)
        self.uploads = self.output / UPLOADS
        self.checkpoint = checkpoint
        self.looked_at = ""
        """The image that was opened last, in whatever tab."""
        self.task: Task | None = None
        self.unsaved = ""
        """Why the last try to save it in time failed, in one line; "" if it did not."""
        self._lock, self._saving = threading.RLock(), threading.RLock()
        self._file = SessionFile(self.output / SESSION_FILE)
        self._saved: object = self._version()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._encoded: tuple[object, References] | None = None
        self._causes: weakref.WeakKeyDictionary[Instances, tuple[str, ...]] = weakref.WeakKeyDictionary()
        self._first_model = checkpoint

    def why_earlier(self, result: Result) -> str:
        """Why a result is an earlier one, for a person; "" if all that it was found with is as it was."""
        if result.model not in ("", self.segmenter.fingerprint):
            return "the model is another one now"
        return "" if result.references == self.state.references else "the examples have changed"

    def is_current(self, result: Result) -> bool:
        """Whether references, the names of their kinds among them, and model are still those that it was found with."""
        return not self.why_earlier(result)

    def models(self) -> list[str | None]:
        """The checkpoints that can be chosen: the one that it began with, and those that learnt from corrections."""
        runs = sorted(self.output.glob(f"{FINE_TUNED}*"))
        found = [str(run) for run in runs if _is_trained(run)]
        return list(dict.fromkeys([self._first_model, self.checkpoint, *found]))

    def choose_model(self, checkpoint: str | None) -> Task:
        """Begin to load one of the `models`; results of another are earlier ones then.

        Raises:
            FsisError: something else is at work. As the task's error: it cannot be loaded.
        """
        return self.begin("loading the model", lambda task: self.use_model(checkpoint))

    def use_model(self, checkpoint: str | None) -> None:
        """Load a model, and go on with it.

        Raises:
            FsisError: there is none, or it is damaged.
        """
        segmenter = Segmenter.from_pretrained(checkpoint)
        if self.filters.min_score == self.segmenter.min_score:
            self.filters = dataclasses.replace(self.filters, min_score=segmenter.min_score)
        self.segmenter, self.checkpoint = segmenter, checkpoint
        self._tell()

    def is_finished(self, path: str) -> bool:
        """Whether all of an image was segmented with the references as they are now."""
        result = self.result(path)
        return result is not None and result.part is None and self.is_current(result)

    def begin(self, name: str, work: Callable[[Task], str | None]) -> Task:
        """Begin a piece of work, as `Task` describes it.

        Raises:
            FsisError: something else is at work.
        """
        with self._lock:
            if self.task is not None and self.task.running:
                raise FsisError(f"still at work: {self.task.name}; wait for it or stop it")
            self.task = Task(name, work, self._tell)
        self._tell()
        return self.task

    def stop(self, seconds: float = 90) -> None:
        """End what is at work, and wait for its end so long."""
        if self.task is not None and self.task.running:
            self.task.stop()
            self.task.wait(seconds)

    def segment(self, path: str, part: Box | None = None) -> Task:
        """Begin to segment an image, or the part of it that is seen.

        Raises:
            FsisError: no reference was shown, or something else is at work.
        """
        shown = self.shown()
        seen = None if part is None else self._rounded(path, part)
        what = "segmenting" if part is None else "segmenting the part that is seen of"
        return self.begin(f"{what} {os.path.basename(path)}", lambda task: self._segment(task, path, shown, seen))

    def segment_all(self, paths: Sequence[str]) -> Task:
        """Begin to segment those of some images that were not segmented as a whole with the references as they are now.

        An image that cannot be read is left out, and told at the end.

        Raises:
            FsisError: no reference was shown, or something else is at work.
        """
        shown = self.shown()

        def work(task: Task) -> str:
            waiting = [path for path in paths if not self.is_finished(path)]
            failures = []
            for number, path in enumerate(waiting, start=1):
                task.name = f"image {number} of {len(waiting)}: {os.path.basename(path)}"
                task.advance(0, 0)
                try:
                    self._segment(task, path, shown, None)
                except StoppedError:
                    raise
                except FsisError as error:
                    failures.append(error)
            if failures:
                more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
                raise FsisError(f"{len(failures)} of {len(waiting)} images failed: {failures[0]}{more}")
            return f"{len(waiting)} images segmented, {len(paths) - len(waiting)} were before"

        return self.begin("segmenting all images", work)

    def segment_again(self, task: Task, parts: Mapping[str, Box | None], shown: State) -> None:
        """Segment images, or parts of them, within a piece of work.

        Args:
            shown: as `shown` gave it, when the work began.

        Raises:
            FsisError: an image cannot be read.
        """
        for path, part in parts.items():
            self._segment(task, path, shown, part)

    def causes(self, result: Result) -> tuple[str, ...]:
        """Where nothing counts, and did not when it was found: the likeliest reasons, a line each."""
        return () if result.added or result.kept(self.filters).any() else self._causes.get(result.found, ())

    def save(self) -> str:
        """Write the session to its folder; the file.

        Raises:
            OutputError: it cannot be written.
        """
        with self._saving:
            version = self._version()
            file = self._file.write(self.state, self.filters, self.looked_at, self.checkpoint)
            self._saved = version
        return file

    def save_changes(self) -> None:
        """As `save`, if there is anything to go on with that is not in the file yet."""
        with self._saving:
            if self._saved != self._version():
                self.save()

    def keep(self) -> None:
        """Begin to save changes every few seconds, in a thread, until `close`; `unsaved` tells if that fails."""
        self._keeper = threading.Thread(target=self._keep, name="fsis: saving", daemon=True)
        self._keeper.start()

    def close(self, seconds: float = 90) -> None:
        """End what is at work, wait for its end so long, and save what there is.

        Raises:
            OutputError: it cannot be saved.
        """
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        try:
            self.save_changes()  # before there is anything to wait for
        finally:
            self.stop(seconds)
            self.save_changes()

    def load(self) -> bool:
        """Go on with the session in the folder, if there is one; undo does not lead back from it.

        An image that is gone is left out, with its examples and results; a warning tells where the session is kept
        that has them.

        Raises:
            FsisError: it is damaged, or an image may not be opened, cannot be read or is another one.
        """
        file = self.output / SESSION_FILE
        if not file.exists():
            return False
        state, filters, looked_at = read_session(file)
        there = what_is_there(state, self, file)
        self.filters, self.looked_at = filters, looked_at
        self.history.begin(there)
        if there is state:
            self._saved = self._version()
        self._tell()
        return True

    def encode(self, references: tuple[Reference, ...]) -> References:
        """What the network keeps of references, once for the same ones; corrections are not in it."""
        encoded, key = self._encoded, (references, self.segmenter.fingerprint)
        if encoded is None or encoded[0] != key:
            encoded = key, encode_examples(self.segmenter, self._examples(references), self.settings.category)
            self._encoded = encoded
        return encoded[1]

    def shown(self) -> State:
        """The state, whose references show a cell.

        Raises:
            FsisError: they do not.
        """
        state = self.state
        if all(reference.kind == NOT_THIS for reference in state.references):
            raise FsisError("no example yet: draw a box around a cell first")
        return state

    def _segment(self, task: Task, path: str, asked: State, seen: Box | None) -> None:
        """An image, or the tiles that answer for a part of it, with the references of the state when it was asked for.

        Raises:
            StoppedError: the kinds have come to be others, so that nobody asks for what was found.
            FsisError: the image cannot be read.
        """
        tile, covered, corrections = self.settings.tile, None, self.state.corrections
        with self.open(path) as image:
            shown, size, digest = self.encode(asked.references), self.pixel_size(image), content_digest(path)
            encoded = refined(shown, corrections)
            if seen is None:
                found = find_all(self.segmenter, Job(image, encoded, size), tile, task.advance)
            else:
                found, covered = find_in_part(
                    self.segmenter, image, encoded, seen, pixel_size=size, tile=tile, advance=task.advance
                )
            names = ("", *found.names[1:]) if found.names and asked.kinds == ("",) else found.names
            whole = dataclasses.replace(WHOLE_CELLS(found, 0.0), category=self.settings.category, names=names)
            if not Result(whole, ()).kept(self.filters).any():
                plan = self.segmenter.plan(image, encoded, pixel_size=size, tile=tile)
                self._causes[whole] = no_cell_causes(whole, self.filters.min_score, plan, encoded.sides_in(size))
        faintness = self.segmenter.config.model.detections.faintness
        basis = Basis(shown.kind_model, shown.pixel_size, faintness, corrections)
        model = self.segmenter.fingerprint
        result = Result(whole, asked.references, covered, model=model, image=digest, basis=basis)

        def arrived(state: State) -> State:
            if state.kinds[: len(asked.kinds)] != asked.kinds:
                raise StoppedError("the kinds have changed meanwhile: segment again")
            return state.with_result(path, result.taken_over(state.results.get(path)))

        self._change(arrived)

    def _keep(self) -> None:
        while not self._closing.wait(_SAVE):
            failure = ""
            try:
                self.save_changes()
            except FsisError as error:
                failure = str(error)
            if self.unsaved != failure:
                self.unsaved = failure
                self._tell()

    def _version(self) -> object:
        """Another value whenever there is something else to be saved."""
        return self.history.changes, self.filters, self.looked_at, self.checkpoint


def _is_trained(run: pathlib.Path) -> bool:
    """Whether there is a model in the folder of a training."""
    from fsis_jax.checkpoints.runs import has_checkpoint  # and orbax, which only such a folder needs

    return has_checkpoint(run)
