"""The page in Chromium, as a person uses it: `fsis app` in a process of its own, a mouse, files that are read back."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

pytest.importorskip("bokeh", reason="the page needs the extra `app` (Bokeh)")
pytest.importorskip("playwright", reason="tests in a browser need the extra `browser` (Playwright)")

from playwright import sync_api as playwright

from fsis_jax.app.picture import FOUND

BOXES = ((10, 5, 31, 26), (20, 30, 41, 51))
"""Around discs of `picture`."""
SECONDS = 120
"""For what runs the network, which is compiled first."""
PLACE = """
([x, y]) => {
  const picture = Bokeh.documents[0].get_model_by_name("picture");
  const view = Bokeh.index.find_one(picture);
  const corner = view.canvas_view.el.getBoundingClientRect();
  return [corner.x + view.frame.x_scale.compute(x), corner.y + view.frame.y_scale.compute(y)];
}
"""
DRAWN = """
() => {
  const picture = Bokeh.documents[0].get_model_by_name("picture");
  const layer = picture.renderers.find((each) => each.glyph.line_color?.value == "FOUND");
  const {filter} = layer.view, {xs, ys} = layer.data_source.data;
  return [...filter.indices].map((row) => [row, [...xs[row]], [...ys[row]]]);
}
"""
DRAWN = DRAWN.replace("FOUND", FOUND)
"""Rows and polygons of what counts by the sliders."""
READY = """
() => {
  const picture = window.Bokeh && Bokeh.documents[0]?.get_model_by_name("picture");
  return picture && Bokeh.index.find_one(picture)?.frame && picture.renderers[0].data_source.data.image.length == 1;
}
"""
"""The image is there."""
CUT = """
() => {
  const cut = [];
  const look = (root) => root.querySelectorAll("*").forEach((each) => {
    if (each.tagName == "BUTTON" && each.scrollWidth > each.clientWidth + 1) cut.push(each.textContent);
    if (each.shadowRoot) look(each.shadowRoot);
  });
  look(document);
  return cut;
}
"""
"""Buttons whose text does not fit."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> pathlib.Path:
    """`images/a.png`, its mirror image `images/b.png`, a broken one; `elsewhere/c.png`."""
    folder = tmp_path_factory.mktemp("browser")
    for name, pixels in (("images/a", picture), ("images/b", picture[:, ::-1]), ("elsewhere/c", picture[::-1])):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), pixels)
    for name in ("images", "elsewhere"):
        (folder / name / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return folder


@pytest.fixture(scope="module")
def address(place: pathlib.Path, weights: str, quick_compile: None) -> Iterator[str]:
    """Of the page of a running `fsis app`, which ends by Ctrl-C without an error."""
    command = [sys.executable, "-m", "fsis_jax", "app", "images", "--checkpoint", weights, "--output", "out"]
    log = place / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen([*command, "--no-browser"], cwd=place, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"The page: (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        process.send_signal(2)
        status = process.wait(60)
    assert status == 130
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as running:
        try:
            # As root, in a container, it has no sandbox of its own.
            started = running.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
            )
        except playwright.Error as error:
            pytest.skip(f"no Chromium here, `playwright install chromium` gets one: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def open_page(browser: playwright.Browser, address: str) -> Iterator[Callable[..., playwright.Page]]:
    """Opens a tab; none may tell an error to the browser's console."""
    errors, tabs = [], []

    def opened(width: int = 1280, height: int = 800, scheme: str = "light") -> playwright.Page:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.set_default_timeout(20_000)
        page.goto(address)
        page.wait_for_function(READY)
        tabs.append(page)
        return page

    yield opened
    for page in tabs:
        page.close()
    assert [error for error in errors if "status of 400" not in error] == []


def at(page: playwright.Page, x: float, y: float) -> tuple[float, float]:
    """A point of the image on the screen."""
    across, down = page.evaluate(PLACE, [x, y])
    return across, down


def drag(page: playwright.Page, box: tuple[int, int, int, int]) -> None:
    page.mouse.move(*at(page, *box[:2]))
    page.mouse.down()
    page.mouse.move(*at(page, (box[0] + box[2]) / 2, box[3]))
    page.mouse.move(*at(page, *box[2:]))
    page.mouse.up()


def press(page: playwright.Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click(timeout=SECONDS * 1000)


def text(page: playwright.Page, name: str) -> str:
    """What a part of the page says."""
    return re.sub("<[^>]*>", "", page.evaluate(f"() => fsisModel('{name}').text"))


def wait_for(page: playwright.Page, name: str, pattern: str, seconds: float = 20) -> str:
    """Until a part of the page says something."""
    deadline = time.monotonic() + seconds
    while not re.search(pattern, said := text(page, name)):
        assert time.monotonic() < deadline, f"{said!r}; {text(page, 'message')!r}; {text(page, 'work')!r}"
        time.sleep(0.05)
    return said


def inside(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """The point of a polygon that is farthest from its outline."""
    drawn = np.zeros((60, 80), np.uint8)
    cv2.fillPoly(drawn, [np.int32(np.rint(np.column_stack([xs, ys]) - 0.5))], 1)
    y, x = np.unravel_index(np.argmax(cv2.distanceTransform(np.pad(drawn, 1), cv2.DIST_L2, 3)), (62, 82))
    return float(x) - 0.5, float(y) - 0.5


def test_point_look_correct_and_take_away(open_page, place):
    page = open_page()
    assert "a.png: 80 x 60 pixels" in text(page, "message")
    for box in BOXES:
        drag(page, box)
        time.sleep(0.3)
    page.wait_for_function("() => fsisModel('command').text.split('--reference').length == 3")
    wait_for(page, "count", "cells? in the part that was segmented", SECONDS)
    press(page, "Segment image")
    wait_for(page, "count", "in the image", SECONDS)
    page.locator(".noUi-handle").first.focus()
    page.keyboard.press("Home")  # every score
    wait_for(page, "count", r"^([4-9]|\d\d+) cells in the image$")
    cells = page.evaluate(DRAWN)
    assert wait_for(page, "count", f"^{len(cells)} ")
    by_size = sorted(cells, key=lambda cell: np.ptp(cell[1]) * np.ptp(cell[2]), reverse=True)
    press(page, "Mark wrong")
    for _, xs, ys in by_size[:3]:
        page.mouse.click(*at(page, *inside(xs, ys)))
        time.sleep(0.3)
    wait_for(page, "count", f"^{len(cells) - 3} cells in the image3 wrong$")
    assert {row for row, _, _ in page.evaluate(DRAWN)} == {row for row, _, _ in by_size[3:]}
    press(page, "geojson")
    press(page, "Export image")
    wait_for(page, "written", r"a\.geojson.*session\.refs")
    assert len(json.loads((place / "out/a.geojson").read_text())["features"]) == len(cells) - 3
    assert (place / "out/a-labels.tif").exists()
    press(page, "Training data")
    wait_for(page, "written", "training: ")
    assert (place / "out/training/annotations/train.json").exists()


def test_a_reload_keeps_the_session(open_page):
    page = open_page(1920, 1080, "dark")
    before = text(page, "count")
    assert "3 wrong" in before
    press(page, "Undo")
    wait_for(page, "count", "2 wrong")
    page.reload()
    page.wait_for_function(READY)
    assert "2 wrong" in text(page, "count")
    press(page, "Redo")
    wait_for(page, "count", "3 wrong")
    assert text(page, "count") == before
    assert page.locator("img").count() == 2
    assert len(page.evaluate(DRAWN)) == int(before.split()[0])


def test_a_broken_file_tells_its_one_line(open_page, place):
    page = open_page()
    page.get_by_role("combobox").select_option(label="images/broken.png")
    wait_for(page, "message", r"broken\.png: ")
    chooser = page.locator("input[type=file]")
    chooser.set_input_files(place / "elsewhere/broken.png")
    wait_for(page, "message", r"uploads/broken\.png: ")
    assert not (place / "out/uploads/broken.png").exists()
    page.get_by_placeholder("or type a path").fill("/etc/passwd")
    page.keyboard.press("Enter")
    said = wait_for(page, "message", "not below what may be opened here")
    assert "\n" not in said


def test_a_file_that_is_given_is_opened(open_page, place):
    page = open_page()
    page.locator("input[type=file]").set_input_files(place / "elsewhere/c.png")
    wait_for(page, "message", r"uploads/c\.png: 80 x 60 pixels")
    assert (place / "out/uploads/c.png").read_bytes() == (place / "elsewhere/c.png").read_bytes()
    assert page.get_by_role("combobox").input_value().endswith("uploads/c.png")
    page.get_by_role("combobox").select_option(label="images/a.png")
    wait_for(page, "message", r"images/a\.png: 80 x 60")


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_no_button_is_cut_off(open_page, size):
    page = open_page(*size)
    assert page.evaluate(CUT) == []
    across, down = at(page, 0, 0)
    right, bottom = at(page, 80, 60)
    assert 300 < across < right <= size[0]
    assert 40 < down < bottom <= size[1]
    assert right - across > size[0] / 3
