"""`fsis segment` and `fsis references` as a user gives them: what they read, and what they write."""

import csv
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pycocotools.mask
import pytest
import roifile
import shapely
import tifffile
from PIL import Image, PdfParser
from pycocotools.coco import COCO
from scripts_of_tests import TESTS

from fsis_jax.io.decoding import read_image

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def pictures(cell, tmp_path):
    """The image in several formats, and a crop of the cell."""
    grey, (x1, y1, x2, y2) = cell
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "rgba.png"), cv2.merge([grey, grey, grey, np.full_like(grey, 9)]))
    tifffile.imwrite(folder / "deep.tif", grey.astype(np.uint16) * 200)
    cv2.imwrite(str(folder / "photo.jpg"), cv2.merge([grey, grey, grey]))
    cv2.imwrite(str(tmp_path / "crop.png"), grey[y1:y2, x1:x2])
    whole = (folder / "grey.png").read_bytes()
    (folder / "hollow.png").write_bytes(whole[:33] + whole[-12:])  # sound chunks, but no pixels
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def segment(fsis, tiny_run, pictures, out, tmp_path):
    """`fsis segment` of pictures with the crop, into `out`, of any score."""

    def call(*names, references=("--references", "crop.png"), save="labels coco overlay", extra=()):
        paths = [pictures / name for name in names]
        references = [tmp_path / part if part.endswith((".png", ".refs")) else part for part in references]
        options = ["--checkpoint", tiny_run.workdir, "--output", out, "--min-score", "0", "--save", *save.split()]
        return fsis("segment", *paths, *references, *options, *extra)

    return call


