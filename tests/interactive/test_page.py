"""The page without a browser: what its widgets do to the session, and what they show of it."""

import threading

import pytest

pytest.importorskip("bokeh", reason="the page needs the extra `app` (Bokeh)")

import numpy as np
from bokeh.document import Document

from fsis_jax.app.controls import TOOLS
from fsis_jax.app.page import Page
from fsis_jax.interactive.exporting import export_images
from fsis_jax.interactive.state import Filters
from fsis_jax.io.names import FILES

pytestmark = pytest.mark.usefixtures("quick_compile")

BOX = (10.0, 5.0, 31.0, 26.0)


@pytest.fixture
def page(session, folder):
    """`a.png` is open, and seen as a whole on a screen of 160x120 pixels."""
    session.set_filters(Filters(0.0))
    page = Page(Document(), session)
    opened(page)
    page._picture._resized(160, 120)
    return page


def opened(page):
    """Wait for the image that is on its way."""
    page._opening.wait()
    page._guarded(page._look_at_opening)()


@pytest.fixture
def segmented(page):
    page._boxed(BOX)
    task = page._session.segment(page._path)
    task.wait()
    assert task.error == ""
    page._refresh()
    return page


def choose(page, tool):
    page._controls.tool.active = TOOLS.index(tool)


def click(page, tool, row):
    """On a pixel of an instance."""
    choose(page, tool)
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
    assert "Drag a box" in page._controls.crops.text
    page._boxed(BOX)
    page._refresh()
    assert page._controls.crops.text.count("<img") == 1
    assert "--reference a.png:10,5,31,26" in page._controls.command.text
    page._clicked(20.0, 15.0)
    page._refresh()
    assert page._session.state.references == ()
    assert "Drag a box" in page._controls.crops.text


def test_outlines_counts_and_corrections(segmented):
    page, picture = segmented, segmented._picture
    result = page._session.result(page._path)
    everything = len(result.found)
    assert len(picture._outlines.data["xs"]) == everything
    assert f">{everything}</span> cells in the image" in page._controls.count.text
    click(page, "wrong", 0)
    assert seen(picture._wrong) == [0]
    assert picture._said.data["place"] == [0]
    assert f">{everything - 1}</span>" in page._controls.count.text
    assert "1 wrong" in page._controls.count.text
    click(page, "wrong", 0)
    assert seen(picture._wrong) == picture._said.data["place"] == []
    click(page, "right", 1)
    assert seen(picture._sure) == [1]
    click(page, "deleted", 0)
    assert picture._said.data["place"] == [0, 1]
    assert seen(picture._wrong) == []
    choose(page, "add")
    page._boxed((70.0, 50.0, 79.0, 59.0))
    page._refresh()
    assert "1 right, 1 deleted, 1 added" in page._controls.count.text
    assert len(picture._added.data["xs"]) == 1
    choose(page, "deleted")
    page._clicked(74.5, 54.5)
    page._refresh()
    assert len(picture._added.data["xs"]) == 0
    assert not page._controls.undo.disabled


def test_kinds_have_colours_boxes_counts_and_corrections(segmented):
    page, picture, session = segmented, segmented._picture, segmented._session
    page._controls.kind.value = "dead, or not"
    assert "without commas" in page._controls.message.text
    assert page._controls.kind.value == ""
    page._controls.kind.value = " dead "
    assert session.state.kinds == ("cell", "dead")
    assert "dead: Drag a box" in page._controls.message.text
    page._boxed((20.0, 30.0, 41.0, 51.0))
    page._controls.asked.value = "kind 2"
    page._boxed((50.0, 20.0, 71.0, 41.0))
    page._refresh()
    first, second, unwanted = picture._boxes.data["colour"]
    assert len({first, second, unwanted}) == 3
    assert picture._box.overlay.line_color == unwanted
    line = page._controls.command.text
    assert "--kind cell=a.png:10,5,31,26 --kind dead=a.png:20,30,41,51 --not a.png:50,20,71,41" in line
    result = session.result(page._path)
    page._controls.asked.value = "kind 1"
    outlines = picture._outlines.data["xs"]
    click(page, "other", 0)
    assert result.kinds == {}
    assert session.result(page._path).kinds == {0: "dead"}
    assert picture._outlines.data["kind"][:2] == ["dead", "cell"]
    assert picture._outlines.data["colour"][:2] == [second, first]
    assert picture._outlines.data["xs"] is outlines
    assert seen(picture._sure) == [0]
    legend = f"<i></i>cell <b>{len(result.found) - 1}</b></span> <span style='--kind: {second}'><i></i>dead <b>1</b>"
    assert legend in page._controls.count.text
    click(page, "other", 0)
    assert session.result(page._path).kinds == session.result(page._path).verdicts == {}
    page._controls.asked.value = "rename 1 lost <b>"
    assert session.state.kinds == ("cell", "lost <b>")
    assert page._chosen_kind == "lost <b>"
    page._refresh()
    assert "lost &lt;b&gt;" in page._controls.crops.text
    assert "lost <b>" not in page._controls.crops.text
    page._controls.asked.value = "drop 1"
    assert session.state.kinds == ("cell",)
    assert page._chosen_kind == "cell"
    for odd in ("kind 7", "kind x", "rename 0", "drop"):
        page._controls.asked.value = odd
    assert session.state.kinds == ("cell",)


