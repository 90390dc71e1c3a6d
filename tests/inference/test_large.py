"""A slide of 20000x20000 pixels: memory, and the same result after the process was killed half-way."""

import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

SIDE = 20_000
_HALF = 900_000
"""Bytes of the journal when about half of the tiles are done."""
_BLOCK = 1000
_CELLS = (np.hypot(*(np.mgrid[-14:14, -14:14] + 0.5)) < 13.5) * np.uint8(110)


def _tissue(rng):
    """(_BLOCK, _BLOCK) uint8 with cells of 27 pixels."""
    block = np.full((_BLOCK, _BLOCK), 60, np.uint8)
    for y in range(10, _BLOCK - 50, 40):
        for x in range(10, _BLOCK - 50, 40):
            if rng.random() < 0.8:
                dy, dx = rng.integers(0, 10, 2)
                block[y + dy : y + dy + 28, x + dx : x + dx + 28] += (_CELLS * rng.uniform(0.6, 1)).astype(np.uint8)
    return block


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A pyramidal, tiled, compressed OME-TIFF of which a third is tissue; and which blocks are."""
    rng = np.random.default_rng(0)
    blocks = [_tissue(rng) for _ in range(6)]
    places = rng.random((SIDE // _BLOCK, SIDE // _BLOCK)) < 0.33
    places[0, 0] = True
    image = np.full((SIDE, SIDE), 60, np.uint8)
    for row, column in np.argwhere(places):
        image[row * _BLOCK : (row + 1) * _BLOCK, column * _BLOCK : (column + 1) * _BLOCK] = blocks[rng.integers(6)]
    noise = rng.integers(0, 4, (256, SIDE), np.uint8)
    for top in range(0, SIDE, 256):
        image[top : top + 256] += noise[: SIDE - top]
    path = tmp_path_factory.mktemp("large") / "slide.ome.tif"
    options = {"tile": (512, 512), "compression": "zlib", "compressionargs": {"level": 1}, "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        physical = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        tiff.write(image, subifds=4, metadata=physical, **options)
        level = image
        for _ in range(4):
            level = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2).mean((1, 3)).astype(np.uint8)
            tiff.write(level, subfiletype=1, **options)
    return path, places


def _start(run, path, output):
    script = pathlib.Path(__file__).with_name("large.py")
    arguments = [run.workdir, path, "12,12,48,48", output]
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_slide_goes_through_in_little_memory_and_survives_being_killed(slide, tiny_run, tmp_path):
    path, places = slide
    process = _start(tiny_run, path, tmp_path / "whole")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    whole = json.loads(stdout)
    assert whole["error"] == ""
    assert whole["tiles"] == [1225, 1225]
    assert whole["cells"] > 3000
    assert whole["megabytes"] < 2000, whole
    labels = tifffile.imread(tmp_path / "whole" / "slide-labels.tif")
    assert labels.shape == (SIDE, SIDE)
    assert labels.max() == whole["cells"]
    found = labels.reshape(SIDE // _BLOCK, _BLOCK, SIDE // _BLOCK, _BLOCK).any(axis=(1, 3))
    assert found[places].all()
    del labels

    process = _start(tiny_run, path, tmp_path / "killed")
    journal = tmp_path / "killed" / ".tiles" / "slide"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > _HALF):
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert sorted(entry.name for entry in (tmp_path / "killed").iterdir()) == [".tiles", "slide.lock"]
    process = _start(tiny_run, path, tmp_path / "killed")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["cells"] == whole["cells"]
    for name in ("slide-labels.tif", "slide-table.csv", "slide.geojson", "slide-overlay.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
