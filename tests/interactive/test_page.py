"""The page without a browser: what its widgets do to the session, and what they show of it."""

import pytest

pytest.importorskip("bokeh", reason="the page needs the extra `app` (Bokeh)")

import numpy as np
from bokeh.document import Document

from fsis_jax.app import page as module
from fsis_jax.app.page import Page
from fsis_jax.interactive.state import Filters

pytestmark = pytest.mark.usefixtures("quick_compile")

BOX = (10.0, 5.0, 31.0, 26.0)


@pytest.fixture
def page(session, folder):
    """`a.png` is open, and seen as a whole on a screen of 160x120 pixels."""
    session.set_filters(Filters(0.0))
    page = Page(Document(), session)
    page._picture._resized(160, 120)
    return page


@pytest.fixture
def segmented(page):
    page._boxed(BOX)
    task = page._session.segment(page._path)
    task.wait()
    assert task.error == ""
    page._refresh()
    return page


def click(page, tool, row):
    """On a pixel of an instance."""
    page._tool.active = tool
    crop = page._session.result(page._path).found.masks[row]
    ys, xs = np.nonzero(crop.mask)
    page._clicked(crop.x + float(xs[0]) + 0.5, crop.y + float(ys[0]) + 0.5)
    page._refresh()


def seen(layer):
    return list(layer.view.filter.indices)


def test_the_picture_shows_the_image_with_square_pixels(page):
    x1, y1, x2, y2 = page._picture.window
    assert (x2 - x1) / 160 == pytest.approx((y2 - y1) / 120)
    assert x1 <= 0
    assert x2 >= 80
    page._arrived()
    assert page._picture._pixels.data["image"][0].shape == (60, 80)


def test_an_example_is_shown_with_its_command_and_taken_away_by_a_click(page):
    assert "Drag a box" in page._crops_shown.text
    page._boxed(BOX)
    page._refresh()
    assert page._crops_shown.text.count("<img") == 1
    assert "--reference a.png:10,5,31,26" in page._command.text
    page._clicked(20.0, 15.0)
    page._refresh()
    assert page._session.state.references == ()
    assert "Drag a box" in page._crops_shown.text


def test_outlines_counts_and_corrections(segmented):
    page, picture = segmented, segmented._picture
    result = page._session.result(page._path)
    everything = list(range(len(result.found)))
    assert seen(picture._found_ones) == everything
    assert f">{len(everything)}</span> cells in the image" in page._count.text
    click(page, module._WRONG, 0)
    assert seen(picture._wrong) == [0]
    assert seen(picture._found_ones) == everything[1:]
    assert "1 wrong" in page._count.text
    click(page, module._WRONG, 0)
    assert seen(picture._wrong) == []
    click(page, module._RIGHT, 1)
    assert seen(picture._sure) == [1]
    click(page, module._DELETE, 0)
    assert seen(picture._found_ones) == everything[2:]
    page._tool.active = module._ADD
    page._boxed((70.0, 50.0, 79.0, 59.0))
    page._refresh()
    assert "1 right, 1 deleted, 1 added" in page._count.text
    assert len(picture._added.data["xs"]) == 1
    page._tool.active = module._DELETE
    page._clicked(74.5, 54.5)
    page._refresh()
    assert len(picture._added.data["xs"]) == 0
    assert not page._undo.disabled


def test_sliders_act_at_once_and_send_no_outline_again(segmented):
    page, picture = segmented, segmented._picture
    result, before = page._session.result(page._path), picture._outlines.data
    page._score.value = float(result.found.scores[0])
    page._refresh()
    kept = np.flatnonzero(result.kept(page._session.filters)).tolist()
    assert seen(picture._found_ones) == kept
    assert len(kept) < len(result.found)
    assert picture._outlines.data is before
    page._score.value = 0
    page._area.value = (float(np.median(result.areas)), page._area.end)
    page._refresh()
    assert 0 < len(seen(picture._found_ones)) < len(result.found)
    assert page._session.filters.max_area == np.inf


def test_two_tabs_show_the_same(segmented, session):
    other = Page(Document(), session)
    assert seen(other._picture._found_ones) == seen(segmented._picture._found_ones)
    click(other, module._WRONG, 0)
    segmented._refresh()
    assert seen(segmented._picture._wrong) == [0]
    other._closed(None)
    assert len(session.listeners) == 1


def test_what_is_wrong_is_one_line_on_the_page(page, folder):
    (folder / "<b>.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page._chose(str(folder / "<b>.png"))
    assert "&lt;b&gt;.png: " in page._message.text
    assert "class='bad'" in page._message.text
    page._chose("/etc/passwd")
    assert "not below what may be opened here" in page._message.text
    page._guarded(page._exported)()
    assert "not segmented yet" in page._message.text
    assert page._path == str(folder / "a.png")


def test_a_slide_of_too_many_outlines_tells_to_zoom(segmented, monkeypatch):
    monkeypatch.setattr("fsis_jax.app.picture._MOST", 1)
    segmented._picture._found = None
    segmented._draw()
    assert "zoom in" in segmented._message.text
    assert segmented._picture._outlines.data["xs"] == []
