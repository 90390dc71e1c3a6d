"""Images, names and values that are unusual, but no error: the results are whole."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import roifile
import tifffile
from PIL import Image
from pycocotools.coco import COCO
from spoilt_images import ome_zarr

from fsis_jax.errors import printable

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")

REST = "--references crop.png --checkpoint W --output out --min-score 0 --save all"


def _checked(outcome, out, name, shape):
    """The number of cells of an image whose results of all kinds are there and tell the same."""
    assert outcome.status == 0, outcome
    labels = tifffile.imread(out / f"{name}-labels.tif")
    assert labels.shape == shape
    assert labels.dtype == np.int32
    count = int(labels.max())
    assert len(list(csv.DictReader((out / f"{name}-table.csv").read_text().splitlines()))) == count
    assert len(json.loads((out / f"{name}.geojson").read_text())["features"]) == count
    assert len(COCO(out / f"{name}-coco.json").anns) == count
    rois = roifile.roiread(out / f"{name}-rois.zip") if count else []
    assert len(rois) == count
    with Image.open(out / f"{name}-overlay.png") as overlay:
        overlay.load()
    return count


def _with(place, value):
    def change(grey):
        changed = grey.astype(np.float32)
        changed[place] = value
        return changed

    return change


IMAGES = {
    "nan": _with((slice(10, 20), slice(0, 30)), np.nan),
    "infinite": _with((slice(10, 12), slice(0, 30)), np.inf),
    "minus infinite": _with((0, 0), -np.inf),
    "all nan": _with(..., np.nan),
    "all infinite": _with(..., np.inf),
    "zero": np.zeros_like,
    "constant": lambda grey: np.full_like(grey, 200),
    "constant float": lambda grey: np.full(grey.shape, -1e30),
    "one row": lambda grey: grey[20:21],
    "one column": lambda grey: grey[:, 20:21],
    "one pixel": lambda grey: grey[:1, :1],
    "two pixels": lambda grey: grey[:1, :2],
    "long": lambda grey: np.tile(grey[:3], (1, 40)),
    "bool": lambda grey: grey > 100,
    "int8": lambda grey: (grey.astype(int) - 128).astype(np.int8),
    "int16": lambda grey: grey.astype(np.int16) * 250 - 32_000,
    "uint32": lambda grey: grey.astype(np.uint32) << 24,
    "int64": lambda grey: grey.astype(np.int64) * -(1 << 50),
    "uint64": lambda grey: grey.astype(np.uint64) << 56,
    "float16": lambda grey: grey.astype(np.float16),
    "float64": lambda grey: grey / 1e300,
    "enormous floats": lambda grey: (grey / 255 - 0.5) * np.finfo(np.float64).max * 2,
    "big-endian": lambda grey: grey.astype(">u2"),
}


@pytest.mark.parametrize("change", IMAGES.values(), ids=IMAGES)
def test_odd_pixels(fsis, desk, cell, change):
    image = change(cell[0])
    options = {"byteorder": ">"} if image.dtype.byteorder == ">" else {}
    tifffile.imwrite(desk / "x.tif", image, photometric="minisblack", **options)
    count = _checked(fsis("segment", "x.tif", *REST.split()), desk / "out", "x", image.shape)
    finite = image[np.isfinite(image)]
    assert (count > 0) == (len(finite) > 0 and finite.min() < finite.max())  # of any score


SIZES = ["0.0001", "0.001", "1000", "10000"]


@pytest.mark.parametrize("size", SIZES)
def test_odd_sizes_of_pixels(fsis, desk, cell, size):
    """Hardly those of the image, but it is taken as it is told."""
    outcome = fsis("segment", "good.png", *REST.split(), "--pixel-size", size, "--reference-pixel-size", "1")
    _checked(outcome, desk / "out", "good", cell[0].shape)


def test_the_folder_of_an_image_is_the_working_folder(fsis, desk, cell, monkeypatch):
    ome_zarr(desk / "x.zarr", cell[0])
    monkeypatch.chdir(desk / "x.zarr")
    options = ["--references", "../crop.png", "--checkpoint", "../W", "--output", "../out", "--min-score", "0"]
    outcome = fsis("segment", ".", *options, "--save", "all")
    _checked(outcome, desk / "out", "x", cell[0].shape)


def test_encoded_references_of_another_magnification(fsis, desk):
    """A size of pixels that was not known when they were encoded, or that was told wrongly."""
    assert fsis("references", "--references", "crop.png", "--checkpoint", "W", "-o", "x.refs").status == 0
    results = []
    for references in ("crop.png", "x.refs"):
        command = REST.replace("crop.png", references).split()
        assert fsis("segment", "good.png", *command, "--pixel-size", "1", "--reference-pixel-size", "2").status == 0
        results.append((desk / "out" / "good.geojson").read_bytes())
    assert results[0] == results[1]
    assert fsis("segment", "good.png", *command, "--pixel-size", "1").status == 0
    assert (desk / "out" / "good.geojson").read_bytes() != results[0]


NAMES = [
    "two words.png",
    'it\'s "quoted".png',
    "Zellkern ø 中 🔬.png",
    "e\u0301.png",
    "-leading.png",
    "C:1,2,3,4.png",
    "a%20%s{}b.png",
    "[1].png",
    "*.png",
    "a.b.c.png",
    "name",
    "UPPER.PNG",
    ".hidden.png",
    "tab\there.png",
    "line\nbreak.png",
    "\x1b[31mred.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(fsis, desk, cell, name):
    (desk / "good.png").rename(desk / name)
    stem = name.removesuffix(".png").removesuffix(".PNG")
    _, (x1, y1, x2, y2) = cell
    options = REST.replace("--references crop.png", "").split()
    outcome = fsis("segment", *options, "--pdf", f"--reference={name}:{x1},{y1},{x2},{y2}", "--", name)
    count = _checked(outcome, desk / "out", stem, cell[0].shape)
    assert outcome.stdout == f"{printable(name)}: {count} cells\n"
    coco = json.loads((desk / "out" / f"{stem}-coco.json").read_text())
    assert coco["images"][0]["file_name"] == name
    assert (desk / "out" / "overlays.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_the_terminal_cannot_show(desk, cell, encoding):
    """Bytes that are not UTF-8, from an old disk, and letters beyond ASCII."""
    names = [os.fsdecode(b"caf\xe9.png"), "Zelle ø.png"]
    empty = os.fsdecode(b"b\xe9.png")
    (desk / empty).write_bytes(b"")
    (desk / "text.png").write_text("cells")
    for name in names:
        (desk / name).write_bytes((desk / "good.png").read_bytes())
    images = [*names, empty, "text.png"]
    result = subprocess.run(
        [sys.executable, "-c", "from fsis_jax.cli import main; main()", "segment", *images, *REST.split(), "--pdf"],
        env={**os.environ, "PYTHONIOENCODING": encoding, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    lines = result.stderr.decode().splitlines()
    assert lines[0].startswith("failed: b\\udce9.png: the file is empty: ")
    assert lines[1].startswith("failed: text.png: not a PNG, JPEG or TIFF file: ")
    told = f"2 of 4 images failed, as told above; {desk / 'out'} has the results of the others (2)"
    assert lines[2:] == [f"fsis: error: {told}"]
    first, second = result.stdout.splitlines()
    assert first.startswith(b"caf\\udce9.png: ")
    assert second.startswith("Zelle ø.png: ".encode(encoding, "backslashreplace"))
    for name in names:
        stem = name.removesuffix(".png")
        assert tifffile.imread(desk / "out" / f"{stem}-labels.tif").shape == cell[0].shape
        ids = [part["id"] for part in json.loads((desk / "out" / f"{stem}.geojson").read_text())["features"]]
        assert len(set(ids)) == len(ids) > 0
    assert not [path for path in (desk / "out").iterdir() if path.name.startswith("b")]
