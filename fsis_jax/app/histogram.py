"""How large the cells are that count, among all that was found; as wide as the slider below it."""

import numpy as np
from bokeh.models import ColumnDataSource, Range1d, RangeSlider
from bokeh.plotting import figure

from fsis_jax.interactive.state import Filters, Result

_BARS = 32
_HEIGHT = 64
COUNTED, OTHERS, INK = "#3b8eea", "#8b97a5", "#7d8894"
"""Colours that are seen on light and on dark."""


class Histogram:
    """A small figure without tools."""

    def __init__(self) -> None:
        self.plot = figure(
            height=_HEIGHT,
            sizing_mode="stretch_width",
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            tools=[],
            toolbar_location=None,
            background_fill_alpha=0,
            border_fill_alpha=0,
            outline_line_color=None,
            min_border=0,
            name="sizes",
        )
        self.plot.axis.visible = False
        self.plot.grid.visible = False
        self._bars = ColumnDataSource({"left": [], "right": [], "all": [], "counted": []})
        for top, colour, alpha in (("all", OTHERS, 0.3), ("counted", COUNTED, 0.95)):
            self.plot.quad(
                left="left",
                right="right",
                top=top,
                bottom=0,
                source=self._bars,
                fill_color=colour,
                fill_alpha=alpha,
                line_color=None,
            )

    def draw(self, result: Result | None, counted: np.ndarray, end: float) -> None:
        """
        Args:
            counted: (N,) bool, those of `result.found` that count.
            end: largest area that is shown, pixels; larger ones are in the last bar.
        """
        if result is None or not len(result.found):
            self._bars.data = {"left": [], "right": [], "all": [], "counted": []}
            return
        edges = np.linspace(0, end, _BARS + 1)
        areas = np.minimum(result.areas, end)
        everything, some = (np.histogram(chosen, edges)[0] for chosen in (areas, areas[counted]))
        # As high as what counts, so that the many that score next to nothing do not make it flat.
        top = float(max(some.max(), 1)) * 1.1 if some.any() else float(max(everything.max(), 1))
        self.plot.x_range.end, self.plot.y_range.end = end, top
        gap = 0.06 * (edges[1] - edges[0])
        self._bars.data = {
            "left": (edges[:-1] + gap).tolist(),
            "right": (edges[1:] - gap).tolist(),
            "all": np.minimum(everything, top).tolist(),
            "counted": some.tolist(),
        }


def end_of(result: Result, min_score: float) -> float:
    """The largest area that a slider and the histogram should show: a few odd ones are beyond."""
    sure = result.areas[result.found.scores >= min_score]
    areas = sure if len(sure) else result.areas
    return float(max(np.ceil(min(areas.max(), 2 * np.percentile(areas, 95)) / 10) * 10, 10)) if len(areas) else 1000.0


def end_beyond(filters: Filters, end: float) -> float:
    """An end of the slider at which it can show the filter: at its very end there is no limit."""
    limits = [limit for limit in (filters.min_area, filters.max_area) if np.isfinite(limit)]
    return end if max(limits) < end else float(np.floor(max(limits) / 10) + 1) * 10


def limits(slider: RangeSlider) -> dict[str, float]:
    """What a slider of sizes says, as fields of `Filters`: its ends are no limits."""
    least, most = slider.value
    return {
        "min_area": least if least > slider.start else 0.0,
        "max_area": most if most < slider.end else np.inf,
    }
