"""The image in the browser, with outlines and boxes over it.

The part that is seen is read whenever it was moved. All outlines are sent once (of very many, those that are seen);
which of them are drawn is a list of numbers. Of those that the sliders choose, the browser makes it by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from bokeh.document import Document
from bokeh.events import DocumentReady, DoubleTap, RangesUpdate, SelectionGeometry, Tap
from bokeh.models import (
    BoxSelectTool,
    CDSView,
    ColumnDataSource,
    CustomJS,
    GlyphRenderer,
    HoverTool,
    IndexFilter,
    PanTool,
    Patches,
    Range1d,
    RangeSlider,
    Slider,
    WheelZoomTool,
)
from bokeh.plotting import figure

from fsis_jax.inference.instances import Instances
from fsis_jax.interactive.kinds import WRONG
from fsis_jax.interactive.state import VERDICTS, Reference, Result, Verdict
from fsis_jax.interactive.view import View, outline
from fsis_jax.io.outlines import Box

_MOST = 3000
"""Outlines that are sent."""
_FILTER = """
const {score, area} = outlines.data
const spoken_of = new Set(said.data.place)
const [least, most] = sizes.value
const low = least > sizes.start ? least : 0
const high = most < sizes.end ? most : Infinity
const from = scores.value - 1e-6
const kept = []
for (let i = 0; i < score.length; i++)
  if (!spoken_of.has(i) && score[i] >= from && area[i] >= low && area[i] <= high) kept.push(i)
filter.indices = kept
"""
"""As `Result.kept`, of the instances of which nothing was said; what is not wanted has a negative score."""
_GROUND = "#101418"
_GLYPH = {"line_color": "colour", "fill_color": "colour", "line_width": 2, "fill_alpha": 0.12}
_SURE = {"line_width": 4, "fill_alpha": 0.3}
"""Of what a person says is right."""
_SIDES = ("left", "right", "top", "bottom")
_OUTLINES = ("xs", "ys", "score", "area", "kind", "colour")
FOUND = "found"
"""Name of the layer of what the sliders choose."""


class Shown(NamedTuple):
    """How kinds are shown: what they are called, and #rrggbb."""

    title: Callable[[str], str]
    colour: Callable[[str], str]


