"""The rules of the dock widget, with stand-ins for napari: what is drawn, of which image and kind, where it goes."""

import time
import types

import cv2
import numpy as np
import pytest
import stand_ins
import tifffile
from discs import BOXES, discs, picture
from tiny import get_config
from tiny_detector import tiny_detector

from fsis_jax.checkpoints.weights import Trained, save_weights
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.interactive.saved import LOCK_FILE, hold
from fsis_jax.interactive.session import SESSION_FILE
from fsis_jax.interactive.state import NOT_THIS
from fsis_jax.napari.layers import rectangle

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def segmenter(quick_compile, tmp_path_factory):
    config = get_config()
    weights = tmp_path_factory.mktemp("weights") / "random.npz"
    save_weights(weights, Trained.of(tiny_detector(config), config, {"min_score": 0.0}))
    return Segmenter.from_pretrained(weights)


@pytest.fixture
def new_dock(monkeypatch, segmenter, tmp_path):
    """A widget of a new process, with these image layers; the process before it ends."""
    monkeypatch.setattr("fsis_jax.interactive.session.find_all", discs)
    at_exit, chosen = [], []

    def ended():
        while at_exit:
            at_exit.pop()()

    def new(*images):
        ended()
        module = stand_ins.made_with(monkeypatch, "fsis_jax.napari.dock")
        module.atexit = types.SimpleNamespace(register=at_exit.append)
        module.Segmenter = types.SimpleNamespace(from_pretrained=lambda name: chosen.append(name) or segmenter)
        viewer = stand_ins.Viewer()
        dock = module.Dock(viewer)
        dock.module, dock.checkpoints = module, chosen
        dock.output.value = tmp_path / "out"
        for image in images:
            viewer.add(image)
        return dock

    yield new
    ended()
    assert not (tmp_path / "out" / LOCK_FILE).exists()


