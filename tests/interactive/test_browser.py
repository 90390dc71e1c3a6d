"""The page in Chromium, as a person uses it: `fsis app` in a process of its own, a mouse, files that are read back."""

import json
import pathlib
import re
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

pytest.importorskip("bokeh", reason="the page needs the extra `app` (Bokeh)")
pytest.importorskip("playwright", reason="tests in a browser need the extra `browser` (Playwright)")

from page_driver import Tab, chromium, running_app
from playwright import sync_api

BOXES = ((10, 5, 31, 26), (20, 30, 41, 51))
"""Around discs of `picture`."""
SECONDS = 120
"""For what runs the network, which is compiled first."""
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
    """Of the page of a running `fsis app`."""
    with running_app(place, ["images", "--checkpoint", weights, "--output", "out"], SECONDS) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    try:
        with chromium() as started:
            yield started
    except sync_api.Error as error:
        if "launch" not in str(error):
            raise
        pytest.skip(f"no Chromium here, `playwright install chromium` gets one: {str(error).splitlines()[0]}")


@pytest.fixture
def open_tab(browser: sync_api.Browser, address: str) -> Iterator[Callable[..., Tab]]:
    """Opens a tab; none may tell an error to the browser's console."""
    tabs: list[Tab] = []

    def opened(width: int = 1280, height: int = 800, scheme: str = "light") -> Tab:
        tabs.append(Tab(browser, address, (width, height), scheme))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.page.close()
    errors = [error for tab in tabs for error in tab.errors]
    assert [error for error in errors if "status of 400" not in error] == []


def test_point_look_correct_and_take_away(open_tab, place):
    tab = open_tab()
    assert "a.png: 80 x 60 pixels" in tab.text("message")
    for box in BOXES:
        tab.drag(box)
    tab.page.wait_for_function("() => fsisModel('command').text.split('--reference').length == 3")
    tab.wait_for("count", "cells? in the part that was segmented", SECONDS)
    tab.press("Segment image")
    tab.wait_for("count", "in the image", SECONDS)
    tab.page.locator(".noUi-handle").first.focus()
    tab.page.keyboard.press("Home")  # every score
    tab.wait_for("count", r"^([4-9]|\d\d+) cells in the image$")
    cells = tab.drawn()
    tab.wait_for("count", f"^{len(cells)} ")
    tab.press("Mark wrong")
    for _, point in cells[:3]:
        tab.click(*point)
    tab.wait_for("count", f"^{len(cells) - 3} cells in the image3 wrong, 3 corrections count for all cells$")
    assert sorted(row for row, _ in tab.drawn()) == sorted(row for row, _ in cells[3:])
    tab.press("geojson")
    tab.press("Export image")
    tab.wait_for("written", r"a\.geojson.*session\.refs")
    assert len(json.loads((place / "out/a.geojson").read_text())["features"]) == len(cells) - 3
    assert (place / "out/a-labels.tif").exists()
    tab.press("Training data")
    tab.wait_for("written", "training: ")
    assert (place / "out/training/annotations/train.json").exists()


def test_a_reload_keeps_the_session(open_tab):
    tab = open_tab(1920, 1080, "dark")
    before = tab.text("count")
    assert "3 wrong" in before
    tab.press("Undo")
    tab.wait_for("count", "2 wrong")
    tab.reload()
    assert "2 wrong" in tab.text("count")
    tab.press("Redo")
    assert tab.wait_for("count", "3 wrong") == before
    assert tab.page.locator("img").count() == len(BOXES)
    assert len(tab.drawn()) == int(before.split()[0])


def test_a_broken_file_tells_its_one_line(open_tab, place):
    tab = open_tab()
    tab.page.get_by_role("combobox").select_option(label="images/broken.png")
    tab.wait_for("message", r"images/broken\.png: truncated")
    tab.page.locator("input[type=file]").set_input_files(place / "elsewhere/broken.png")
    tab.wait_for("message", r"uploads/broken\.png: truncated")
    assert not (place / "out/uploads/broken.png").exists()
    tab.page.get_by_placeholder("or type a path").fill("/etc/passwd")
    tab.page.keyboard.press("Enter")
    assert "\n" not in tab.wait_for("message", "not below what may be opened here")


def test_a_file_that_is_given_is_opened(open_tab, place):
    tab = open_tab()
    tab.page.locator("input[type=file]").set_input_files(place / "elsewhere/c.png")
    tab.wait_for("message", r"uploads/c\.png: 80 x 60 pixels")
    assert (place / "out/uploads/c.png").read_bytes() == (place / "elsewhere/c.png").read_bytes()
    assert tab.page.get_by_role("combobox").input_value().endswith("uploads/c.png")
    tab.page.get_by_role("combobox").select_option(label="images/a.png")
    tab.wait_for("message", r"images/a\.png: 80 x 60")


def test_kinds_are_named_chosen_shown_and_corrected(open_tab, place):
    tab = open_tab()
    tab.page.locator("input[type=checkbox]").last.uncheck()  # "Learn from corrections": those of the tests before
    tab.wait_for("count", "^(?!.*correction)")
    field = tab.page.get_by_placeholder("another kind")
    field.fill("dead")
    field.press("Enter")
    tab.wait_for("message", "dead: Drag a box")
    tab.drag((50, 20, 71, 41))
    tab.wait_for("command", "--kind dead=images/a.png:50,20,71,41")
    tab.page.once("dialog", lambda dialog: dialog.accept("living & well"))
    tab.page.get_by_role("button", name="rename cell", exact=True).click()
    tab.wait_for("command", "living &amp; well=")
    tab.wait_for("count", r"living &amp; well \d+ dead 0", SECONDS)
    tab.press("Segment image")
    tab.wait_for("count", r"cells? in the image(?!.*segment again)", SECONDS)
    row, point = tab.drawn()[0]
    before = sum(_legend(tab))
    tab.press("living & well")
    tab.press("Other kind")
    tab.click(*point)
    tab.wait_for("count", "1 right")
    assert _legend(tab)[0] > 0
    assert sum(_legend(tab)) == before
    assert row not in [each for each, _ in tab.drawn()]
    tab.press("geojson")
    tab.press("Export image")
    tab.wait_for("written", r"a\.geojson")
    features = json.loads((place / "out/a.geojson").read_text())["features"]
    assert "living & well" in {each["properties"]["classification"]["name"] for each in features}


def _legend(tab):
    """Counts of the kinds."""
    return [int(count) for count in re.findall(r"<b>(\d+)</b>", tab.page.evaluate("() => fsisModel('count').text"))]


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_no_button_is_cut_off(open_tab, size):
    tab = open_tab(*size)
    assert tab.page.evaluate(CUT) == []
    (across, down), (right, bottom) = tab.at(0, 0), tab.at(80, 60)
    assert 300 < across < right <= size[0]
    assert 40 < down < bottom <= size[1]
    assert right - across > size[0] / 3
