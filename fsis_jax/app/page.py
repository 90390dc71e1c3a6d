"""The page: open, point, segment, look, correct, export. All that it does is done by the session, which tabs share."""

import dataclasses
import html
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.document import Document

from fsis_jax.app.controls import ADD, EXAMPLE, HINTS, TOOLS, Controls
from fsis_jax.app.histogram import end_beyond, end_of, limits
from fsis_jax.app.picture import Picture, Shown
from fsis_jax.app.style import PAGE
from fsis_jax.app.texts import Crops, counts, short, unsaved, work
from fsis_jax.errors import FsisError
from fsis_jax.interactive.exporting import command, export_images, export_training_data
from fsis_jax.interactive.fine_tuning import fine_tune
from fsis_jax.interactive.kinds import colour, title
from fsis_jax.interactive.loading import images_of
from fsis_jax.interactive.opening import Opening
from fsis_jax.interactive.pointing import box_drawn, clicked
from fsis_jax.interactive.receiving import MOST_BYTES
from fsis_jax.interactive.session import Session
from fsis_jax.interactive.state import NOT_THIS, Result
from fsis_jax.interactive.task import Task
from fsis_jax.interactive.view import View
from fsis_jax.io.names import FILES
from fsis_jax.io.outlines import Box
from fsis_jax.pretrained import default_weights

_PAUSE = 120
"""Milliseconds between a move and the reading of what is then seen, and between two looks at the work's progress."""
_AT_ONCE = 2048**2
"""Pixels of the image that are segmented without being asked for, at most."""

_logger = logging.getLogger(__name__)


