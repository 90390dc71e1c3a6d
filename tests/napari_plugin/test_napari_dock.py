"""The dock widget in napari's own viewer: boxes, segmenting, the slider, clicks, export."""

import dataclasses
import json

import pytest

pytest.importorskip("napari", reason="the plugin needs the extra `napari`")
pytest.importorskip("pytestqt", reason="its tests need pytest-qt")

import npe2
import numpy as np
from tiny import get_config
from tiny_detector import tiny_detector

from fsis_jax.checkpoints.weights import Trained, save_weights
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.traits import TRAITS
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import NOT_THIS
from fsis_jax.napari.dock import MISSED, Dock
from fsis_jax.napari.layers import rectangle
from fsis_jax.pretrained import VARIABLE

pytestmark = [pytest.mark.usefixtures("quick_compile"), pytest.mark.filterwarnings("default")]

BOXES = ((10.0, 5.0, 31.0, 26.0), (20.0, 30.0, 41.0, 51.0), (50.0, 20.0, 71.0, 41.0))
"""Around the discs of `picture`."""
MILLISECONDS = 200_000


def discs(segmenter, job, tile, advance):
    """In the place of the network: a disc in each box, with a score and, if the references have kinds, one of each."""
    advance(0, 1)
    crops = tuple(map(ellipse, BOXES))
    boxes = np.array([crop.extent for crop in crops], np.float32)
    names, classes = job.references.kinds, np.array([0, 1, 0], np.int32)
    evidence = np.where(np.eye(max(len(names), 1) + 1)[classes if names else 0 * classes] > 0, 3, -3).astype(np.float32)
    evidence[:, -1] = 1
    measured = {"evidence": evidence, "traits": np.zeros((3, len(TRAITS)), np.float32)}
    found = Instances(boxes, np.array([0.9, 0.8, 0.3], np.float32), crops, job.image.shape[:2], **measured)
    if not names:
        return found
    kinds = np.eye(len(names) + 1, dtype=np.float32)[classes] * found.scores[:, None]
    kinds[:, -1] = 1 - found.scores
    unwanted = job.references.unwanted
    return dataclasses.replace(found, names=names, classes=classes, kind_scores=kinds, unwanted=unwanted)


@pytest.fixture
def picture():
    rows, columns = np.mgrid[:60, :80]
    pixels = np.random.default_rng(0).integers(0, 60, (60, 80))
    for y, x in ((15, 20), (40, 30), (30, 60)):
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < 100] += 190
    return pixels.astype(np.uint8)


@pytest.fixture
def dock(make_napari_viewer, picture, tmp_path, monkeypatch):
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
    viewer.add_image(picture, name="discs", scale=(0.5, 0.5))
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
    assert [layer.name for layer in viewer.layers] == ["discs", "examples: cell", "not this"]
    finish(dock, qtbot, dock.segment)
    assert "no example yet" in dock.message.value
    viewer.layers["examples: cell"].add_rectangles(rectangle(BOXES[0]))
    finish(dock, qtbot, dock.segment)
    session = dock.session
    assert [reference.box for reference in session.state.references] == [BOXES[0]]
    cells, result = viewer.layers["cells"], session.result(dock._shown)
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
    assert "examples: dead" in viewer.layers
    viewer.layers["examples: dead"].add_rectangles(rectangle(BOXES[1]))
    viewer.layers["not this"].add_rectangles(rectangle(BOXES[2]))
    finish(dock, qtbot, dock.segment)
    assert [reference.kind for reference in session.state.references] == ["cell", "dead", NOT_THIS]
    cells, result = viewer.layers["cells"], session.result(dock._shown)
    assert set(cells.features["kind"]) <= {"cell", "dead"}
    row = 0
    crop = result.found.masks[row]
    ys, xs = np.nonzero(crop.mask)
    x, y = crop.x + int(xs[0]), crop.y + int(ys[0])
    dock.tool.value = "wrong"
    assert viewer.layers.selection.active is cells
    click(dock, x, y)
    assert session.result(dock._shown).verdicts == {row: "wrong"}
    assert row + 1 not in cells.features["index"].tolist()
    dock.undo.native.click()
    assert row + 1 in cells.features["index"].tolist()
    dock.tool.value, dock.kind.value = "other kind", "dead"
    click(dock, x, y)
    assert cells.features.set_index("index")["kind"][row + 1] == "dead"
    dock.missed.native.click()
    viewer.layers[MISSED].add_rectangles(rectangle((0.0, 50.0, 8.0, 58.0)))
    dock.missed.native.click()
    assert len(viewer.layers[MISSED].data) == 0
    assert (session.result(dock._shown).added or session.result(dock._shown).verdicts)[0]
    dock.files.value = ["geojson", "labels"]
    finish(dock, qtbot, dock.export)
    assert "discs.geojson" in dock.message.value
    exported = json.loads((tmp_path / "out/discs.geojson").read_text())["features"]
    assert len(exported) == len(session.result(dock._shown).counted(session.filters).without_overlaps())