def _written(folder):
    """Apart from what only serves another run."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".tiles")


# -- images -------------------------------------------------------------------------------------------------------


def test_images_of_any_format(segment, pictures, out, cell):
    names = ["grey.png", "rgba.png", "deep.tif", "photo.jpg"]
    outcome = segment(*names)
    assert outcome.status == 0, outcome.stderr
    counts = []
    for line, name in zip(outcome.stdout.splitlines(), names, strict=True):
        stem = pathlib.Path(name).stem
        labels = tifffile.imread(out / f"{stem}-labels.tif")
        assert labels.dtype == np.int32
        assert labels.shape == cell[0].shape
        counts.append(int(labels.max()))
        assert sorted(np.unique(labels)) == list(range(counts[-1] + 1))
        assert line == f"{pictures / name}: {counts[-1]} cells"
        overlay = read_image(out / f"{stem}-overlay.png")
        assert overlay.dtype == np.uint8
        assert overlay.ndim == 3
        results = COCO(out / f"{stem}-coco.json")
        assert [image["file_name"] for image in results.loadImgs(results.getImgIds())] == [name]
        rows = results.loadAnns(results.getAnnIds())
        assert len(rows) == counts[-1]
        assert all(0 <= row["score"] <= 1 for row in rows)
        assert all(pycocotools.mask.area(row["segmentation"]) == row["area"] > 0 for row in rows)
    assert counts[0] == counts[1] == counts[2] > 0  # the same pixels
    kinds = ("coco.json", "labels.tif", "overlay.png")
    stems = [pathlib.Path(name).stem for name in names]
    assert _written(out) == sorted(
        ["images.jsonl", "summary.csv", *(f"{stem}-{kind}" for stem in stems for kind in kinds)]
    )


def test_folders_and_patterns(segment, pictures, fsis):
    (pictures / "hollow.png").unlink()
    assert len(segment("").stdout.splitlines()) == 4
    assert len(segment("*.png", save="labels").stdout.splitlines()) == 2


def test_a_plane_of_a_stack(segment, pictures, out, cell):
    planes = np.stack([np.zeros_like(cell[0]), cell[0]])
    options = {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["empty", "DAPI"]}}}
    tifffile.imwrite(pictures / "stack.ome.tif", planes, photometric="minisblack", **options)
    error = segment("stack.ome.tif").error
    assert "axes CYX" in error
    assert "--channel 1..2 (empty, DAPI)" in error
    assert segment("stack.ome.tif", extra=("--channel", "dapi")).status == 0
    assert segment("grey.png").status == 0
    labels = tifffile.imread(out / "stack-dapi-labels.tif")
    np.testing.assert_array_equal(labels, tifffile.imread(out / "grey-labels.tif"))


def test_a_large_image_in_tiles(segment, pictures, out, cell):
    large = np.tile(cell[0], (2, 3))
    tifffile.imwrite(pictures / "large.tif", large)
    outcome = segment("large.tif", extra=("--tile", "64"))
    assert outcome.status == 0, outcome.stderr
    labels = tifffile.imread(out / "large-labels.tif")
    assert labels.shape == large.shape
    assert outcome.stdout == f"{pictures / 'large.tif'}: {labels.max()} cells\n"
    assert labels.max() > 8  # the most that the model gives at once
    assert not (out / "large.partial").exists()


def test_another_threshold_or_kind_of_output_needs_no_network(segment, pictures, out, cell, monkeypatch, caplog):
    tifffile.imwrite(pictures / "large.tif", np.tile(cell[0], (2, 3)))
    assert segment("large.tif", save="labels").status == 0
    cells = tifffile.imread(out / "large-labels.tif").max()

    def called(*_):
        raise AssertionError("the detector")

    monkeypatch.setattr("fsis_jax.inference.programs.find", called)
    assert segment("large.tif", save="table").status == 0
    assert len((out / "large-table.csv").read_text().splitlines()) == cells + 1
    stale = segment("large.tif", save="table", extra=("--min-score", "0.47"))
    assert stale.status == 0
    assert caplog.messages == [f"{out / 'large-labels.tif'}: of an earlier run with other references or settings"]
    assert len((out / "large-table.csv").read_text().splitlines()) < cells + 1


def test_an_image_without_a_cell_is_a_result_too(segment, out):
    outcome = segment("grey.png", save="all", extra=("--min-score", "1.01"))
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.endswith("grey.png: 0 cells\n")
    causes = outcome.stderr.splitlines()[-2:]
    first, second = sorted(causes)
    assert re.fullmatch(r"  scale: the references are \d+ pixels large, the image .*", first)
    assert re.fullmatch(
        r"  scores: the best of \d+ candidates has .*, and the threshold is 1.01: --min-score .*", second
    )
    again = segment("grey.png", save="all", extra=("--min-score", "1.01", "--json"))
    assert json.loads(again.stdout)["causes"] == [cause.strip() for cause in causes]
    assert not tifffile.imread(out / "grey-labels.tif").any()
    assert COCO(out / "grey-coco.json").getAnnIds() == []
    assert json.loads((out / "grey.geojson").read_text())["features"] == []
    assert len((out / "grey-table.csv").read_text().splitlines()) == 1


# -- references ---------------------------------------------------------------------------------------------------


def _labels(segment, out, *references):
    outcome = segment("grey.png", references=references, save="labels")
    assert outcome.status == 0, outcome.stderr
    return tifffile.imread(out / "grey-labels.tif")


def test_a_cell_is_shown_in_any_way(segment, pictures, out, cell, tmp_path):
    grey, (x1, y1, x2, y2) = cell
    expected = _labels(segment, out, "--references", "crop.png")
    assert expected.any()
    np.testing.assert_array_equal(
        _labels(segment, out, "--reference", f"{pictures}/grey.png:{x1},{y1},{x2},{y2}"), expected
    )
    mask = np.zeros(grey.shape, np.uint16)
    mask[y1:y2, x1:x2] = 3
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    np.testing.assert_array_equal(_labels(segment, out, "--reference-mask", f"{tmp_path}/mask.tif"), expected)
    ring = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    outline = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "cells.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [outline]}))
    np.testing.assert_array_equal(_labels(segment, out, "--reference-outlines", f"{tmp_path}/cells.geojson"), expected)
    roifile.ImagejRoi.frompoints(np.array(ring[:-1])).tofile(tmp_path / "cell.roi")
    np.testing.assert_array_equal(
        _labels(
            segment, out, "--reference-outlines", f"{tmp_path}/cell.roi", "--reference-image", f"{pictures}/grey.png"
        ),
        expected,
    )


def test_encoded_references_serve_again(fsis, segment, out, tiny_run, tmp_path):
    expected = _labels(segment, out, "--references", "crop.png")
    made = fsis(
        "references", "--references", tmp_path / "crop.png", "--checkpoint", tiny_run.workdir, "-o", tmp_path / "x.refs"
    )
    assert made.status == 0, made.stderr
    assert made.stdout == f"1 reference written to {tmp_path / 'x.refs'}\n"
    np.testing.assert_array_equal(_labels(segment, out, "--references", "x.refs"), expected)
    # The references are the same, and so are the results of the run before.
    assert len((out / "images.jsonl").read_text().splitlines()) == 1


def test_the_pixel_size_relates_references_to_images(segment, pictures, out, cell, tmp_path, caplog):
    """A crop at twice the magnification of the image, and one that is as large as the cell."""
    grey, (x1, y1, x2, y2) = cell
    cv2.imwrite(str(tmp_path / "fine.png"), cv2.resize(grey[y1:y2, x1:x2], None, fx=2, fy=2))
    with_sizes = ("--pixel-size", "0.5", "--reference-pixel-size", "0.25")
    told = segment("grey.png", references=("--references", "fine.png"), extra=with_sizes)
    assert told.status == 0
    centres = [_centres(out / "grey-labels.tif")]
    segment("grey.png")
    centres.append(_centres(out / "grey-labels.tif"))
    near = [np.hypot(*(centres[1] - centre).T).min() < 4 for centre in centres[0]]
    assert np.mean(near) > 0.7
    warned = segment("grey.png", references=("--references", "fine.png"), extra=("--reference-pixel-size", "0.25"))
    assert warned.status == 0
    assert "its pixel size is not known; taken for that of the references, 0.25 µm" in caplog.text


def _centres(path):
    labels = tifffile.imread(path)
    return np.array([np.argwhere(labels == label).mean(axis=0) for label in range(1, labels.max() + 1)])


# -- results ------------------------------------------------------------------------------------------------------


def test_every_kind_of_output_tells_the_same(segment, out, cell):
    outcome = segment("grey.png", save="all", extra=("--category", "Zelle ø", "--pixel-size", "0.5", "--json"))
    assert outcome.status == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    labels = tifffile.imread(told["files"]["labels"])
    count = told["cells"]
    assert labels.max() == count > 1
    rows = list(csv.DictReader(pathlib.Path(told["files"]["table"]).read_text().splitlines()))
    assert [int(row["area_px"]) for row in rows] == np.bincount(labels.ravel())[1:].tolist()
    assert float(rows[0]["area_um2"]) == pytest.approx(int(rows[0]["area_px"]) / 4, rel=1e-3)
    features = json.loads(pathlib.Path(told["files"]["geojson"]).read_text())["features"]
    areas = [shapely.geometry.shape(feature["geometry"]).area for feature in features]
    assert areas == [int(row["area_px"]) for row in rows]
    assert {feature["properties"]["classification"]["name"] for feature in features} == {"Zelle ø"}
    assert len(roifile.roiread(told["files"]["rois"])) == count
    coco = COCO(told["files"]["coco"])
    assert [row["area"] for row in coco.loadAnns(coco.getAnnIds())] == areas
    assert coco.loadCats(1)[0]["name"] == "Zelle ø"


def test_a_pdf_has_a_page_for_each_image(segment, out):
    assert segment("grey.png", "photo.jpg", save="table", extra=("--pdf",)).status == 0
    with PdfParser.PdfParser(str(out / "overlays.pdf")) as pdf:
        assert len(pdf.pages) == 2
    with Image.open(out / "grey-overlay.png") as overlay:
        assert overlay.width > 100


def test_what_is_done_is_not_done_again(segment, pictures, out):
    assert segment("grey.png", "rgba.png").status == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    again = segment("grey.png", "rgba.png", "deep.tif")
    assert len(again.stdout.splitlines()) == 3
    after = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    assert [path.name for path in before if after[path] != before[path]] == ["images.jsonl", "summary.csv"]
    # Another image under the name, another threshold, a result that was deleted: each is made again.
    cv2.imwrite(str(pictures / "rgba.png"), np.zeros((70, 70), np.uint8))
    (out / "deep-labels.tif").unlink()
    assert segment("grey.png", "rgba.png", "deep.tif").status == 0
    assert tifffile.imread(out / "rgba-labels.tif").shape == (70, 70)
    assert (out / "deep-labels.tif").exists()
    assert (out / "grey-labels.tif").stat().st_mtime_ns == before[out / "grey-labels.tif"]
    assert segment("grey.png", extra=("--min-score", "0.9")).status == 0
    assert (out / "grey-labels.tif").stat().st_mtime_ns != before[out / "grey-labels.tif"]


def test_a_failing_image_is_told_at_the_end_and_stops_no_other(segment, out):
    outcome = segment("grey.png", "hollow.png", "photo.jpg")
    assert outcome.error == outcome.stderr.strip()
    assert "hollow.png: damaged or unknown image data" in outcome.error
    assert outcome.error.endswith(f"; {out} has the results of the others (2)")
    assert [line.split(":")[0].rsplit("/")[-1] for line in outcome.stdout.splitlines()] == ["grey.png", "photo.jpg"]
    assert not list(out.glob("hollow*"))


def test_a_full_disk_leaves_no_half_written_output(segment, monkeypatch, out):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("fsis_jax.io.atomic.os.fsync", full)
        error = segment("grey.png", "photo.jpg").error
    assert "grey-labels.tif: cannot be written (No space left on device): free some space" in error
    assert _written(out) == []
    assert (out / ".tiles" / "grey").exists()  # which need not be segmented again
    assert segment("grey.png", "photo.jpg").status == 0
    assert not (out / "grey.partial").exists()


def test_an_error_of_a_script_is_exactly_one_line(pictures, out, tmp_path):
    command = [sys.executable, TESTS.parent / "scripts" / "segment.py", pictures / "none.png", "--references"]
    result = subprocess.run(
        [*command, tmp_path / "crop.png", "--checkpoint", "none", "--output", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == f"fsis: error: {pictures / 'none.png'}: no such file: check the path\n"
    assert result.stdout == ""


# -- interruptions ------------------------------------------------------------------------------------------------


STOPPING = """
import signal
from fsis_jax.cli import main
from fsis_jax.inference.journal import Journal

