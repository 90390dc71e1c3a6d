"""The page: open, point, segment, look, correct, export. All that it does is done by the session, which tabs share."""

import html
from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    CheckboxButtonGroup,
    Div,
    InlineStyleSheet,
    RadioButtonGroup,
    RangeSlider,
    Select,
    Slider,
    Spacer,
    TextInput,
    UIElement,
)

from fsis_jax.app.picture import Picture
from fsis_jax.app.style import PAGE, SIDE, TOP, WIDGET
from fsis_jax.app.texts import Crops, counts, short, work
from fsis_jax.errors import FsisError
from fsis_jax.interactive.session import Session
from fsis_jax.interactive.state import Filters, Verdict
from fsis_jax.interactive.view import View
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outlines import Box
from fsis_jax.io.outputs import DEFAULT, FILES

_PAUSE = 120
"""Milliseconds between a move and the reading of what is then seen, and between two looks at the work's progress."""
_TOOLS = ("Move", "Show an example", "Mark wrong", "Mark right", "Delete", "Add a missed cell")
_MOVE, _EXAMPLE, _WRONG, _RIGHT, _DELETE, _ADD = range(len(_TOOLS))
_SIDE = 316
_HINTS = (
    "Drag to move, turn the wheel to zoom, double-click to see all of the image.",
    "Drag a box around a typical cell, tight on all sides; one to five are usual. A click on a box takes it away.",
    "Click on outlines that are no such cell; they turn red and no longer count. Click again to take it back.",
    "Click on outlines that are right: they count whatever the sliders say. Click again to take it back.",
    "Click on outlines, or on cells that you added, to delete them.",
    "Drag a box around a cell that was missed.",
)