class Page:
    """One tab.

    Args:
        document: of the tab, which is filled.
        session: what is shown and done.
    """

    def __init__(self, document: Document, session: Session) -> None:
        self._document, self._session = document, session
        self._path = self._kind = ""
        self._view: View | None = None
        self._opening: Opening | None = None
        self._moving = self._refreshing = self._again = self._due = False
        self._told: Task | None = None
        self._sized: Result | None = None
        self._crops = Crops(session)
        self._picture = Picture(self._guarded(self._boxed), self._guarded(self._clicked), self._moved)
        self._controls = Controls(self._picture.plot)
        self._listen()
        document.title = "fsis"
        document.template = PAGE
        document.template_variables["most_bytes"] = MOST_BYTES
        document.add_root(self._controls.root)
        document.add_periodic_callback(self._guarded(self._look_at_opening), _PAUSE)
        document.add_periodic_callback(self._look_at_work, _PAUSE)
        document.on_session_destroyed(self._closed)
        self._list()
        images = [path for path, _ in self._controls.image.options]
        if images:
            self._open(session.looked_at if session.looked_at in images else images[0])
        else:
            self._tell("No images here: open a file, or drop some on the page.")
        self._refresh()
        session.listeners.append(self._changed)
        self._changed()  # it may have, since

    def _listen(self) -> None:
        """What is called when somebody uses the widgets."""
        controls, session = self._controls, self._session
        for widget in (controls.image, controls.place):
            widget.on_change("value", lambda attr, old, new: self._open(new))
        controls.asked.on_change("value", lambda attr, old, new: self._guarded(self._do)(new))
        controls.kind.on_change("value", lambda attr, old, new: self._guarded(self._add_kind)(new))
        controls.tool.js_on_change("active", self._picture.drag_js(f"n == {EXAMPLE} || n == {ADD}"))
        controls.tool.on_change("active", lambda attr, old, new: self._tell(HINTS[new]))
        self._picture.follow(self._document, controls.score, controls.area)
        controls.score.on_change("value", lambda attr, old, new: self._filter(min_score=round(new, 4)))
        controls.area.on_change("value", lambda attr, old, new: self._filter(**limits(controls.area)))
        for button, act in (
            (controls.view, lambda: session.segment(self._opened(), self._seen())),
            (controls.whole, lambda: session.segment(self._opened())),
            (controls.all, lambda: session.segment_all(self._images())),
            (controls.stop, self._stopped),
            (controls.export, lambda: export_images(session, [self._opened()], self._chosen())),
            (controls.export_all, lambda: export_images(session, self._finished(), self._chosen())),
            (controls.training, lambda: export_training_data(session)),
            (controls.tune, lambda: fine_tune(session)),
            (controls.undo, session.undo),
            (controls.redo, session.redo),
            (controls.fit, self._picture.fit),
        ):
            button.on_click(self._pressed(act))
        controls.model.on_change("value", lambda attr, old, new: self._guarded(self._choose_model)(new))
        controls.learn.on_change("active", lambda attr, old, new: session.learn(new))
        controls.kinds.on_change("active", lambda attr, old, new: self._refresh())

    def _guarded(self, act: Callable[..., object]) -> Callable[..., None]:
        """What it raises as bad input is told on the page, in its one line."""

        def call(*arguments: Any) -> None:
            try:
                act(*arguments)
            except FsisError as error:
                self._tell(str(error), bad=True)

        return call

    def _pressed(self, act: Callable[[], object]) -> Callable[[object], None]:
        """What Bokeh calls with the event of a button."""
        return lambda _: self._guarded(act)()

    def _do(self, asked: str) -> None:
        """What HTML asks for: a verb, and what it is about."""
        verb, _, about = asked.partition(" ")
        if verb == "open":
            self._open(about)
        elif verb == "forget" and about.isdecimal():
            self._session.remove_reference(int(about))
        else:
            row, _, name = about.partition(" ")
            kinds = [*self._session.state.kinds, NOT_THIS]
            if not row.isdecimal() or int(row) >= len(kinds):
                return
            kind = kinds[int(row)]
            if verb == "kind":
                self._choose_kind(kind)
            elif verb == "rename":
                self._session.rename_kind(kind, name)
                self._choose_kind(name.strip() if kind == self._kind else self._kind)
            elif verb == "drop":
                self._session.remove_kind(kind)

    def _add_kind(self, name: str) -> None:
        if name.strip():
            self._controls.kind.value = ""
            self._session.add_kind(name)
            self._controls.tool.active = EXAMPLE
            self._choose_kind(name.strip())

    def _choose_kind(self, kind: str) -> None:
        """What the next boxes and clicks are about."""
        self._kind = kind
        name = title(kind, self._session.state.kinds, self._session.settings.category)
        self._tell(f"{name}: {HINTS[self._controls.tool.active]}")
        self._refresh()

    @property
    def _chosen_kind(self) -> str:
        """The one chosen last, if it is there still, or the first."""
        kinds = self._session.state.kinds
        return self._kind if self._kind in (*kinds, NOT_THIS) else kinds[0]

    def _open(self, path: str) -> None:
        """Begin to open an image: of a slide without coarser levels all is read."""
        if path in ("", self._path) or (self._opening is not None and self._opening.path == path):
            return
        if self._opening is not None:
            self._opening.drop()
        self._opening = Opening(path, self._session.open)
        self._tell(f"{short(path)}: it is opened ...")

    def _look_at_opening(self) -> None:
        """Show the image that was asked for, once it is open."""
        opening = self._opening
        if opening is None or not opening.done:
            return
        self._opening = None
        try:
            view = opening.view()
        except FsisError:
            self._controls.image.value = self._path  # which is still shown
            raise
        if self._view is not None:
            self._view.image.close()
        self._view, self._path = view, self._session.folders.allowed(opening.path)
        self._session.looked_at = self._path
        self._list()
        self._controls.image.value = self._path
        self._controls.place.value = ""
        self._picture.show(view)
        height, width = view.size
        self._tell(f"{short(self._path)}: {width} x {height} pixels. {HINTS[self._controls.tool.active]}")
        self._refresh()

    def _list(self) -> None:
        """The images that can be chosen: those of the folders, and others that were opened."""
        opened = [self._path] if self._path else []
        paths = dict.fromkeys([*self._session.folders.images(), *images_of(self._session.state), *opened])
        options = [(path, short(path)) for path in paths]
        if self._controls.image.options != options:
            self._controls.image.options = options

    def _images(self) -> list[str]:
        return [path for path, _ in self._controls.image.options]

    def _finished(self) -> list[str]:
        return [path for path in self._images() if self._session.is_finished(path)]

    def _boxed(self, box: Box) -> None:
        tool = TOOLS[self._controls.tool.active]
        told = box_drawn(self._session, self._opened(), box, tool, self._chosen_kind)
        if told:
            self._tell(told)
        x1, y1, x2, y2 = self._seen()
        if tool == "example" and self._controls.at_once.active and (x2 - x1) * (y2 - y1) <= _AT_ONCE:
            self._again = True
            self._stopped()

    def _clicked(self, x: float, y: float) -> None:
        if self._path:
            clicked(self._session, self._path, x, y, TOOLS[self._controls.tool.active], self._chosen_kind)

    def _filter(self, **changed: float) -> None:
        """What a slider says; the other one's stays."""
        if not self._refreshing:
            self._session.set_filters(dataclasses.replace(self._session.filters, **changed))

    def _choose_model(self, checkpoint: str) -> None:
        if not self._refreshing and checkpoint != (self._session.checkpoint or ""):
            self._session.choose_model(checkpoint or None)

    def _stopped(self) -> None:
        if self._session.task is not None:
            self._session.task.stop()

    def _chosen(self) -> list[str]:
        return [list(FILES)[number] for number in sorted(self._controls.kinds.active)]

    def _opened(self) -> str:
        """The path of the image that is open."""
        if not self._path:
            raise FsisError("no image is open: choose one")
        return self._path

    def _seen(self) -> Box:
        """The part of the image that is seen."""
        height, width = self._picture.size
        x1, y1, x2, y2 = self._picture.window
        return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))

    def _moved(self) -> None:
        """Read what is seen in a moment, once for all moves until then."""
        if not self._moving:
            self._moving = True
            self._document.add_timeout_callback(self._arrived, _PAUSE)

    def _arrived(self) -> None:
        self._moving = False
        self._guarded(self._picture.read)()
        self._draw()

    def _changed(self) -> None:
        """The session has, in whatever thread; several changes are shown at once."""
        if not self._due:
            self._due = True
            self._document.add_next_tick_callback(self._refresh)

    def _look_at_work(self) -> None:
        """What the work has come to."""
        controls, task = self._controls, self._session.task
        running = task is not None and task.running
        if self._again and not running:
            self._again = False
            if self._session.state.references:
                self._guarded(self._session.segment)(self._opened(), self._seen())
                return
        text = unsaved(self._session) + work(task)
        if controls.work.text != text:
            controls.work.text = text
        if controls.stop.visible != running:
            controls.stop.visible = running
        for button in (controls.view, controls.whole, controls.all, controls.model):
            if button.disabled != running:
                button.disabled = running
        if task is not None and not running and task is not self._told:
            self._told = task
            controls.written.text = f"<p class='good'>{html.escape(task.told)}</p>" if task.told else ""

    def _refresh(self) -> None:
        """Show the session as it is."""
        self._due = False
        controls, session, result = self._controls, self._session, self._session.result(self._path)
        filters = session.filters
        self._refreshing = True
        controls.score.value = filters.min_score
        end = controls.area.end
        if result is not None and (self._sized is None or result.found is not self._sized.found):
            self._sized = result
            end = end_of(result, session.segmenter.min_score)
        end = end_beyond(filters, end)
        controls.area.update(end=end, value=(filters.min_area, min(filters.max_area, end)))
        models = [(name or "", f"model: {short(name or default_weights())}") for name in session.models()]
        controls.model.update(options=models, value=session.checkpoint or "", visible=len(models) > 1)
        self._refreshing = False
        controls.learn.active = session.state.learning
        controls.undo.disabled = not session.history.can_undo
        controls.redo.disabled = not session.history.can_redo
        controls.export.disabled = not session.is_finished(self._path)
        controls.export_all.disabled = not self._finished()
        corrected = any(each.verdicts or each.added for each in session.state.results.values())
        controls.training.disabled = controls.tune.disabled = not corrected
        controls.crops.text = self._crops.text(self._path, self._view, self._chosen_kind)
        self._picture.draw_boxes_in(colour(self._chosen_kind, session.state.kinds))
        controls.count.text = counts(session, result)
        controls.command.text = self._command()
        self._look_at_work()
        self._draw()

    def _command(self) -> str:
        if not (self._session.state.references and self._path):
            return ""
        line = html.escape(command(self._session, self._path, self._chosen()))
        return f"<details><summary>The same without this page</summary><pre>{line}</pre></details>"

    def _draw(self) -> None:
        session, result = self._session, self._session.result(self._path)
        examples = [reference for reference in session.state.references if reference.image == self._path]
        kinds, category = session.state.kinds, session.settings.category
        shown = Shown(lambda kind: title(kind, kinds, category), lambda kind: colour(kind, kinds))
        self._picture.draw(result, examples, shown)
        kept = np.zeros(0, bool) if result is None else result.kept(session.filters)
        self._controls.sizes.draw(result, kept, float(self._controls.area.end))
        if self._picture.many:
            self._tell(f"{self._picture.many} outlines are too many to be seen at once: zoom in.")

    def _tell(self, text: str, *, bad: bool = False) -> None:
        self._controls.message.text = f"<p class='{'bad' if bad else 'soft'}'>{html.escape(text)}</p>"

    def _closed(self, _: object) -> None:
        self._session.listeners.remove(self._changed)
        if self._opening is not None:
            self._opening.drop()
        if self._view is not None:
            self._view.image.close()