add = Journal.add

def add_and_wait(journal, *tile):
    add(journal, *tile)
    if journal.path.stat().st_size > 20_000:
        signal.pause()

Journal.add = add_and_wait
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""`fsis`, which waits for a signal after some tiles. A shell lets background jobs ignore Ctrl-C; this one does not."""


@pytest.mark.parametrize(
    "how", [signal.SIGINT, *(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGTERM, signal.SIGKILL))]
)
def test_an_interrupted_image_goes_on_where_it_stopped(segment, pictures, out, cell, tiny_run, tmp_path, how):
    tifffile.imwrite(pictures / "large.tif", np.tile(cell[0], (6, 6)))
    whole = segment("large.tif", save="labels table")
    assert whole.status == 0, whole.stderr
    expected = {name: (out / name).read_bytes() for name in ("large-labels.tif", "large-table.csv")}
    shutil.rmtree(out)
    arguments = [pictures / "large.tif", "--references", tmp_path / "crop.png", "--checkpoint", tiny_run.workdir]
    options = ["--output", out, "--min-score", "0", "--save", "labels", "table"]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING, "segment", *arguments, *options], stderr=subprocess.PIPE, text=True
    )
    journal = out / ".tiles" / "large"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 20_000):
        time.sleep(0.02)
    process.send_signal(how)
    _, stderr = process.communicate()
    assert not (out / "large-labels.tif").exists()
    assert (out / "large.lock").exists() == (how == signal.SIGKILL)
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "tiles are done; their cells are in" in stderr
        assert stderr.endswith("fsis: stopped; what was written is complete\n")
        partial = tifffile.imread(out / "large.partial" / "large-labels.tif")
        assert partial.shape == tuple(6 * side for side in cell[0].shape)
        assert partial.any()
    size = journal.stat().st_size
    assert size > 20_000
    assert segment("large.tif", save="labels table").status == 0
    assert {name: (out / name).read_bytes() for name in expected} == expected
    assert _written(out) == ["images.jsonl", "large-labels.tif", "large-table.csv", "summary.csv"]
