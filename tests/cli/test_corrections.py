"""`fsis corrections`: corrected results become a folder that can be trained on."""

import json
import shlex

import cv2
import numpy as np
import pytest
import tifffile

from fsis_jax.data.coco import CocoSource
from fsis_jax.inference.instances import Instances
from fsis_jax.io.geojson import write_geojson
from fsis_jax.io.rois import write_rois
from fsis_jax.io.writers import write_labels
from fsis_jax.preprocess.windows import decode_columns


@pytest.fixture
def labels():
    """Of `image`: two cells."""
    cells = np.zeros((40, 50), np.int32)
    cells[4:16, 5:20] = 1
    cells[7:9, 8:11] = 0
    cells[20:34, 30:48] = 2
    return cells


@pytest.fixture
def image(labels, tmp_path):
    """A grey image of 16 bits; beside it `b.png` in colour and `c.png` with an alpha channel."""
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 4000, labels.shape).astype(np.uint16) + 1000)
    cv2.imwrite(str(tmp_path / "b.png"), rng.integers(0, 255, (*labels.shape, 3)).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "c.png"), rng.integers(0, 255, (*labels.shape, 4)).astype(np.uint8))
    return tmp_path / "a.tif"


def _masks(source, row):
    record = source.annotations[row]
    return [decode_columns(rle, record.height, 0, record.width).astype(bool) for rle in record.rles]


def test_any_image_with_a_file_of_any_form(fsis, image, labels, tmp_path):
    found = Instances.from_labels(labels)
    write_geojson(tmp_path / "a.geojson", found)
    write_rois(tmp_path / "b.zip", found)
    write_labels(tmp_path / "c-labels.tif", found)
    given = [("a.tif", "a.geojson"), ("b.png", "b.zip"), ("c.png", "c-labels.tif")]
    texts = [f"{tmp_path / name}={tmp_path / file}" for name, file in given]
    outcome = fsis("corrections", "--corrected", *texts, "-o", tmp_path / "data")
    assert outcome.status == 0, outcome
    told, following = outcome.stdout.splitlines()
    assert told == f"{tmp_path / 'data'}: 6 cells in 3 pictures, of 3 images"
    words = shlex.split(following.removeprefix("next: "))
    assert words[:4] == ["fsis", "train", "--config", "configs/few_images.py"]
    assert f"--config.data.root={tmp_path / 'data'}" in words
    assert "--config.training.steps=150" in words
    checked = fsis("data", "check", tmp_path / "data")
    assert checked.status == 0, checked
    assert ": no problems" in checked.stdout
    source = CocoSource(tmp_path / "data", "train")
    assert source.problems == ()
    assert source.categories == {1: "cell"}
    for row in range(3):
        for number, mask in enumerate(_masks(source, row), start=1):
            np.testing.assert_array_equal(mask, labels == number)
    written = tifffile.imread(tmp_path / "data/images" / source.annotations[0].file_name)
    np.testing.assert_array_equal(written, tifffile.imread(image))
    again = fsis("corrections", "--corrected", *texts, "-o", tmp_path / "data")
    assert again.status == 2
    assert "exists already" in again.stderr


def test_each_class_is_a_category(fsis, image, labels, tmp_path):
    write_geojson(tmp_path / "a.geojson", Instances.from_labels(labels))
    content = json.loads((tmp_path / "a.geojson").read_text())
    for feature, kind in zip(content["features"], ("living", "dead"), strict=True):
        feature["properties"]["classification"] = {"name": kind}
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    outcome = fsis("corrections", "--corrected", f"{image}={tmp_path / 'a.geojson'}", "-o", tmp_path / "data")
    assert outcome.status == 0, outcome
    source = CocoSource(tmp_path / "data", "train")
    names = [source.categories[category] for category in source.annotations[0].classes.tolist()]
    assert names == ["living", "dead"]
    assert fsis("data", "check", tmp_path / "data").status == 0
    write_labels(tmp_path / "b.tif", Instances.from_labels(labels))
    both = [f"{image}={tmp_path / 'a.geojson'}", f"{tmp_path / 'b.png'}={tmp_path / 'b.tif'}"]
    for pairs in (both, both[::-1]):
        outcome = fsis("corrections", "--corrected", *pairs, "-o", tmp_path / "mixed")
        assert outcome.status == 2
        assert "b.tif: its cells have no class, those of other images have (dead, living)" in outcome.stderr
    assert not (tmp_path / "mixed").exists()