class Picture:
    """A figure that shows one image at a time.

    Args:
        boxed: called with a box that was dragged, in pixels of the image.
        clicked: called with a point.
        moved: called when another part is seen.
    """

    def __init__(
        self,
        boxed: Callable[[Box], None],
        clicked: Callable[[float, float], None],
        moved: Callable[[], None],
    ) -> None:
        self._moved = moved
        self._view: View | None = None
        self._screen = (0, 0)  # width and height of the figure, as the browser tells
        self._found: Instances | None = None
        self._rows = np.zeros(0, np.intp)
        self.many = 0
        """Outlines that would be seen, but are too many to be drawn."""
        self.plot = figure(
            x_range=Range1d(0, 1),
            y_range=Range1d(1, 0),
            tools=[],
            toolbar_location=None,
            sizing_mode="stretch_both",
            background_fill_color=_GROUND,
            border_fill_color=_GROUND,
            outline_line_color=None,
            min_border=0,
            name="picture",
        )
        self.plot.axis.visible = False
        self.plot.grid.visible = False
        self._pixels = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self.plot.image_rgba("image", "x", "y", "dw", "dh", source=self._pixels)
        self._outlines = ColumnDataSource({name: [] for name in _OUTLINES})
        self._said = ColumnDataSource({"place": []})
        """Places among the outlines of those of which something was said."""
        self._wrong = self._layer("wrong", line_color=WRONG, fill_color=WRONG, fill_alpha=0.25, line_dash="dashed")
        self._found_ones = self._layer(FOUND)
        self._sure = self._layer("sure", **_SURE)
        self._judged: tuple[tuple[GlyphRenderer, Verdict], ...] = ((self._wrong, "wrong"), (self._sure, "right"))
        self._added = ColumnDataSource({name: [] for name in _OUTLINES})
        added = self.plot.patches("xs", "ys", source=self._added, **{**_GLYPH, **_SURE})
        self._boxes = ColumnDataSource({name: [] for name in (*_SIDES, "colour")})
        self.plot.quad(*_SIDES, source=self._boxes, line_color="colour", line_width=3, fill_alpha=0)
        hovered = [self._wrong, self._found_ones, self._sure, added]
        self.plot.add_tools(
            HoverTool(
                renderers=hovered,
                tooltips=[("kind", "@kind"), ("score", "@score{0.00}"), ("size", "@area px")],
                point_policy="follow_mouse",
            )
        )
        self._pan, self._box = PanTool(), BoxSelectTool(renderers=[])
        self._box.overlay.fill_alpha = 0.1
        wheel = WheelZoomTool()
        self.plot.add_tools(self._pan, self._box, wheel)
        self.plot.toolbar.active_scroll = wheel
        self.plot.toolbar.active_drag = self._box
        self.plot.on_event(RangesUpdate, lambda _: moved())
        self.plot.on_event(Tap, lambda event: clicked(event.x, event.y))
        self.plot.on_event(DoubleTap, lambda _: self.fit())
        self.plot.on_event(SelectionGeometry, lambda event: boxed(_box(event.geometry)) if event.final else None)
        self.plot.on_change("inner_width", lambda attr, old, new: self._resized(new, self._screen[1]))
        self.plot.on_change("inner_height", lambda attr, old, new: self._resized(self._screen[0], new))

    def draw_boxes_in(self, colour: str) -> None:
        """The colour of boxes that are dragged."""
        self._box.overlay.line_color = colour

    def drag_js(self, boxes: str) -> CustomJS:
        """What a group of buttons does in the browser when it changes: to drag draws a box, or moves the image.

        Args:
            boxes: JavaScript that says which, of the number `n` of the button.
        """
        code = f"const n = cb_obj.active; const draws = {boxes}; pan.active = !draws; box.active = draws"
        return CustomJS(args={"pan": self._pan, "box": self._box}, code=code)

    def follow(self, document: Document, scores: Slider, sizes: RangeSlider) -> None:
        """Let two sliders choose among the outlines, in the browser: at once, and with no word from here."""
        chosen = {"outlines": self._outlines, "said": self._said, "filter": self._found_ones.view.filter}
        choose = CustomJS(args={**chosen, "scores": scores, "sizes": sizes}, code=_FILTER)
        document.js_on_event(DocumentReady, choose)
        for model, name in ((scores, "value"), (sizes, "value"), (self._outlines, "data"), (self._said, "data")):
            model.js_on_change(name, choose)
        self._outlines.js_on_change("patching", choose)

    def show(self, view: View | None) -> None:
        """Another image, all of it."""
        self._view = view
        self._pixels.data = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
        self.fit()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image; of none (0, 0)."""
        return (0, 0) if self._view is None else self._view.size

    @property
    def window(self) -> Box:
        """What is seen, in pixels of the image."""
        across, down = self.plot.x_range, self.plot.y_range
        return float(across.start), float(down.end), float(across.end), float(down.start)

    def fit(self) -> None:
        """Look at the whole image."""
        if self._view is not None:
            height, width = self._view.size
            self.look_at((0.0, 0.0, float(width), float(height)))

    def look_at(self, box: Box) -> None:
        """Move so that a box is seen, as large as possible; not before the browser has told how large it is."""
        x1, y1, x2, y2 = box
        across, down = self._screen
        if across and down:
            self._place((x1 + x2) / 2, (y1 + y2) / 2, 1.02 * max((x2 - x1) / across, (y2 - y1) / down))

    def _place(self, x: float, y: float, pixel: float) -> None:
        """Move so that a point is in the middle, and a pixel of the screen has so many of the image."""
        across, down = self._screen
        self.plot.x_range.update(start=x - across / 2 * pixel, end=x + across / 2 * pixel)
        self.plot.y_range.update(start=y + down / 2 * pixel, end=y - down / 2 * pixel)
        self._moved()

    def _resized(self, width: int, height: int) -> None:
        """Pixels stay square, and what was seen is seen."""
        before, self._screen = self._screen, (width, height)
        x1, y1, x2, y2 = self.window
        if 0 in before or 0 in self._screen:
            self.fit()
        else:
            self._place((x1 + x2) / 2, (y1 + y2) / 2, (y2 - y1) / before[1])

    def read(self) -> None:
        """Show the pixels of what is seen.

        Raises:
            FsisError: the image cannot be read.
        """
        if self._view is None or 0 in self._screen:
            return
        picture, (x1, y1, x2, y2) = self._view.picture(self.window, self._screen[0])
        if not picture.size:
            return
        rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]).view(np.uint32)[..., 0]
        self._pixels.data = {"image": [rgba], "x": [x1], "y": [y1], "dw": [x2 - x1], "dh": [y2 - y1]}

    def draw(self, result: Result | None, examples: Sequence[Reference], shown: Shown) -> None:
        """Outlines of what was found and of what was said of it, and the boxes of examples."""
        boxes: dict[str, list[Any]] = {
            name: [each.box[place] for each in examples] for name, place in zip(_SIDES, (0, 2, 1, 3), strict=True)
        }
        _put(self._boxes, {**boxes, "colour": [shown.colour(each.kind) for each in examples]})
        if result is None:
            self._found, self.many = None, 0
            for source in (self._outlines, self._added):
                _put(source, {name: [] for name in _OUTLINES})
            return
        self._send(result, shown)
        for layer, verdict in self._judged:
            indices = np.flatnonzero(result.judged(verdict)[self._rows]).tolist()
            if layer.view.filter.indices != indices:
                layer.view.filter.indices = indices
        _put(self._said, {"place": np.flatnonzero(result.judged(*VERDICTS)[self._rows]).tolist()})
        shapes = [outline(cell.mask) for cell in result.added]
        areas = [int(np.count_nonzero(cell.mask.mask)) for cell in result.added]
        kinds = _named([cell.kind for cell in result.added], shown)
        _put(self._added, _columns(shapes, [1.0] * len(shapes), areas, kinds))

    def _send(self, result: Result, shown: Shown) -> None:
        """The outlines to the browser, if others than those there are needed."""
        found = result.found
        rows = np.arange(len(found))
        if len(rows) > _MOST:
            x1, y1, x2, y2 = self.window
            boxes = found.boxes
            rows = rows[(boxes[:, 0] < x2) & (boxes[:, 2] > x1) & (boxes[:, 1] < y2) & (boxes[:, 3] > y1)]
        self.many = len(rows) if len(rows) > _MOST else 0
        rows = rows[: 0 if self.many else None]
        scores = np.where(result.wanted, result.scores, -1)[rows].tolist()
        kinds = _named([result.kind_of(row) for row in rows.tolist()], shown)
        if found is self._found and np.array_equal(rows, self._rows):
            columns = {**kinds, "score": scores}
            changed = {name: values for name, values in columns.items() if self._outlines.data[name] != values}
            if changed:
                self._outlines.patch({name: [(slice(len(rows)), values)] for name, values in changed.items()})
            return
        self._found, self._rows = found, rows
        shapes = [outline(found.masks[row]) for row in rows.tolist()]
        for layer in (self._wrong, self._sure, self._found_ones):
            layer.view.filter.indices = []
        self._outlines.data = _columns(shapes, scores, result.areas[rows].tolist(), kinds)

    def _layer(self, name: str, **style: Any) -> GlyphRenderer:
        """Outlines, at first none."""
        glyph = Patches(xs="xs", ys="ys", **{**_GLYPH, **style})
        return self.plot.add_glyph(self._outlines, glyph, view=CDSView(filter=IndexFilter([])), name=name)


def _columns(
    shapes: list[tuple[list[float], list[float]]], scores: list[float], areas: list[int], kinds: dict[str, list[str]]
) -> dict[str, Any]:
    return {"xs": [xs for xs, _ in shapes], "ys": [ys for _, ys in shapes], "score": scores, "area": areas, **kinds}


def _named(kinds: Sequence[str], shown: Shown) -> dict[str, list[str]]:
    titles, colours = ({kind: told(kind) for kind in {*kinds}} for told in shown)
    return {"kind": [titles[kind] for kind in kinds], "colour": [colours[kind] for kind in kinds]}


def _put(source: ColumnDataSource, data: dict[str, list[Any]]) -> None:
    """Send data, if they are others than those that are there."""
    if source.data != data:
        source.data = data


def _box(geometry: dict[str, float]) -> Box:
    x1, x2 = sorted((geometry["x0"], geometry["x1"]))
    y1, y2 = sorted((geometry["y0"], geometry["y1"]))
    return x1, y1, x2, y2
