"""`fsis export --to stablehlo`: its programs, run by examples/run_stablehlo.py, find what the Segmenter finds."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fsis_jax.checkpoints.runs import load_run
from fsis_jax.cli.converting import export
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.stablehlo import export_stablehlo
from fsis_jax.inference.traits import TRAITS, KindModel, measure
from fsis_jax.preprocess.transform_config import transform_config
from fsis_jax.preprocess.transforms import reference_image, resize

pytest.importorskip("flatbuffers", reason="needs the extra `export`")
pytestmark = pytest.mark.usefixtures("quick_compile")

BOX = (4, 6, 40, 42)
"""Larger than a cell, so that the whole image fits a canvas."""
RUNNER = pathlib.Path(__file__).parents[2] / "examples/run_stablehlo.py"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("run_stablehlo", RUNNER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tiny_run, quick_compile, tmp_path_factory):
    """What the command exports of the barely trained detector."""
    target = tmp_path_factory.mktemp("exported") / "model"
    export([str(tiny_run.workdir), "--to", "stablehlo", "--output", str(target)])
    return target


@pytest.fixture(scope="module")
def model(runner, folder):
    return runner.Exported(folder)


def _found(segmenter, image, references):
    ((_, found),) = segmenter.candidates([Job(image, references)])
    return found


def test_the_same_boxes_and_scores_as_the_segmenter(model, segmenter, cell):
    """Crops of the size that the network reads, and the scale 1: nothing is resized, which processors round apart."""
    image, (x, y, _, _) = cell
    side = transform_config(segmenter.config).reference_size
    top, left = (min(start, length - side) for start, length in zip((y, x), image.shape, strict=True))
    crop = image[top : top + side, left : left + side]
    pixels = transform_config(segmenter.config).reference_pixels
    sides = np.full((1, 2), pixels, np.float32)
    expected = _found(segmenter, image, segmenter.encode_references([crop], sides=sides))
    found = model.find(image, model.encode_crops([crop], sides))
    assert len(expected) > 0
    np.testing.assert_allclose(found["boxes"], expected.boxes, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["scores"], expected.scores, rtol=0, atol=1e-4)
    assert found["masks"].shape == (len(expected), 28, 28)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_brightness_counts_as_for_the_segmenter(runner, channels):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (60, 80, *channels)).astype(np.uint8)
    corners = rng.uniform(-9, 85, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.5, 25, (40, 2))], 1)
    traits = measure(levels, boxes)
    places = [TRAITS.index("brightness"), TRAITS.index("surroundings")]
    cells = runner.brightness(levels, boxes)
    np.testing.assert_allclose(cells, traits[:, places], atol=1e-5)
    for shown in (traits[:1], traits[5:9]):
        expected = KindModel(shown, np.zeros(len(shown), int), 1).faintness(traits)[:, 0]
        assert (expected > 0).any()
        np.testing.assert_allclose(runner.faintness(shown[:, places], cells), expected, atol=1e-4)


def test_boxes_score_as_for_the_segmenter(runner, folder, segmenter, monkeypatch):
    """Nothing is resized, as above; two grounds and two brightnesses of cells."""
    monkeypatch.setitem(segmenter.config.model.detections, "faintness", 2.0)
    model = runner.Exported(folder)
    monkeypatch.setitem(model.about, "faintness", 2.0)
    side = int(transform_config(segmenter.config).reference_pixels)
    image = np.full((64, 64), 30, np.uint8)
    image[8:side, 8:side], image[40:60, 30:50], image[10:20, 44:60] = 130, 255, 90
    box = (4, 4, 4 + side, 4 + side)
    expected = _found(segmenter, image, segmenter.encode_boxes(image, [box]))
    found = model.find(image, model.encode_boxes(image, [box]))
    assert len(expected) > 0
    np.testing.assert_allclose(found["boxes"], expected.boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["scores"], expected.scores, rtol=0, atol=1e-4)
    monkeypatch.setitem(model.about, "faintness", 0.0)
    assert model.find(image, model.encode_boxes(image, [box]))["scores"].sum() > expected.scores.sum() + 0.1


@pytest.mark.parametrize("image_type", ["uint8", "uint16", "float32", "colour"])
def test_images_are_prepared_as_by_the_segmenter(model, segmenter, cell, image_type):
    grey, _ = cell
    image = {
        "uint8": grey,
        "uint16": grey.astype(np.uint16) * 181 + 7,
        "float32": np.where(grey > 3, grey / np.float32(7), np.float32(np.nan)),
        "colour": np.stack([grey, grey[::-1], 255 - grey, grey], -1),
    }[image_type]
    plan = segmenter.plan(image, segmenter.encode_boxes(image, [BOX]))
    _, sides, _ = model.encode_boxes(image, [BOX])
    canvas, extent, scale = model.prepare(image, sides)
    assert (canvas.shape[:2], extent, scale) == (plan.canvas, plan.extent, pytest.approx(plan.scale, rel=1e-12))
    assert _most_apart(canvas, plan.prepare(plan.tiles[0])) <= 1


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("scale", [0.13, 0.25, 0.37, 0.5, 0.61, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("antialias", [True, False])
def test_it_resizes_as_opencv_does(runner, channels, scale, antialias):
    image = np.random.default_rng(3).integers(0, 256, (53, 70, *channels), np.uint8)
    expected = resize(image, scale, antialias=antialias)
    found = runner.resize(image, expected.shape[:2], (scale, scale), antialias and scale < 0.5)
    assert _most_apart(found, expected) <= 1


@pytest.mark.parametrize("size", [(20, 31), (64, 64), (90, 41), (97, 64)])
@pytest.mark.parametrize("legacy", [True, False])
def test_references_are_prepared_as_by_the_segmenter(runner, segmenter, size, legacy):
    crop = np.random.default_rng(4).integers(0, 256, size, np.uint8)
    config = transform_config(segmenter.config)
    config = type(config)(**{**vars(config), "intensity": "none", "legacy_reference_crop": legacy})
    square, side = runner.pad_to_square(crop, legacy), config.reference_size
    found = runner.resize(square, (side, side), (side / len(square),) * 2, config.antialias and side < len(square) / 2)
    assert _most_apart(runner.place(found, (side, side)), reference_image(crop, config)) <= 1


@pytest.mark.parametrize("offset", [0, 1])
def test_repeats_are_dropped_as_by_the_segmenter(runner, offset):
    rng = np.random.default_rng(5)
    corners = rng.uniform(-5, 70, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.5, 40, (60, 2))], axis=1).astype(np.float32)
    masks = rng.uniform(size=(60, 7, 7)).astype(np.float32) ** 0.5
    scores = np.linspace(1, 0, 60, dtype=np.float32)
    rows = np.arange(60, dtype=np.float32)[:, None, None]
    found = Instances.from_padded(boxes, scores, scores >= 0, masks, (64, 80), offset=offset, keypoints=rows)
    expected = found.without_repeats(0.4).keypoints.ravel()
    assert 0 < len(expected) < 60
    np.testing.assert_array_equal(runner.without_repeats(boxes, masks, (64, 80), 0.4, offset), expected)


def _most_apart(first, second):
    assert first.shape == second.shape
    return np.abs(first.astype(int) - second).max()


def test_the_runner_knows_nothing_of_fsis_jax(folder, cell, tmp_path):
    """As a program, where fsis_jax cannot be imported; its references are a box, as the file says."""
    np.save(tmp_path / "image.npy", cell[0])
    (tmp_path / "fsis_jax.py").write_text("raise ImportError('fsis_jax was imported')")
    about = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps(about | {"min_score": 0}))
    command = [sys.executable, RUNNER, folder, "image.npy", "--box", ",".join(map(str, BOX)), "--output", "found.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (folder / "detector.json").write_text(json.dumps(about))
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    lines = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(lines, np.c_[found["boxes"], found["scores"]], atol=0.006)
    assert "fsis_jax" not in RUNNER.read_text().replace("fsis_jax: NumPy", "").split('"""', 2)[2]