@pytest.fixture
def files(tmp_path):
    """Layers of two image files, of which the second is the mirror image of the first."""
    layers = []
    for name, pixels in (("A", picture()), ("B", picture()[:, ::-1])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
        layers.append(stand_ins.Image(name, pixels, path=str(tmp_path / f"{name}.png")))
    return layers


def press(button):
    button.clicked.emit(True)


def draw(dock, name, *boxes):
    for box in boxes:
        dock._viewer.named(name).add_rectangles(rectangle(box))


def add_kind(dock, name):
    dock.new_kind.value = name
    press(dock.add)


def shown(dock):
    """Name of each visible layer for boxes -> how many are in it."""
    layers = [layer for layer in dock._viewer.layers if isinstance(layer, stand_ins.Shapes) and layer.visible]
    return {layer.name: len(layer.data) for layer in layers}


def references(dock):
    return [(each.image.rsplit("/")[-1], each.box, each.kind) for each in dock.session.state.references]


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_boxes_are_examples_of_the_image_that_they_are_drawn_on(new_dock, files):
    dock = new_dock(*files)
    assert shown(dock) == {"examples: cell (A)": 0, "not this (A)": 0}
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    assert references(dock) == [("A.png", BOXES[0], "")]
    dock.image.value = files[1]
    assert shown(dock) == {"examples: cell (B)": 0, "not this (B)": 0}
    draw(dock, "not this (B)", BOXES[1])
    press(dock.segment)
    assert references(dock) == [("A.png", BOXES[0], ""), ("B.png", BOXES[1], NOT_THIS)]
    dock.image.value = files[0]
    assert shown(dock) == {"examples: cell (A)": 1, "not this (A)": 0}
    before = dock.session.state.references
    press(dock.segment)
    assert dock.session.state.references is before  # so what was found in B is no earlier result


def test_layers_follow_the_kinds_of_the_session(new_dock, files):
    dock = new_dock(*files)
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    dock.image.value = files[1]
    add_kind(dock, "dead")
    assert dock.kind.value == "dead"
    assert dock.kind.choices == ["cell", "dead", NOT_THIS]
    assert list(shown(dock)) == ["examples: cell (B)", "not this (B)", "examples: dead (B)"]
    draw(dock, "examples: dead (B)", BOXES[1])
    press(dock.segment)
    assert references(dock) == [("A.png", BOXES[0], "cell"), ("B.png", BOXES[1], "dead")]
    assert dock._cells.name == "cells"
    dock.image.value = files[0]
    assert shown(dock) == {"examples: cell (A)": 1, "not this (A)": 0, "examples: dead (A)": 0}
    dock.image.value = files[1]
    dock.kind.value = "cell"
    press(dock.remove_kind)
    assert dock.session.state.kinds == ("dead",)
    assert list(shown(dock)) == ["not this (B)", "examples: dead (B)"]
    for _ in range(4):
        press(dock.undo)
    assert dock.session.state.kinds == ("",)
    assert shown(dock) == {"examples: cell (B)": 0, "not this (B)": 0}
    assert dock._cells not in dock._viewer.layers
    dock.image.value = files[0]
    assert shown(dock) == {"examples: cell (A)": 1, "not this (A)": 0}


def test_a_name_that_tables_cannot_have_makes_no_layer(new_dock, files):
    dock = new_dock(files[0])
    for name in ("a,b", " ", "cell", NOT_THIS):
        add_kind(dock, name)
        assert dock.message.value.startswith("kind ")
        assert list(shown(dock)) == ["examples: cell (A)", "not this (A)"]
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    assert dock.message.value == "3 cells"


def test_why_no_cell_is_found_is_told(new_dock, files):
    dock = new_dock(files[0])
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    dock.score.value = 1
    assert dock.message.value == "0 cells"
    press(dock.segment)
    assert "; scores: " in dock.message.value


@pytest.mark.parametrize("first", ["cell", "alive"])
def test_a_session_is_gone_on_with(new_dock, files, first):
    dock = new_dock(files[0])
    draw(dock, "examples: cell (A)", BOXES[0])
    add_kind(dock, "dead")
    dock.session.rename_kind("cell", first)
    dock.session.checkpoint = "fine-tuned"
    draw(dock, "examples: dead (A)", BOXES[1])
    draw(dock, "not this (A)", BOXES[2])
    press(dock.segment)
    dock = new_dock(files[0])
    dock._viewer.layers.remove(dock._viewer.named("not this (A)"))
    draw(dock, "examples: cell (A)", (60.0, 20.0, 70.0, 30.0))
    press(dock.segment)
    assert dock.checkpoints == [None, "fine-tuned"]
    assert dock.session.checkpoint == "fine-tuned"
    assert shown(dock) == {f"examples: {first} (A)": 2, "examples: dead (A)": 1, "not this (A)": 1}
    assert [kind for _, _, kind in references(dock)] == [first, first, "dead", NOT_THIS]
    assert {box for _, box, _ in references(dock)} == {*BOXES, (60.0, 20.0, 70.0, 30.0)}


def test_all_widgets_of_a_process_have_one_session_which_is_saved_in_time(new_dock, files, monkeypatch, tmp_path):
    monkeypatch.setattr("fsis_jax.interactive.session._SAVE", 0.01)
    dock = new_dock(files[0])
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    wait_for(lambda: (tmp_path / "out" / SESSION_FILE).exists())
    assert not dock.output.enabled
    dock.session.unsaved = "no space"
    press(dock.undo)
    press(dock.redo)
    assert dock.message.value == "3 cells; no space"
    other = dock.module.Dock(dock._viewer)
    other.output.value = dock.output.value
    press(other.segment)
    assert other.session is dock.session
    assert shown(other) == {"examples: cell (A)": 1, "not this (A)": 0}


def test_a_session_that_cannot_be_loaded_is_not_held(new_dock, files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SESSION_FILE).write_text("{}")
    dock = new_dock(files[0])
    press(dock.segment)
    assert "no session" in dock.message.value
    assert dock.segment.enabled
    hold(tmp_path / "out").release()
    (tmp_path / "out" / SESSION_FILE).unlink()
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    assert dock.message.value == "3 cells"


def test_layers_of_one_name_are_images_of_their_own(new_dock, tmp_path):
    dock = new_dock(stand_ins.Image("Image", picture()))
    draw(dock, "examples: cell (Image)", BOXES[0])
    press(dock.segment)
    press(dock.missed)
    draw(dock, "missed cells (Image)", (70.0, 50.0, 79.0, 59.0))
    press(dock.missed)
    assert len(dock.session.result(dock._path()).added) == 1
    first, layers = dock._path(), dock._viewer.layers
    for pixels in (picture()[:, ::-1], np.pad(picture(), 5)):
        for layer in [layer for layer in layers if layer.visible]:
            layers.remove(layer)
        dock._viewer.add(stand_ins.Image("Image", pixels))
        draw(dock, "examples: cell (Image)", BOXES[0])
        press(dock.segment)
        assert dock._path() != first
        result = dock.session.result(dock._path())
        assert (result.found.size, result.added, result.verdicts) == (pixels.shape, (), {})
        assert dock._cells.data.shape == pixels.shape
    dock.session.save()
    assert len(list((tmp_path / "out/uploads").iterdir())) == 3
    dock = new_dock()
    press(dock.segment)
    assert "no image" in dock.message.value
    assert len(dock.session.state.results) == 3


def test_a_layer_that_gets_other_pixels_keeps_its_boxes_alone(new_dock, files, tmp_path):
    dock = new_dock(files[0])
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    files[0].data = 255 - files[0].data
    (tmp_path / "A.png").unlink()
    press(dock.segment)
    ((name, box, _),) = references(dock)
    assert name.startswith("A-")
    assert box == BOXES[0]
    assert shown(dock) == {"examples: cell (A)": 1, "not this (A)": 0}


def test_missed_cells_are_of_the_image_that_they_are_drawn_on(new_dock, files):
    dock = new_dock(*files)
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    dock.image.value = files[1]
    press(dock.missed)
    draw(dock, "missed cells (B)", (70.0, 50.0, 79.0, 59.0), (3.0, 3.0, 3.5, 3.5))
    press(dock.missed)
    assert "B: not segmented yet" in dock.message.value
    press(dock.segment)
    for _ in range(2):
        press(dock.missed)
        assert "a box of" in dock.message.value
    assert dock.session.result(dock._path()).added == ()
    dock._viewer.named("missed cells (B)").data = [rectangle((70.0, 50.0, 79.0, 59.0))]
    press(dock.missed)
    assert len(dock.session.result(dock._path()).added) == 1
    assert dock._viewer.named("missed cells (B)").data == []
    dock.image.value = files[0]
    assert dock.session.result(dock._path()).added == ()


def test_the_labels_lie_where_their_image_does(new_dock, files):
    files[1].scale, files[1].translate = np.array([2.0, 2.0]), np.array([5.0, 0.0])
    dock = new_dock(*files)
    draw(dock, "examples: cell (A)", BOXES[0])
    press(dock.segment)
    dock.image.value = files[1]
    assert dock._cells not in dock._viewer.layers
    press(dock.segment)
    assert dock._cells.scale.tolist() == [2, 2]
    assert dock._cells.translate.tolist() == [5, 0]
    dock.image.value = files[0]
    assert dock._cells.scale.tolist() == [1, 1]


def test_the_channel_of_a_layer_is_segmented_and_not_its_file(new_dock, tmp_path):
    stack = np.stack([picture()[:, ::-1], picture(), 0 * picture()])
    tifffile.imwrite(tmp_path / "three.ome.tif", stack, photometric="minisblack", metadata={"axes": "CYX"})
    dock = new_dock(stand_ins.Image("green", stack[1], path=str(tmp_path / "three.ome.tif")))
    draw(dock, "examples: cell (green)", BOXES[0])
    press(dock.segment)
    with dock.session.open(dock._path()) as image:
        np.testing.assert_array_equal(np.asarray(image), stack[1])