@pytest.mark.usefixtures("quick_compile")
def test_results_in_a_folder(fsis, tiny_run, cell, tmp_path):
    grey, (x1, y1, x2, y2) = cell
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), grey if name == "a" else grey[:, ::-1])
    reference = ["--reference", f"{tmp_path / 'a.png'}:{x1},{y1},{x2},{y2}", "--checkpoint", tiny_run.workdir]
    out, options = tmp_path / "out", ["--min-score", "0", "--save", "labels", "geojson", "rois"]
    segmented = fsis("segment", tmp_path / "a.png", tmp_path / "b.png", *reference, *options, "-o", out)
    assert segmented.status == 0, segmented
    counts = [len(json.loads((out / f"{name}.geojson").read_text())["features"]) for name in "ab"]
    outcome = fsis("corrections", out, "-o", tmp_path / "first")
    assert outcome.status == 0, outcome
    assert f"{sum(counts)} cells in 2 pictures, of 2 images (2 as `fsis segment` wrote them)" in outcome.stdout

    # The result that was changed counts, whatever its kind.
    labels = np.zeros(grey.shape[:2], np.int32)
    labels[y1:y2, x1:x2] = 1
    write_labels(out / "a-labels.tif", Instances.from_labels(labels))
    outcome = fsis("corrections", out, "-o", tmp_path / "second")
    assert outcome.status == 0, outcome
    assert f"{1 + counts[1]} cells in 2 pictures, of 2 images (1 as `fsis segment` wrote it)" in outcome.stdout
    outcome = fsis("corrections", out, "--image", "a", "-o", tmp_path / "third")
    assert ": 1 cells in 1 pictures, of 1 image\n" in outcome.stdout
    (mask,) = _masks(CocoSource(tmp_path / "third", "train"), 0)
    np.testing.assert_array_equal(mask, labels == 1)

    # Two that were changed are ambiguous; a file that is named counts instead.
    write_geojson(out / "a.geojson", Instances.from_labels(labels * 0))
    outcome = fsis("corrections", out, "-o", tmp_path / "fourth")
    assert outcome.status == 2
    assert "a.geojson and " in outcome.stderr
    assert "were changed: name one by --corrected a=FILE" in outcome.stderr
    corrected = ["--corrected", f"a={out / 'a-labels.tif'}", "--image", "a"]
    assert ": 1 cells in 1" in fsis("corrections", out, *corrected, "-o", tmp_path / "fourth").stdout
    corrected = ["--corrected", f"a={out / 'a.geojson'}", "--image", "a"]
    outcome = fsis("corrections", out, *corrected, "-o", tmp_path / "fifth")
    assert outcome.status == 2
    assert "no cell in the corrected images" in outcome.stderr

    for arguments, message in (
        (["--image", "x"], "no results of 'x'; there are a, b"),
        (["--corrected", f"x={out / 'a.geojson'}"], "no results of 'x'; there are a, b"),
        (["--image", "b", "--channel", "2"], "of a file's only plane: leave out --channel"),
    ):
        outcome = fsis("corrections", out, *arguments, "-o", tmp_path / "sixth")
        assert outcome.status == 2
        assert message in outcome.stderr
    for file in ("b.geojson", "b-rois.zip", "b-labels.tif"):
        (out / file).unlink()
    outcome = fsis("corrections", out, "--image", "b", "-o", tmp_path / "sixth")
    assert "no outlines or labels of b: run `fsis segment` again with --save geojson" in outcome.stderr
    assert not (tmp_path / "sixth").exists()


def test_what_is_refused(fsis, image, tmp_path):
    (tmp_path / "a.geojson").write_text("{")
    for arguments, message in (
        ([], "nothing given: give OUT, a folder of results, or --corrected IMAGE=FILE"),
        (["--image", "a"], "--image a: give OUT, the folder with its results"),
        (["--corrected", "a.tif"], "--corrected a.tif: give IMAGE=FILE, like cells.tif=cells.geojson"),
        (["--corrected", "a.tif="], "give IMAGE=FILE"),
        (["--corrected", "a=b", "a=c"], "--corrected a=c: a has b already"),
        ([tmp_path / "none"], "no results: give the --output of `fsis segment`"),
        (["--corrected", f"{tmp_path / 'x.tif'}={tmp_path / 'a.geojson'}"], "x.tif: no such file"),
        (["--corrected", f"{image}={tmp_path / 'x.geojson'}"], "x.geojson: no such file"),
        (["--corrected", f"{image}={tmp_path / 'a.geojson'}"], "a.geojson: not JSON"),
    ):
        outcome = fsis("corrections", *arguments, "-o", tmp_path / "data")
        assert outcome.status == 2
        assert message in outcome.stderr
        assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