def test_the_description_says_what_the_programs_take(folder, segmenter):
    about = json.loads((folder / "detector.json").read_text())
    canvases = sorted(map(list, segmenter.config.data.test_canvases))
    assert [program["canvas"] for program in about["find"]["programs"]] == canvases
    files = {about["weights"], about["encode"]["program"], *(x["program"] for x in about["find"]["programs"])}
    assert files | {"detector.json"} == {path.name for path in folder.iterdir()}
    side = about["preprocessing"]["reference_size"]
    assert about["encode"]["inputs"]["crop"] == {"shape": [side, side, 3], "dtype": "uint8"}
    most = segmenter.config.model.detections.max_instances
    assert about["find"]["outputs"]["boxes"] == {"shape": [most, 4], "dtype": "float32"}
    assert about["platforms"] == ["cpu", "cuda", "tpu"]


def test_too_large_an_image_is_refused(model):
    with pytest.raises(SystemExit, match="too large for a canvas"):
        model.prepare(np.zeros((400, 400), np.uint8), np.array([[20.0, 20.0]]))


def test_a_folder_that_is_there_is_left_alone(tiny_run, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FsisError, match="exists already"):
        export_stablehlo(load_run(tiny_run.workdir), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_flatbuffers_the_extra_is_named(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FsisError, match=r'pip install "fsis_jax\[export\]"'):
        export_stablehlo(load_run(tiny_run.workdir), tmp_path / "out")
    assert not (tmp_path / "out").exists()