def test_a_correction_is_seen_on_all_outlines(segmented):
    page, picture, session = segmented, segmented._picture, segmented._session
    outlines, before = picture._outlines.data["xs"], list(picture._outlines.data["score"])
    click(page, "wrong", 0)
    learnt = list(picture._outlines.data["score"])
    assert learnt[0] == before[0]
    assert all(one != other for one, other in zip(learnt[1:], before[1:], strict=True))
    assert learnt == session.result(page._path).scores.tolist()
    assert picture._outlines.data["xs"] is outlines
    assert "1 correction counts for all cells" in page._controls.count.text
    page._controls.learn.active = False
    page._refresh()
    assert picture._outlines.data["score"] == before
    assert "for all cells" not in page._controls.count.text
    session.undo()
    page._refresh()
    assert page._controls.learn.active
    assert picture._outlines.data["score"] == learnt
    session.undo()
    page._refresh()
    assert picture._outlines.data["score"] == before


def test_sliders_count_and_draw_sizes_and_send_no_outline_again(segmented):
    page, picture = segmented, segmented._picture
    result, before = page._session.result(page._path), picture._outlines.data
    bars = page._controls.sizes._bars
    assert sum(bars.data["counted"]) == len(result.found)
    page._controls.score.value = float(np.median(result.found.scores))
    page._refresh()
    count = int(result.kept(page._session.filters).sum())
    assert 0 < count < len(result.found)
    assert f">{count}</span>" in page._controls.count.text
    assert sum(bars.data["counted"]) == count
    assert picture._outlines.data is before
    page._controls.score.value = 0
    page._controls.area.value = (float(np.median(result.areas)), page._controls.area.end)
    page._refresh()
    assert 0 < sum(bars.data["counted"]) < len(result.found)
    assert page._session.filters.max_area == np.inf


def test_a_slider_leaves_the_other_ones_filter_as_it_is(segmented):
    """Also one that is beyond the sizes in the image that is open."""
    page, controls, session = segmented, segmented._controls, segmented._session
    session.set_filters(Filters(0.0, 2.5, 5000.0))
    page._refresh()
    assert controls.area.value == (2.5, 5000.0)
    assert controls.area.end > 5000
    controls.score.value = 0.25
    assert session.filters == Filters(0.25, 2.5, 5000.0)
    controls.area.value = (2.5, controls.area.end)
    assert session.filters == Filters(0.25, 2.5, np.inf)
    session.set_filters(Filters(0.123456, 0.0, 60.0))
    page._refresh()
    controls.area.value = (10, 60)
    assert session.filters == Filters(0.123456, 10, 60)


def test_why_no_cell_is_found_is_told(page):
    page._session.set_filters(Filters(1.0))
    page._boxed(BOX)
    page._session.segment(page._path).wait()
    page._refresh()
    assert ">0</span> cells in the image" in page._controls.count.text
    assert "scores: " in page._controls.count.text


def test_an_example_is_segmented_with_at_once_if_that_is_wanted(page, monkeypatch):
    page._boxed(BOX)
    page._look_at_work()
    assert page._session.task.name == "segmenting the part that is seen of a.png"
    page._session.task.wait()
    assert page._session.task.error == ""
    assert page._session.result(page._path).part == (0, 0, 80, 60)
    page._controls.at_once.active = False
    page._boxed((20.0, 30.0, 40.0, 50.0))
    page._look_at_work()
    assert not page._session.task.running
    page._refresh()
    assert "segment again" in page._controls.count.text
    # What is seen is large.
    page._controls.at_once.active = True
    monkeypatch.setattr("fsis_jax.app.page._AT_ONCE", 80 * 60 - 1)
    page._boxed((50.0, 20.0, 70.0, 40.0))
    page._look_at_work()
    assert not page._session.task.running


