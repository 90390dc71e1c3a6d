"""A running `fsis app` and a mouse on its page, in Chromium: for its tests, its pictures and its measurements."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from playwright import sync_api

from fsis_jax.app.picture import FOUND

_APP = """
import signal
from fsis_jax.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""Ctrl-C ends it, which a shell switches off for what it runs in the background."""
_READY = """
() => {
  const picture = window.Bokeh && Bokeh.documents[0]?.get_model_by_name("picture");
  return picture && Bokeh.index.find_one(picture)?.frame && picture.renderers[0].data_source.data.image.length == 1;
}
"""
"""The image is there."""
_PLACE = """
([x, y]) => {
  const view = Bokeh.index.find_one(fsisModel("picture"));
  const corner = view.canvas_view.el.getBoundingClientRect();
  return [corner.x + view.frame.x_scale.compute(x), corner.y + view.frame.y_scale.compute(y)];
}
"""
_DRAWN = """
(name) => {
  const layer = fsisModel("picture").renderers.find((each) => each.name == name);
  const {xs, ys} = layer.data_source.data;
  return [...layer.view.filter.indices].map((row) => [row, [...xs[row]], [...ys[row]]]);
}
"""


@contextlib.contextmanager
def running_app(
    folder: str | os.PathLike[str], arguments: Sequence[str], seconds: float = 120
) -> Iterator[tuple[str, int]]:
    """The address of the page of a new `fsis app`, and the id of its process, which ends by Ctrl-C.

    Args:
        folder: where it is started; it writes `log` there.
        seconds: until its page must be there.

    Raises:
        RuntimeError: it does not start, or ends in another way.
    """
    log = pathlib.Path(folder, "log")
    command = [sys.executable, "-c", _APP, "app", *arguments, "--no-browser"]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + seconds
        while not (found := re.search(r"The page: (http://\S+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"fsis app does not start: {log.read_text()}")
            time.sleep(0.1)
        yield found[1], process.pid
    finally:
        process.send_signal(2)
        status = process.wait(120)
    if status != 130 or "Traceback" in log.read_text():
        raise RuntimeError(f"fsis app ended with status {status}: {log.read_text()}")


@contextlib.contextmanager
def chromium() -> Iterator[sync_api.Browser]:
    """Debian's, or else Playwright's own.

    Raises:
        playwright.sync_api.Error: there is none.
    """
    with sync_api.sync_playwright() as playwright:
        # As root, in a container, it has no sandbox of its own.
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=alone)
        yield browser
        browser.close()


class Tab:
    """One page, in pixels of the image that it shows."""

    def __init__(self, browser: sync_api.Browser, address: str, size: tuple[int, int], scheme: Any = "light") -> None:
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        self.errors: list[str] = []
        """What the browser's console was told."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.set_default_timeout(60_000)
        self.page.goto(address)
        self.page.wait_for_function(_READY)

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_function(_READY)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the image is on the screen."""
        across, down = self.page.evaluate(_PLACE, [x, y])
        return across, down

    def drag(self, box: Sequence[float]) -> None:
        """A box, from corner to corner."""
        x1, y1, x2, y2 = box
        self.page.mouse.move(*self.at(x1, y1))
        self.page.mouse.down()
        for share in (0.3, 0.7, 1):
            self.page.mouse.move(*self.at(x1 + share * (x2 - x1), y1 + share * (y2 - y1)))
        self.page.mouse.up()
        time.sleep(0.4)  # or the next one is a double-click

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))
        time.sleep(0.4)

    def press(self, name: str, seconds: float = 120) -> None:
        """A button, once it can be pressed."""
        self.page.get_by_role("button", name=name, exact=True).click(timeout=1000 * seconds)

    def text(self, name: str) -> str:
        """What a part of the page says."""
        return re.sub("<[^>]*>", "", self.page.evaluate("(name) => fsisModel(name).text", name))

    def wait_for(self, name: str, pattern: str, seconds: float = 60) -> str:
        """What a part of the page says, once it fits.

        Raises:
            TimeoutError: it does not.
        """
        deadline = time.monotonic() + seconds
        while not re.search(pattern, said := self.text(name)):
            if time.monotonic() > deadline:
                told = {each: self.text(each) for each in ("message", "work", "count", "written")}
                raise TimeoutError(f"{name} does not come to say {pattern!r}: {said!r}; {told}")
            time.sleep(0.02)
        return said

    def drawn(self) -> list[tuple[int, tuple[float, float]]]:
        """Of the outlines that the sliders choose: the row of each, and a point well inside."""
        return [(row, _inside(xs, ys)) for row, xs, ys in self.page.evaluate(_DRAWN, FOUND)]


def _inside(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """The point of a polygon that is farthest from its outline."""
    points = np.rint(np.column_stack([xs, ys]) - 0.5).astype(np.int32)
    corner = points.min(axis=0) - 1
    width, height = points.max(axis=0) - corner + 2
    drawn = np.zeros((height, width), np.uint8)
    cv2.fillPoly(drawn, [points - corner], 1)
    y, x = np.unravel_index(np.argmax(cv2.distanceTransform(drawn, cv2.DIST_L2, 3)), drawn.shape)
    return float(x + corner[0]) + 0.5, float(y + corner[1]) + 0.5
