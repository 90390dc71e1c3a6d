"""Small files that would take gigabytes or minutes: each is refused in one line, soon, and without the memory."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from scripts_of_tests import TESTS

_MOST_SECONDS, _MOST_MEGABYTES = 1.0, 200


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, tuple[str, float, float]]:
    """What bombs.py tells of each: the message, the seconds of the processor, the megabytes."""
    folder = tmp_path_factory.mktemp("bombs")
    for what in "make", "open":
        command = [sys.executable, pathlib.Path(TESTS, "io", "bombs.py"), what, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("png", r"x\.png: declares 16384x16384 pixels: save it as a tiled TIFF"),
        ("tile", r"x\.tif: damaged data \(a part of 64 x 64 pixels that declares 65500 x 65500\): copy or"),
        ("zarr3", r"x\.zarr: damaged data \(a chunk of other than the 1024 bytes that it should have\): copy or"),
        ("zarr2", r"y\.zarr: damaged data \(a chunk of other than the 1024 bytes that it should have\): copy or"),
        ("shard", r"z\.zarr: damaged data \(a chunk of other than the 1024 bytes that it should have\): copy or"),
        ("SizeT", r"t\.tif: truncated or damaged TIFF \(planes Z, C, T 1 x 1 x 300000000, in a part 4\): copy or"),
        ("PlaneCount", r"p\.tif: truncated or damaged TIFF \(planes .* in a part 1000000000\): copy or"),
        ("roi", r"x\.zip: 'a\.roi': not ImageJ ROIs, or damaged \(.*\): save the ROIs in ImageJ again"),
        ("classes", r"x\.yaml: MODEL\.NUM_CLASSES is 1000000000; give the number of categories"),
        ("steps", r"y\.yaml: SOLVER\.STEP_SIZE is 1; give iterations"),
        (
            "convs",
            r"x\.npz: config\.model\.mask_head\.convs is 100000; it must be a whole number, at least 1 and at mo",
        ),
    ],
)
def test_refused(told, kind, message):
    line, seconds, megabytes = told[kind]
    assert re.search(message, line), line
    assert seconds < _MOST_SECONDS
    assert megabytes < _MOST_MEGABYTES
