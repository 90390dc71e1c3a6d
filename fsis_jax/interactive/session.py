"""The session: references, results and corrections of any number of images, and what is done with them.

A front end shows what is here and calls what is here. All that it does to the state is one step of undo. A piece of
work in a thread (`Task`) may end between two calls: who reads the state several times takes it once (`session.state`).
"""

import dataclasses
import functools
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.causes import no_cell_causes
from fsis_jax.inference.example_cells import Example, boxed_examples, encode_examples
from fsis_jax.inference.job import Job
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tidying import WHOLE_CELLS
from fsis_jax.interactive.finding import find_all, find_in_part
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.history import History
from fsis_jax.interactive.saved import read_session, write_session
from fsis_jax.interactive.state import Filters, Reference, Result, State, Verdict, ellipse, whole_pixels
from fsis_jax.interactive.task import StoppedError, Task
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outlines import Box
from fsis_jax.io.source import open_image

SESSION_FILE = "session.json"
UPLOADS = "uploads"
"""Folder in that of the results, for images that are given to a front end."""


class Session:
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
        self.segmenter, self.folders = segmenter, folders
        self.output = pathlib.Path(output)
        self.uploads = self.output / UPLOADS
        self.settings = settings or OutputSettings()
        self.checkpoint = checkpoint
        self.filters = Filters(segmenter.min_score)
        self.looked_at = ""
        """The image that was opened last, in whatever tab."""
        self.history = History()
        self.task: Task | None = None
        self.listeners: list[Callable[[], object]] = []
        """Called after each change, in whatever thread that was made."""
        self._lock = threading.RLock()
        self._saved: object = self._version()
        self._encoded: tuple[tuple[Reference, ...], References] | None = None

    @property
    def state(self) -> State:
        return self.history.state

    def open(self, path: str) -> ImageFile:
        """An image that may be opened.

        Raises:
            FsisError: it may not, or cannot be read.
        """
        chosen = self.settings
        return open_image(self.folders.allowed(path), channel=chosen.channel, page=chosen.page, series=chosen.series)

    def result(self, path: str) -> Result | None:
        """What was found in an image."""
        return self.state.results.get(path)

    def is_current(self, result: Result) -> bool:
        """Whether the references are still those that it was found with."""
        return result.references == self.state.references

    def is_finished(self, path: str) -> bool:
        """Whether all of an image was segmented with the references as they are now."""
        result = self.result(path)
        return result is not None and result.part is None and self.is_current(result)

    def add_reference(self, path: str, box: Box) -> None:
        """A box around an example cell, which is rounded to whole pixels.

        Raises:
            FsisError: there is hardly any of it inside the image, or nothing is seen there.
        """
        reference = Reference(path, self._rounded(path, box))
        self._examples([reference])
        self._change(lambda state: dataclasses.replace(state, references=(*state.references, reference)))

    def remove_reference(self, number: int) -> None:
        """By its place among the references."""

        def without(state: State) -> State:
            left = (*state.references[:number], *state.references[number + 1 :])
            return dataclasses.replace(state, references=left)

        self._change(without)

    def set_filters(self, filters: Filters) -> None:
        """Which instances count; no step of undo."""
        self.filters = filters
        self._tell()

    def mark(self, path: str, row: int, verdict: Verdict | None) -> None:
        """Say something of an instance, or None to take it back."""

        def marked(result: Result) -> Result:
            verdicts = {other: said for other, said in result.verdicts.items() if other != row}
            return dataclasses.replace(result, verdicts=verdicts if verdict is None else {**verdicts, row: verdict})

        self._correct(path, marked)

    def add_cell(self, path: str, box: Box) -> bool:
        """A cell that was missed: the instance of any score with nearly this box, else the ellipse in the box.

        Returns:
            Whether there was such an instance, with its own mask.

        Raises:
            FsisError: there is hardly any of the box inside the image, or nothing was segmented yet.
        """
        rounded = self._rounded(path, box)
        result = self.segmented(path)
        row = result.likest(rounded)
        if row is not None:
            self.mark(path, row, "right")
        else:
            added = ellipse(rounded)
            self._correct(path, lambda result: dataclasses.replace(result, added=(*result.added, added)))
        return row is not None

    def remove_cell(self, path: str, number: int) -> None:
        """An added one, by its number."""
        self._correct(
            path, lambda result: dataclasses.replace(result, added=result.added[:number] + result.added[number + 1 :])
        )

    def undo(self) -> None:
        """Back to before the last change, if there was one."""
        self.history.undo()
        self._tell()

    def redo(self) -> None:
        """What was undone last is done again, if nothing else was done since."""
        self.history.redo()
        self._tell()

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

    def segment(self, path: str, part: Box | None = None) -> Task:
        """Begin to segment an image, or the part of it that is seen.

        Raises:
            FsisError: no reference was shown, or something else is at work.
        """
        references = self._shown()
        seen = None if part is None else self._rounded(path, part)
        what = "segmenting" if part is None else "segmenting the part that is seen of"
        return self.begin(f"{what} {os.path.basename(path)}", lambda task: self._segment(task, path, references, seen))

    def segment_all(self, paths: Sequence[str]) -> Task:
        """Begin to segment those of some images that were not segmented as a whole with the references as they are now.

        An image that cannot be read is left out, and told at the end.

        Raises:
            FsisError: no reference was shown, or something else is at work.
        """
        references = self._shown()

        def work(task: Task) -> str:
            waiting = [path for path in paths if not self.is_finished(path)]
            failures = []
            for number, path in enumerate(waiting, start=1):
                task.name = f"image {number} of {len(waiting)}: {os.path.basename(path)}"
                task.advance(0, 0)
                try:
                    self._segment(task, path, references, None)
                except StoppedError:
                    raise
                except FsisError as error:
                    failures.append(error)
            if failures:
                more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
                raise FsisError(f"{len(failures)} of {len(waiting)} images failed: {failures[0]}{more}")
            return f"{len(waiting)} images segmented, {len(paths) - len(waiting)} were before"

        return self.begin("segmenting all images", work)

    def causes(self, path: str) -> tuple[str, ...]:
        """Where nothing counts in an image: the likeliest reasons, a line each, as `fsis segment` tells them."""
        result = self.segmented(path)
        with self.open(path) as image:
            size, references = self.pixel_size(image), self.encode(result.references)
            plan = self.segmenter.plan(image, references, pixel_size=size, tile=self.settings.tile)
        return no_cell_causes(result.found, self.filters.min_score, plan, references.sides_in(size))

    def paths(self) -> list[str]:
        """The images that references or results are of."""
        state = self.state
        return list(dict.fromkeys([*(reference.image for reference in state.references), *state.results]))

    def save(self) -> str:
        """Write the session to its folder; the file.

        Raises:
            OutputError: it cannot be written.
        """
        version = self._version()
        fingerprint = self.segmenter.fingerprint
        file = write_session(self.output / SESSION_FILE, self.state, self.filters, self.looked_at, fingerprint)
        self._saved = version
        return file

    def save_changes(self) -> None:
        """As `save`, if there is anything to go on with that is not in the file yet."""
        if self._saved != self._version():
            self.save()

    def load(self) -> bool:
        """Go on with the session in the folder, if there is one: a step of undo. Its images must be there as they were.

        Raises:
            FsisError: it is damaged or of another model, or an image may not be opened, is gone or has another size.
        """
        file = self.output / SESSION_FILE
        if not file.exists():
            return False
        state, filters, looked_at = read_session(file, self.segmenter.fingerprint)
        sizes: Mapping[str, tuple[int, int]] = {path: result.found.size for path, result in state.results.items()}
        for path in dict.fromkeys([*sizes, *(reference.image for reference in state.references)]):
            with self.open(path) as image:
                size = (image.shape[0], image.shape[1])
                if sizes.get(path, size) != size:
                    raise FsisError(f"{file}: {path} has {size[1]}x{size[0]} pixels now: delete the session")
        self.filters, self.looked_at = filters, looked_at
        self._change(lambda _: state)
        self._saved = self._version()
        return True

    def pixel_size(self, image: ImageFile) -> float | None:
        """Micrometres per pixel of an image, if they are known."""
        return image.pixel_size if self.settings.pixel_size is None else self.settings.pixel_size

    def _examples(self, references: Sequence[Reference]) -> list[Example]:
        chosen = self.settings
        opener = functools.partial(
            open_image, channel=chosen.channel, page=chosen.page, series=chosen.series, where_there=True
        )
        return [boxed_examples(reference.image, [reference.box], opener)[0] for reference in references]

    def encode(self, references: tuple[Reference, ...]) -> References:
        """What the network keeps of references, once for the same ones."""
        encoded = self._encoded
        if encoded is None or encoded[0] != references:
            encoded = references, encode_examples(self.segmenter, self._examples(references))
            self._encoded = encoded
        return encoded[1]

    def _shown(self) -> tuple[Reference, ...]:
        """The references, of which there must be one."""
        if not self.state.references:
            raise FsisError("no example yet: draw a box around a cell first")
        return self.state.references

    def _segment(self, task: Task, path: str, references: tuple[Reference, ...], seen: Box | None) -> None:
        """An image, or the tiles that answer for a part of it."""
        tile, covered = self.settings.tile, None
        with self.open(path) as image:
            encoded, size = self.encode(references), self.pixel_size(image)
            if seen is None:
                found = find_all(self.segmenter, Job(image, encoded, size), tile, task.advance)
            else:
                found, covered = find_in_part(
                    self.segmenter, image, encoded, seen, pixel_size=size, tile=tile, advance=task.advance
                )
        whole = dataclasses.replace(WHOLE_CELLS(found, 0.0), category=self.settings.category)
        result = Result(whole, references, covered)
        self._change(lambda state: _with_result(state, path, result.taken_over(state.results.get(path))))

    def _version(self) -> object:
        """Another value whenever there is something else to be saved."""
        return self.history.changes, self.filters, self.looked_at

    def _rounded(self, path: str, box: Box) -> Box:
        with self.open(path) as image:
            return whole_pixels(box, (image.shape[0], image.shape[1]))

    def segmented(self, path: str) -> Result:
        """What was found in an image.

        Raises:
            FsisError: it was not segmented yet.
        """
        result = self.result(path)
        if result is None:
            raise FsisError(f"{path}: not segmented yet")
        return result

    def _correct(self, path: str, change: Callable[[Result], Result]) -> None:
        self.segmented(path)
        self._change(lambda state: _with_result(state, path, change(state.results[path])))

    def _change(self, change: Callable[[State], State]) -> None:
        self.history.change(change)
        self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()


def _with_result(state: State, path: str, result: Result) -> State:
    return dataclasses.replace(state, results={**state.results, path: result})