def test_all_images_and_what_is_taken_away(page, folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page._list()
    page._boxed(BOX)
    page._again = False
    task = page._session.segment_all(page._images())
    task.wait()
    assert task.error.startswith("1 of 3 images failed: ")
    assert "broken.png" in task.error
    page._refresh()
    assert "1 of 3 images failed" in page._controls.work.text
    assert page._finished() == [str(folder / "a.png"), str(folder / "b.png")]
    page._controls.kinds.active = [list(FILES).index("geojson")]
    page._pressed(lambda: export_images(page._session, page._finished(), page._chosen()))(None)
    page._session.task.wait()
    page._look_at_work()
    assert "out: 2 files of 2 images, session.refs" in page._controls.written.text
    assert (folder / "out/b.geojson").exists()
    assert page._session.segment_all(page._images()).wait() is None


def test_an_example_is_taken_away_by_its_crop(page):
    page._boxed(BOX)
    page._refresh()
    assert "forget 0" in page._controls.crops.text
    page._controls.asked.value = "forget 0"
    assert page._session.state.references == ()
    page._controls.asked.value = "forget x"
    page._controls.asked.value = "open /etc/passwd"
    opened(page)
    assert "not below what may be opened here" in page._controls.message.text


def test_the_image_that_was_looked_at_is_open_in_the_next_tab(page, folder):
    page._open(str(folder / "b.png"))
    opened(page)
    other = Page(Document(), page._session)
    assert "b.png: it is opened ..." in other._controls.message.text
    opened(other)
    assert other._path == str(folder / "b.png")
    assert other._controls.image.value == str(folder / "b.png")
    page._session.save_changes()
    assert (folder / "out/session.json").exists()
    (folder / "out/session.json").unlink()
    page._session.save_changes()  # nothing has changed since
    assert not (folder / "out/session.json").exists()


def test_an_image_that_nobody_waits_for_is_closed(page, folder, monkeypatch):
    """While a slide is on its way, another image is chosen; the page shows what it showed until then."""
    go, closed = threading.Event(), []
    opener = page._session.open

    def slow(path):
        assert go.wait(100)
        image = opener(path)
        close = image.close
        monkeypatch.setattr(image, "close", lambda: (closed.append(path), close()))
        return image

    monkeypatch.setattr(page._session, "open", slow)
    page._open(str(folder / "b.png"))
    dropped = page._opening
    page._guarded(page._look_at_opening)()
    assert page._path == str(folder / "a.png")
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    page._open(str(folder / "c.png"))
    go.set()
    opened(page)
    dropped.wait()
    assert page._path == str(folder / "c.png")
    assert closed == [str(folder / "b.png")]


def test_two_tabs_show_the_same(segmented, session):
    other = Page(Document(), session)
    opened(other)
    assert other._picture._outlines.data == segmented._picture._outlines.data
    click(other, "wrong", 0)
    segmented._refresh()
    assert seen(segmented._picture._wrong) == [0]
    other._closed(None)
    assert len(session.listeners) == 1


def test_an_example_whose_image_is_gone_keeps_no_tab_from_opening(page, session, folder):
    session.add_reference(str(folder / "b.png"), BOX)
    (folder / "b.png").unlink()
    tab = Page(Document(), session)
    opened(tab)
    assert "example 1" in tab._controls.crops.text
    page._refresh()
    tab._controls.asked.value = "forget 0"
    assert session.state.references == ()


def test_a_tab_that_cannot_be_made_hears_of_nothing(session, monkeypatch):
    monkeypatch.setattr(Page, "_refresh", lambda page: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Page(Document(), session)
    assert session.listeners == []


def test_what_is_not_saved_is_told_as_long_as_it_is_so(page):
    page._session.unsaved = "out/session.json: cannot be written: <no space>"
    for _ in range(2):
        page._look_at_work()
        assert "&lt;no space&gt;" in page._controls.work.text
    page._session.unsaved = ""
    page._look_at_work()
    assert page._controls.work.text == ""


def test_what_is_wrong_is_one_line_on_the_page(page, folder):
    (folder / "<b>.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page._open(str(folder / "<b>.png"))
    opened(page)
    assert "&lt;b&gt;.png: " in page._controls.message.text
    assert "class='bad'" in page._controls.message.text
    page._controls.image.value = str(folder / "<b>.png")
    opened(page)
    assert page._controls.image.value == page._path == str(folder / "a.png")
    page._open("/etc/passwd")
    opened(page)
    assert "not below what may be opened here" in page._controls.message.text
    page._pressed(lambda: export_images(page._session, page._finished(), page._chosen()))(None)
    assert "no image was segmented as a whole" in page._controls.message.text
    assert page._path == str(folder / "a.png")


def test_a_slide_of_too_many_outlines_tells_to_zoom(segmented, monkeypatch):
    monkeypatch.setattr("fsis_jax.app.picture._MOST", 1)
    segmented._picture._found = None
    segmented._draw()
    assert "zoom in" in segmented._controls.message.text
    assert segmented._picture._outlines.data["xs"] == []
