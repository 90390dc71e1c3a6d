"""The widgets of the page and where they are; what they do says `page.py`."""

from typing import Any, get_args

from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    Checkbox,
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

from fsis_jax.app.histogram import Histogram
from fsis_jax.app.style import SIDE, TOP, WIDGET
from fsis_jax.interactive.pointing import Tool
from fsis_jax.interactive.receiving import MOST_BYTES
from fsis_jax.io.names import DEFAULT, FILES

TOOLS: tuple[Tool, ...] = get_args(Tool)
EXAMPLE, ADD = TOOLS.index("example"), TOOLS.index("add")
_NAMES = ("Move", "Show an example", "Mark wrong", "Mark right", "Other kind", "Delete", "Add a missed cell")
HINTS = (
    "Drag to move, turn the wheel to zoom, double-click to see all of the image.",
    "Drag a box around a typical cell, tight on all sides; one to five are usual. A click on a box takes it away.",
    "Click on what is no such cell, such as dust; it turns red, and what is like it loses score. A cell that is badly "
    "outlined: Delete. Click again to take it back.",
    "Click on outlines that are right: they count whatever the sliders say. Click again to take it back.",
    "Click on outlines that are of the kind chosen on the left. Click again to take it back.",
    "Click on outlines, or on cells that you added, to delete them.",
    "Drag a box around a cell that was missed.",
)
_SIDE = 360
_CHOOSE = (
    "<label class='choose'>Open a file&hellip;<input type='file' multiple aria-label='Open a file' "
    f"onchange='fsisSend(this.files, {MOST_BYTES}); this.value=\"\"'></label>"
)


class Controls:
    """Models of Bokeh, without behaviour."""

    def __init__(self, picture: UIElement) -> None:
        self._style = InlineStyleSheet(css=WIDGET)
        self.image = self._styled(Select(options=[], name="image"))
        self.place = self._styled(TextInput(placeholder="or type a path, and Enter", name="path"))
        self.asked = TextInput(name="asked", visible=False)
        """What is asked for by what is no widget."""
        self.crops = self.text(name="crops")
        self.kind = self._styled(TextInput(placeholder="another kind: its name, and Enter", name="kind"))
        self.view = self._button("Segment view")
        self.whole = self._button("Segment image", primary=True)
        self.all = self._button("Segment all")
        self.at_once = self._styled(Checkbox(label="Segment the view at each example", active=True))
        self.stop = self._styled(Button(label="Stop", width=56))
        self.work = self.text(name="work")
        self.count = self.text(name="count")
        self.score = self._styled(Slider(name="score", title="Least score", start=0, end=1, step=0.01, value=0.5))
        self.learn = self._styled(Checkbox(label="Learn from corrections", active=True))
        self.sizes = Histogram()
        self.area = self._styled(RangeSlider(title="Size in pixels", start=0, end=1000, step=1, value=(0, 1000)))
        kinds = list(FILES)
        self.kinds = self._styled(CheckboxButtonGroup(labels=kinds, active=[kinds.index(kind) for kind in DEFAULT]))
        self.export = self._button("Export image", primary=True)
        self.export_all = self._button("Export all")
        self.training = self._button("Training data")
        self.tune = self._styled(Button(label="Fine-tune on my corrections", sizing_mode="stretch_width"))
        self.model = self._styled(Select(options=[], name="model", visible=False))
        self.written = self.text(name="written")
        self.command = self.text(name="command")
        self.tool = self._styled(RadioButtonGroup(labels=list(_NAMES), active=EXAMPLE))
        self.undo, self.redo = (self._styled(Button(label=label, width=60)) for label in ("Undo", "Redo"))
        self.fit = self._styled(Button(label="See all", width=72))
        self.message = self.text(name="message")
        wide: Any = {"sizing_mode": "stretch_width", "spacing": 6}
        parts: list[UIElement] = [
            self.image, row(self.text(_CHOOSE, width=104), self.place, **wide), self.asked,
            self._heading("1", "Show what to look for"), self.crops, self.kind,
            self._heading("2", "Segment"), row(self.view, self.whole, self.all, **wide), self.at_once,
            row(self.work, self.stop, **wide),
            self._heading("3", "Look and correct"), self.count, self.score, self.sizes.plot, self.area,
            self.learn,
            self._heading("4", "Take away"), self.kinds, row(self.export, self.export_all, self.training, **wide),
            self.written, self.command,
            self._heading("5", "Let the model learn"), self.tune, self.model,
        ]  # fmt: skip
        side = column(
            *parts, width=_SIDE, sizing_mode="stretch_height", spacing=5, stylesheets=[InlineStyleSheet(css=SIDE)]
        )
        tools = row(self.tool, Spacer(sizing_mode="stretch_width"), self.undo, self.redo, self.fit, **wide)
        top = column(tools, self.message, **wide, stylesheets=[InlineStyleSheet(css=TOP)])
        self.root = row(
            side,
            column(top, picture, sizing_mode="stretch_both", spacing=0),
            sizing_mode="stretch_both",
            spacing=0,
            styles={"height": "100vh"},
        )

    def text(self, text: str = "", name: str | None = None, width: int | None = None) -> Div:
        """A part of the page that has HTML."""
        size: dict[str, Any] = {"sizing_mode": "stretch_width"} if width is None else {"width": width}
        return Div(text=text, name=name, stylesheets=[self._style], margin=0, **size)

    def _heading(self, number: str, text: str) -> Div:
        return self.text(f"<h2><i>{number}</i>{text}</h2>")

    def _button(self, label: str, *, primary: bool = False) -> Any:
        """One of three beside each other."""
        kind = "primary" if primary else "default"
        return self._styled(Button(label=label, button_type=kind, sizing_mode="stretch_width", css_classes=["third"]))

    def _styled(self, widget: Any) -> Any:
        widget.stylesheets, widget.margin = [self._style], 0
        if not isinstance(widget, Button | RadioButtonGroup):
            widget.sizing_mode = "stretch_width"
        return widget
