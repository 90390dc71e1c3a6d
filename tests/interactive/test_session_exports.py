"""What is taken away from a session besides the files of `fsis segment`: training data."""

import json

import numpy as np
import pytest
import tifffile

from fsis_jax.data.coco import CocoSource
from fsis_jax.errors import FsisError
from fsis_jax.inference import training_data
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.training_data import CorrectedImage, write_training_data
from fsis_jax.interactive.exporting import export_images, export_training_data
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Added, Filters, Result, State
from fsis_jax.preprocess.cropped_mask import CroppedMask


@pytest.fixture
def corrected(session, folder):
    """A session in which a disc of `a.png` is found, one is marked as wrong and one is added."""
    path = str(folder / "a.png")
    crops = (ellipse((10.0, 5.0, 30.0, 25.0)), ellipse((20.0, 30.0, 40.0, 50.0)))
    boxes = np.array([crop.extent for crop in crops], np.float32)
    found = Instances(boxes, np.array([0.9, 0.8], np.float32), crops, (60, 80))
    added = CroppedMask(20, 50, ellipse((0.0, 0.0, 20.0, 20.0)).mask)
    result = Result(found, (), verdicts={1: "wrong"}, added=(Added(added),))
    session.history.change(lambda _: State(results={path: result, str(folder / "b.png"): Result(found, ())}))
    session.set_filters(Filters(0.5))
    return session


def test_corrections_become_training_data(corrected, folder, picture):
    task = export_training_data(corrected)
    task.wait()
    assert task.error == ""
    assert task.told == "out/training: 2 cells in 1 images, to train on (--config.data.root)"
    source = CocoSource(folder / "out/training", "train")
    assert source.problems == ()
    (annotations,) = source.annotations
    np.testing.assert_array_equal(
        np.sort(annotations.boxes, axis=0), np.array([[10, 5, 30, 25], [50, 20, 70, 40]], np.float32)
    )
    np.testing.assert_array_equal(tifffile.imread(folder / "out/training/images" / annotations.file_name), picture)
    corrected.mark(str(folder / "a.png"), 0, "wrong")
    export_training_data(corrected).wait()  # takes the place of the earlier one
    content = json.loads((folder / "out/training/annotations/train.json").read_text())
    assert len(content["annotations"]) == 1


def test_large_images_are_cut_into_windows(corrected, folder, monkeypatch):
    monkeypatch.setattr(training_data, "_SIDE", 30)
    export_training_data(corrected).wait()
    source = CocoSource(folder / "out/training", "train")
    assert len(source.annotations) > 2
    assert {(each.height, each.width) for each in source.annotations} <= {(30, 26), (30, 27)}
    areas = sum(each["area"] for each in json.loads(source.file.read_text())["annotations"])
    expected = 2 * np.count_nonzero(ellipse((0.0, 0.0, 20.0, 20.0)).mask)
    assert 0 <= expected - areas < 4 * training_data._LEAST


def test_no_cell_at_the_border_of_a_view_is_taken_for_background(folder):
    """Cells whose centre lies beyond it are not in the result of a view."""
    cells = [(20, 20), (60, 20), (91, 50), (30, 91)]  # x and y of squares of 20 pixels in an image of 120 x 110
    crops = [CroppedMask(y, x, np.ones((20, 20), bool)) for x, y in cells]
    there = np.zeros((110, 120), np.uint8)
    for crop in crops:
        there[crop.slices] = 1
    known = tuple(crops[:2])
    boxes = np.array([crop.extent for crop in known], np.float32)
    found = Instances(boxes, np.ones(2, np.float32), known, there.shape)
    view = CorrectedImage(there, found, (0.0, 0.0, 100.0, 100.0))
    assert write_training_data(folder / "data", [view]) == (1, 2)
    (file,) = (folder / "data/images").iterdir()
    pixels = tifffile.imread(file)
    assert pixels.shape == (90, 90)  # the image's own borders are where they were
    (annotations,) = CocoSource(folder / "data", "train").annotations
    for x1, y1, x2, y2 in annotations.boxes.astype(int):
        pixels[y1:y2, x1:x2] = 0
    assert not pixels.any()
    with pytest.raises(
        FsisError, match="no cell in the corrected images"
    ):  # of a view that is hardly larger than a cell
        write_training_data(folder / "data", [CorrectedImage(there, found, (25.0, 25.0, 45.0, 45.0))])


def test_nothing_corrected_is_told(session, corrected, folder):
    corrected.undo()
    with pytest.raises(FsisError, match="nothing was corrected yet"):
        export_training_data(session)
    with pytest.raises(FsisError, match="choose at least one kind"):
        export_images(session, [str(folder / "a.png")], [])
    with pytest.raises(FsisError, match="no image was segmented as a whole"):
        export_images(session, [], ["labels"])