class Page:
    """One tab.

    Args:
        document: of the tab, which is filled.
        session: what is shown and done.
    """

    def __init__(self, document: Document, session: Session) -> None:
        self._document, self._session = document, session
        self._path = ""
        self._image: ImageFile | None = None
        self._moving = self._refreshing = False
        self._crops = Crops(session)
        self._style = InlineStyleSheet(css=WIDGET)
        self._picture = Picture(self._guarded(self._boxed), self._guarded(self._clicked), self._moved)
        self._build()
        self._listen()
        document.title = "fsis"
        document.template = PAGE
        document.add_root(
            row(
                self._side,
                column(self._top, self._picture.plot, sizing_mode="stretch_both", spacing=0),
                sizing_mode="stretch_both",
                spacing=0,
                styles={"height": "100vh"},
            )
        )
        document.add_periodic_callback(self._look_at_work, _PAUSE)
        document.on_session_destroyed(self._closed)
        session.listeners.append(self._changed)
        images = self._select.options
        if images:
            self._guarded(self._open)(images[0][0])
        self._refresh()

    def _build(self) -> None:
        """Widgets, from the top to the bottom."""
        images = self._session.folders.images()
        self._select = self._styled(Select(title="Image", options=[(path, short(path)) for path in images]))
        self._place = self._styled(TextInput(placeholder="or type a path, and press Enter", name="path"))
        self._crops_shown = self._text()
        self._segment_view = self._styled(Button(label="Segment view", sizing_mode="stretch_width"))
        self._segment_all = self._styled(
            Button(label="Segment image", button_type="primary", sizing_mode="stretch_width")
        )
        self._stop = self._styled(Button(label="Stop", width=60))
        self._work = self._text()
        self._count = self._text()
        self._score = self._styled(Slider(title="Least score", start=0, end=1, step=0.01, value=0.5))
        self._area = self._styled(RangeSlider(title="Size in pixels", start=0, end=1000, step=1, value=(0, 1000)))
        self._kinds = self._styled(
            CheckboxButtonGroup(labels=list(FILES), active=[list(FILES).index(kind) for kind in DEFAULT])
        )
        self._export = self._styled(Button(label="Export", button_type="primary", sizing_mode="stretch_width"))
        self._written = self._text()
        self._command = self._text()
        self._tool = self._styled(RadioButtonGroup(labels=list(_TOOLS), active=_EXAMPLE))
        self._undo, self._redo = (self._styled(Button(label=label, width=64)) for label in ("Undo", "Redo"))
        self._all = self._styled(Button(label="See all", width=72))
        self._message = self._text(name="message")
        parts: list[UIElement] = [
            self._select, self._place,
            self._heading("1  Show what to look for"), self._crops_shown,
            self._heading("2  Segment"), row(self._segment_view, self._segment_all, sizing_mode="stretch_width"),
            row(self._work, self._stop, sizing_mode="stretch_width"),
            self._heading("3  Look and correct"), self._count, self._score, self._area,
            self._heading("4  Take away"), self._kinds, self._export, self._written,
            self._heading("The same without this page"), self._command,
        ]  # fmt: skip
        self._side = column(
            *parts, width=_SIDE, sizing_mode="stretch_height", spacing=4, stylesheets=[InlineStyleSheet(css=SIDE)]
        )
        tools = row(
            self._tool,
            Spacer(sizing_mode="stretch_width"),
            self._undo,
            self._redo,
            self._all,
            sizing_mode="stretch_width",
        )
        self._top = column(
            tools, self._message, sizing_mode="stretch_width", spacing=2, stylesheets=[InlineStyleSheet(css=TOP)]
        )

    def _listen(self) -> None:
        """What is called when somebody uses the widgets."""
        for widget in (self._select, self._place):
            widget.on_change("value", lambda attr, old, new: self._chose(new))
        self._tool.js_on_change("active", self._picture.drag_js(f"n == {_EXAMPLE} || n == {_ADD}"))
        self._tool.on_change("active", lambda attr, old, new: self._tell(_HINTS[self._tool.active]))
        for slider in (self._score, self._area):
            slider.on_change("value", lambda attr, old, new: self._filtered())
        for button, act in (
            (self._segment_view, lambda: self._session.segment(self._opened(), self._seen())),
            (self._segment_all, lambda: self._session.segment(self._opened())),
            (self._stop, self._stopped),
            (self._export, self._exported),
            (self._undo, self._session.undo),
            (self._redo, self._session.redo),
            (self._all, self._picture.fit),
        ):
            button.on_click(self._guarded(act))
        self._kinds.on_change("active", lambda attr, old, new: self._refresh())

    def _guarded(self, act: Callable[..., object]) -> Callable[..., None]:
        """What it raises as bad input is told on the page, in its one line."""

        def call(*arguments: Any) -> None:
            try:
                act(*arguments)
            except FsisError as error:
                self._tell(str(error), bad=True)

        return call

    def _chose(self, path: str) -> None:
        if path not in ("", self._path):
            self._guarded(self._open)(path)

    def _open(self, path: str) -> None:
        image = self._session.open(path)
        try:
            view = View(image)
        except FsisError:
            image.close()
            raise
        if self._image is not None:
            self._image.close()
        self._image, self._path = image, self._session.folders.allowed(path)
        known = [option for option, _ in self._select.options]
        if self._path not in known:
            self._select.options = [*self._select.options, (self._path, short(self._path))]
        self._select.value = self._path
        self._picture.show(view)
        height, width = view.size
        self._tell(f"{short(self._path)}: {width} x {height} pixels. {_HINTS[self._tool.active]}")
        self._refresh()

    def _boxed(self, box: Box) -> None:
        if self._tool.active == _EXAMPLE:
            self._session.add_reference(self._opened(), box)
        elif self._tool.active == _ADD:
            known = self._session.add_cell(self._opened(), box)
            self._tell(
                "Added, with the outline that the model has for it."
                if known
                else "Added as an ellipse: the model has no outline there."
            )

    def _clicked(self, x: float, y: float) -> None:
        tool, session, result = self._tool.active, self._session, self._session.result(self._path)
        if tool == _EXAMPLE:
            for number, reference in enumerate(session.state.references):
                x1, y1, x2, y2 = reference.box
                if reference.image == self._path and x1 <= x <= x2 and y1 <= y <= y2:
                    session.remove_reference(number)
                    return
        said: dict[int, Verdict] = {_WRONG: "wrong", _RIGHT: "right", _DELETE: "deleted"}
        if result is None or tool not in said:
            return
        added, found = result.added_at(x, y), result.instance_at(x, y, session.filters)
        if added is not None and tool != _RIGHT:
            session.remove_cell(self._path, added)
        elif found is not None:
            session.mark(self._path, found, None if result.verdicts.get(found) == said[tool] else said[tool])

    def _filtered(self) -> None:
        if not self._refreshing:
            least, most = self._area.value
            ends = (self._area.start, self._area.end)
            self._session.set_filters(
                Filters(
                    round(self._score.value, 4), least if least > ends[0] else 0.0, most if most < ends[1] else np.inf
                )
            )

    def _stopped(self) -> None:
        if self._session.task is not None:
            self._session.task.stop()

    def _exported(self) -> None:
        if not self._kinds.active:
            raise FsisError("nothing to export: choose at least one kind of file")
        files = self._session.export(self._opened(), self._chosen())
        names = "".join(f"<p class='soft'>{html.escape(short(file))}</p>" for file in files.values())
        self._written.text = f"<p class='good'>Written, and the session beside:</p>{names}"

    def _chosen(self) -> list[str]:
        return [list(FILES)[number] for number in sorted(self._kinds.active)]

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
        """The session has, in whatever thread."""
        self._document.add_next_tick_callback(self._refresh)

    def _look_at_work(self) -> None:
        """What the work has come to."""
        task = self._session.task
        text = work(task)
        running = task is not None and task.running
        if self._work.text != text:
            self._work.text = text
        if self._stop.visible != running:
            self._stop.visible = running
            self._segment_view.disabled = self._segment_all.disabled = running

    def _refresh(self) -> None:
        """Show the session as it is."""
        session, result = self._session, self._session.result(self._path)
        self._refreshing = True
        self._score.value = session.filters.min_score
        if result is not None and len(result.found):
            largest = float(max(result.areas.max(), 10))
            if self._area.end != largest:
                self._area.update(end=largest, value=(0.0, largest))
        filters = session.filters
        self._area.value = (filters.min_area, min(filters.max_area, self._area.end))
        self._refreshing = False
        self._undo.disabled, self._redo.disabled = not session.can_undo, not session.can_redo
        self._export.disabled = result is None
        self._crops_shown.text = self._crops.text()
        self._count.text = counts(session, result)
        if session.state.references and self._path:
            self._command.text = f"<pre>{html.escape(session.command(self._path, self._chosen()))}</pre>"
        else:
            self._command.text = "<p class='soft'>As soon as there is an example, its command stands here.</p>"
        self._look_at_work()
        self._draw()

    def _draw(self) -> None:
        session = self._session
        boxes = [reference.box for reference in session.state.references if reference.image == self._path]
        self._picture.draw(session.result(self._path), session.filters, boxes)
        if self._picture.many:
            self._tell(f"{self._picture.many} outlines are too many to be seen at once: zoom in.")

    def _tell(self, text: str, *, bad: bool = False) -> None:
        self._message.text = f"<p class='{'bad' if bad else 'soft'}'>{html.escape(text)}</p>"

    def _heading(self, text: str) -> Div:
        return self._text(f"<h2>{text}</h2>")

    def _text(self, text: str = "", name: str | None = None) -> Div:
        return Div(text=text, name=name, sizing_mode="stretch_width", stylesheets=[self._style])

    def _styled(self, widget: Any) -> Any:
        widget.stylesheets = [self._style]
        if not isinstance(widget, Button | RadioButtonGroup):
            widget.sizing_mode = "stretch_width"
        return widget

    def _closed(self, _: object) -> None:
        self._session.listeners.remove(self._changed)
        if self._image is not None:
            self._image.close()
