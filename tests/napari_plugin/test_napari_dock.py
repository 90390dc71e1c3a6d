"""The dock widget in napari's own viewer: boxes, segmenting, the slider, clicks, export."""

import json

import pytest

pytest.importorskip("napari", reason="the plugin needs the extra `napari`")
pytest.importorskip("pytestqt", reason="its tests need pytest-qt")

import npe2
import numpy as np
from discs import BOXES, discs, picture
from tiny import get_config
from tiny_detector import tiny_detector

from fsis_jax.checkpoints.weights import Trained, save_weights
from fsis_jax.interactive.state import NOT_THIS
from fsis_jax.napari.dock import Dock
from fsis_jax.napari.layers import rectangle
from fsis_jax.pretrained import VARIABLE

pytestmark = [pytest.mark.usefixtures("quick_compile"), pytest.mark.filterwarnings("default")]

MILLISECONDS = 200_000


@pytest.fixture
def dock(make_napari_viewer, tmp_path, monkeypatch):
    """Beside an image layer without a file."""
    config = get_config()
    weights = tmp_path / "random.npz"
    save_weights(weights, Trained.of(tiny_detector(config), config, {"min_score": 0.0}))
    monkeypatch.setenv(VARIABLE, str(weights))
    monkeypatch.setattr("fsis_jax.interactive.session.find_all", discs)
    viewer = make_napari_viewer()
    dock = Dock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.output.value = tmp_path / "out"
    viewer.add_image(picture(), name="discs", scale=(0.5, 0.5))
    return dock


def finish(dock, qtbot, press):
    press.native.click()
    qtbot.waitUntil(lambda: dock.segment.enabled, timeout=MILLISECONDS)


def click(dock, x, y):
    """On a pixel of the Labels layer, as napari tells it."""
    event = type("Event", (), {"type": "mouse_press", "position": (0.5 * y, 0.5 * x)})()
    for _ in dock._click(dock._cells, event):
        event.type = "mouse_release"


def test_the_plugin_is_found_and_offers_its_sample():
    manifest = npe2.PluginManifest.from_distribution("fsis_jax")
    assert [each.display_name for each in manifest.contributions.widgets] == ["Segment cells by showing some"]
    assert manifest.contributions.sample_data[0].key == "cells"


def test_point_segment_correct_and_export(dock, qtbot, tmp_path):
    viewer = dock._viewer
    assert [layer.name for layer in viewer.layers] == ["discs", "examples: cell (discs)", "not this (discs)"]
    finish(dock, qtbot, dock.segment)
    assert "no example yet" in dock.message.value
    viewer.layers["examples: cell (discs)"].add_rectangles(rectangle(BOXES[0]))
    finish(dock, qtbot, dock.segment)
    session = dock.session
    assert [reference.box for reference in session.state.references] == [BOXES[0]]
    cells, result = viewer.layers["cells"], session.result(dock._path())
    assert cells.scale.tolist() == [0.5, 0.5]
    assert len(cells.features) == len(result.found) == 3
    assert sorted(np.unique(cells.data).tolist()) == [0, *range(1, len(result.found) + 1)]
    # The slider, without the network.
    dock.score.value = float(np.ceil(100 * np.median(result.found.scores)) / 100)
    kept = int(result.kept(session.filters).sum())
    assert kept < len(result.found)
    assert len(cells.features) == kept
    dock.score.value = 0
    # A kind more, by which the first one gets its name, and what is not wanted.
    dock.new_kind.value = "dead"
    dock.add.native.click()
    assert "examples: dead (discs)" in viewer.layers
    viewer.layers["examples: dead (discs)"].add_rectangles(rectangle(BOXES[1]))
    viewer.layers["not this (discs)"].add_rectangles(rectangle(BOXES[2]))
    finish(dock, qtbot, dock.segment)
    assert [reference.kind for reference in session.state.references] == ["cell", "dead", NOT_THIS]
    cells, result = viewer.layers["cells"], session.result(dock._path())
    assert set(cells.features["kind"]) <= {"cell", "dead"}
    row = 0
    crop = result.found.masks[row]
    ys, xs = np.nonzero(crop.mask)
    x, y = crop.x + int(xs[0]), crop.y + int(ys[0])
    dock.tool.value = "wrong"
    assert viewer.layers.selection.active is cells
    click(dock, x, y)
    assert session.result(dock._path()).verdicts == {row: "wrong"}
    assert row + 1 not in cells.features["index"].tolist()
    dock.undo.native.click()
    assert row + 1 in cells.features["index"].tolist()
    dock.tool.value, dock.kind.value = "other kind", "dead"
    click(dock, x, y)
    assert cells.features.set_index("index")["kind"][row + 1] == "dead"
    dock.missed.native.click()
    viewer.layers["missed cells (discs)"].add_rectangles(rectangle((0.0, 50.0, 8.0, 58.0)))
    dock.missed.native.click()
    assert len(viewer.layers["missed cells (discs)"].data) == 0
    assert (session.result(dock._path()).added or session.result(dock._path()).verdicts)[0]
    dock.files.value = ["geojson", "labels"]
    finish(dock, qtbot, dock.export)
    (file,) = (tmp_path / "out").glob("discs-*.geojson")
    assert file.name in dock.message.value
    exported = json.loads(file.read_text())["features"]
    assert len(exported) == len(session.result(dock._path()).counted(session.filters).without_overlaps())


def test_each_image_has_layers_of_its_own(dock, qtbot):
    viewer = dock._viewer
    viewer.add_image(picture()[:, ::-1], name="mirrored")
    viewer.layers["examples: cell (discs)"].add_rectangles(rectangle(BOXES[0]))
    dock.image.value = viewer.layers["mirrored"]
    assert not viewer.layers["examples: cell (discs)"].visible
    assert viewer.layers["examples: cell (mirrored)"].visible
    dock.new_kind.value = "dead"
    finish(dock, qtbot, dock.add)
    viewer.layers["examples: dead (mirrored)"].add_rectangles(rectangle(BOXES[1]))
    finish(dock, qtbot, dock.segment)
    assert [reference.kind for reference in dock.session.state.references] == ["dead"]
    assert viewer.layers["cells"].scale.tolist() == [1, 1]
    viewer.layers.remove("mirrored")
    assert dock.image.value is viewer.layers["discs"]
    assert viewer.layers["examples: cell (discs)"].visible
    assert not viewer.layers["examples: dead (mirrored)"].visible
    assert "cells" not in viewer.layers
    finish(dock, qtbot, dock.segment)
    assert [reference.kind for reference in dock.session.state.references] == ["cell", "dead"]
    assert viewer.layers["cells"].scale.tolist() == [0.5, 0.5]
    # Another widget in the place of a closed one goes on with the session.
    other = Dock(viewer)
    other.output.value = dock.output.value
    finish(other, qtbot, other.segment)
    assert other.session is dock.session
    assert len(viewer.layers["examples: cell (discs)"].data) == 1
    viewer.layers.clear()
    assert dock.image.value is None
