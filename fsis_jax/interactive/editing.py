"""What a person shows and corrects in images, without a network: each change is one step of undo."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.example_cells import Example, boxed_examples
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import check_kind_names
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.history import History
from fsis_jax.interactive.judging import as_shown, check_number, said, with_added_of, without_added
from fsis_jax.interactive.shapes import ellipse, whole_pixels
from fsis_jax.interactive.state import NAMELESS, NOT_THIS, Added, Filters, Reference, Result, State, Verdict
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outlines import Box
from fsis_jax.io.source import open_image


class Editing:
    """References, results and corrections of any number of images.

    Args:
        folders: what may be opened.
        settings: plane, size of pixels, tiles and category, as `fsis segment` takes them; the tidying is `filters`'.
        filters: which instances count at first.
    """

    def __init__(self, folders: Folders, settings: OutputSettings, filters: Filters) -> None:
        self.folders, self.settings, self.filters = folders, settings, filters
        self.history = History()
        self.listeners: list[Callable[[], object]] = []
        """Called after each change, in whatever thread that was made."""

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
        """What was found in an image, with the scores and kinds that corrections leave."""
        return self.state.result(path)

    def add_reference(self, path: str, box: Box, kind: str | None = None) -> None:
        """A box around an example cell, which is rounded to whole pixels.

        Args:
            kind: that it shows, NOT_THIS of what is not wanted; None: the first one.

        Raises:
            FsisError: there is hardly any of it inside the image, or nothing is seen there; or no such kind.
        """
        name = self.state.kinds[0] if kind is None else self._known(kind, NOT_THIS)
        reference = Reference(path, self._rounded(path, box), name)
        self._examples([reference])
        self._change(lambda state: state.with_reference(reference))

    def show(self, path: str, boxes: Mapping[str, Sequence[Box]]) -> None:
        """These boxes of an image, by their kinds, instead of all examples in it; they are rounded to whole pixels.

        Raises:
            FsisError: as `add_reference`; then nothing changes.
        """
        shown = [
            Reference(path, self._rounded(path, box), self._known(kind, NOT_THIS))
            for kind, each in boxes.items()
            for box in each
        ]

        def replaced(state: State) -> State:
            if [reference for reference in state.references if reference.image == path] == shown:
                return state
            others = tuple(reference for reference in state.references if reference.image != path)
            state = dataclasses.replace(state, references=others)
            for reference in shown:
                state = state.with_reference(reference)
            return state

        if replaced(self.state) is not self.state:
            self._examples(shown)
            self._change(replaced)

    def remove_reference(self, number: int) -> None:
        """By its place among the references.

        Raises:
            FsisError: there is no such place.
        """

        def without(state: State) -> State:
            check_number(number, len(state.references), "example")
            left = (*state.references[:number], *state.references[number + 1 :])
            return dataclasses.replace(state, references=left)

        self._change(without)

    def remove_reference_at(self, path: str, x: float, y: float) -> bool:
        """The first one in an image whose box holds a point; whether there was one."""

        def without(state: State) -> State:
            for each in state.references:
                x1, y1, x2, y2 = each.box
                if each.image == path and x1 <= x <= x2 and y1 <= y <= y2:
                    return dataclasses.replace(state, references=tuple(o for o in state.references if o is not each))
            return state

        return self._change(without)

    def add_kind(self, name: str) -> None:
        """One more kind to show examples of; the first one gets a name by that, if it has none.

        Raises:
            FsisError: what tables cannot have as a name, or one that there is already.
        """
        name = name.strip()
        first = self.settings.category or NAMELESS
        known = [kind or first for kind in self.state.kinds]
        check_kind_names([*known, NOT_THIS, name])
        self._change(lambda state: state.with_kind(name, first))

    def rename_kind(self, old: str, new: str) -> None:
        """Another name for a kind, in all that was found and said, too.

        Raises:
            FsisError: as `add_kind`, there is no kind `old`, or something was found of one that was called `new`.
        """
        new = new.strip()
        others = [kind for kind in self.state.kinds if kind != self._known(old)]
        check_kind_names([*others, NOT_THIS, new])

        def renamed(state: State) -> State:
            if any(new in result.names for result in state.results.values()):
                raise FsisError(f"kind {new!r}: cells were found of another one with that name: give another name")
            return state.with_renamed(old, new)

        if new != old:
            self._change(renamed)

    def remove_kind(self, name: str) -> None:
        """With its examples; one stays.

        Raises:
            FsisError: it is the only one, or there is no such kind.
        """
        self._known(name)
        if len(self.state.kinds) == 1:
            raise FsisError("the only kind: take its examples away, or add another one first")
        self._change(lambda state: state.without_kind(name))

    def _known(self, kind: str, *others: str) -> str:
        """A kind that there is, or one of the others."""
        if kind not in (*self.state.kinds, *others):
            known = ", ".join(filter(None, self.state.kinds)) or "one without a name"
            raise FsisError(f"no kind {kind!r}: there is {known}")
        return kind

    def set_filters(self, filters: Filters) -> None:
        """Which instances count; no step of undo."""
        self.filters = filters
        self._tell()

    def mark(self, path: str, row: int, verdict: Verdict | None) -> None:
        """Say something of an instance, or None to take it back; what is right is of the kind that it is shown as.

        Raises:
            FsisError: nothing was segmented yet, or there is no such row.
        """
        self.correct(
            path,
            lambda result, shown: as_shown(result, shown, row) if verdict == "right" else said(result, row, verdict),
        )

    def mark_kind(self, path: str, row: int, kind: str) -> None:
        """Say that an instance is right, and of this kind.

        Raises:
            FsisError: there is no such kind or row, or nothing was segmented yet.
        """
        name = self._known(kind)
        self.correct(path, lambda result, _: said(result, row, "right", name))

    def add_cell(self, path: str, box: Box, kind: str | None = None) -> bool:
        """As `add_cells`, of one; whether there was such an instance."""
        return self.add_cells(path, [box], kind)[0]

    def add_cells(self, path: str, boxes: Sequence[Box], kind: str | None = None) -> list[bool]:
        """Cells that were missed: of each the instance of any score with nearly its box, else the ellipse in the box.

        Args:
            kind: that they are of; None: each instance's, else the first one.

        Returns:
            Whether there was such an instance, with its own mask, of each.

        Raises:
            FsisError: there is hardly any of a box inside the image, nothing was segmented yet, or no such kind; then
                none is added.
        """
        shown = self.segmented(path)
        name = self._known(kind or self.state.kinds[0])
        rounded = [whole_pixels(box, shown.found.size) for box in boxes]
        outlined: list[bool] = []

        def added(result: Result, shown: Result) -> Result:
            for box in rounded:
                row = shown.likest(box)
                outlined.append(row is not None)
                if row is None:
                    result = dataclasses.replace(result, added=(*result.added, Added(ellipse(box), name)))
                else:
                    result = said(result, row, "right", kind) if kind else as_shown(result, shown, row)
            return result

        self.correct(path, added)
        return outlined

    def change_cell(self, path: str, number: int, kind: str) -> None:
        """Of an added one, by its number, another kind.

        Raises:
            FsisError: there is no such kind or number, or nothing was segmented yet.
        """
        name = self._known(kind)
        self.correct(path, lambda result, _: with_added_of(result, number, name))

    def remove_cell(self, path: str, number: int) -> None:
        """An added one, by its number.

        Raises:
            FsisError: there is no such number, or nothing was segmented yet.
        """
        self.correct(path, lambda result, _: without_added(result, number))

    def correct(self, path: str, change: Callable[[Result, Result], Result]) -> None:
        """Say something of the cells of an image.

        Args:
            change: is given the result as it was found and as it is shown, which stay while it decides; it gives the
                result with what is said, or the first of these where that is nothing.

        Raises:
            FsisError: nothing was segmented yet, or as `change`.
        """

        def corrected(state: State) -> State:
            shown = state.result(path)
            if shown is None:
                raise _not_segmented(path)
            result = change(state.results[path], shown)
            return state if result is state.results[path] else state.with_result(path, result)

        self._change(corrected)

    def learn(self, learning: bool) -> None:
        """Whether what is said of a cell counts for all others."""
        if learning != self.state.learning:
            self._change(lambda state: dataclasses.replace(state, learning=learning))

    def undo(self) -> None:
        """Back to before the last change, if there was one."""
        self.history.undo()
        self._tell()

    def redo(self) -> None:
        """What was undone last is done again, if nothing else was done since."""
        self.history.redo()
        self._tell()

    def pixel_size(self, image: ImageFile) -> float | None:
        """Micrometres per pixel of an image, if they are known."""
        return image.pixel_size if self.settings.pixel_size is None else self.settings.pixel_size

    def _examples(self, references: Sequence[Reference]) -> list[Example]:
        chosen = self.settings
        opener = functools.partial(
            open_image, channel=chosen.channel, page=chosen.page, series=chosen.series, where_there=True
        )

        def example(reference: Reference) -> Example:
            (shown,) = boxed_examples(reference.image, [reference.box], opener)
            return dataclasses.replace(shown, kind=reference.kind, wanted=reference.kind != NOT_THIS)

        return [example(reference) for reference in references]

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
            raise _not_segmented(path)
        return result

    def _change(self, change: Callable[[State], State]) -> bool:
        """Whether something became of it."""
        changed = self.history.change(change)
        self._tell()
        return changed

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()


def _not_segmented(path: str) -> FsisError:
    """What is told where there is no result to do anything with."""
    return FsisError(f"{path}: not segmented yet: segment it first")
