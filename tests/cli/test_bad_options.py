"""Options, models and places for the results that `fsis segment` and `fsis references` refuse."""

import contextlib
import os
import pathlib
import re
import shlex

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")

GOOD = "segment good.png --references crop.png --checkpoint W --output out"
NUMBER = "is not a number of micrometres from 0.0001 to 10000; `fsis segment --help` lists the arguments"

# the command, the message
OPTIONS = {
    "tile 5": (f"{GOOD} --tile 5", "argument --tile: '5' is not a whole number from 32 on"),
    "tile 0": (f"{GOOD} --tile 0", "argument --tile: '0' is not a whole number from 32 on"),
    "tile -3": (f"{GOOD} --tile -3", "argument --tile: '-3' is not a whole number from 32 on"),
    "tile 64.5": (f"{GOOD} --tile 64.5", "argument --tile: '64.5' is not a whole number from 32 on"),
    "tile x": (f"{GOOD} --tile x", "argument --tile: 'x' is not a whole number from 32 on"),
    "pixel size 0": (f"{GOOD} --pixel-size 0", f"argument --pixel-size: '0' {NUMBER}"),
    "pixel size -1": (f"{GOOD} --pixel-size -1", f"argument --pixel-size: '-1' {NUMBER}"),
    "pixel size nan": (f"{GOOD} --pixel-size nan", f"argument --pixel-size: 'nan' {NUMBER}"),
    "pixel size inf": (f"{GOOD} --pixel-size inf", f"argument --pixel-size: 'inf' {NUMBER}"),
    "pixel size x": (f"{GOOD} --pixel-size 0,5", f"argument --pixel-size: '0,5' {NUMBER}"),
    "pixel size of no image": (f"{GOOD} --pixel-size 1e-9", f"argument --pixel-size: '1e-9' {NUMBER}"),
    "pixel size with a unit": (f"{GOOD} --pixel-size 0.5um", f"argument --pixel-size: '0.5um' {NUMBER}"),
    "pixel size of nothing": (f"{GOOD} --pixel-size", "argument --pixel-size: expected one argument"),
    "reference pixel size 0": (f"{GOOD} --reference-pixel-size 0", f"argument --reference-pixel-size: '0' {NUMBER}"),
    "reference pixel size nan": (f"{GOOD} --reference-pixel-size nan", f"-pixel-size: 'nan' {NUMBER}"),
    "min score x": (f"{GOOD} --min-score x", "argument --min-score: 'x' is not a number; `fsis"),
    "min score nan": (f"{GOOD} --min-score nan", "argument --min-score: 'nan' is not a number; `fsis"),
    "min score inf": (f"{GOOD} --min-score inf", "argument --min-score: 'inf' is not a number; `fsis"),
    "save nonsense": (f"{GOOD} --save nonsense", r"argument --save: invalid choice: 'nonsense' \(choose from .*labels"),
    "save an image": (f"{GOOD} --save labels good.png", r"argument --save: invalid choice: 'good.png' \(choose from"),
    "save nothing": (f"{GOOD} --save", "argument --save: expected at least one argument"),
    "unknown option": (f"{GOOD} --colour red", "unrecognized arguments: --colour red; `fsis segment --help`"),
    "ambiguous option": (f"{GOOD} --reference-p 1 --ref x", "ambiguous option: --ref could match"),
    "no output": (
        "segment good.png --references crop.png --checkpoint W",
        "required: --output/-o; `fsis segment --help",
    ),
    "no argument": ("segment", "required: IMAGE, .*; `fsis segment --help` lists the arguments"),
    "image after crops": (
        "segment --references crop.png good.png --checkpoint W -o out",
        "required: IMAGE; `fsis segment --help`",
    ),
    "missing checkpoint": (f"{GOOD} --checkpoint none", "none: no such file or folder; give the folder of a"),
    "empty checkpoint": (
        f"{GOOD} --checkpoint empty",
        "empty: no folder 'checkpoints' in it; give the folder of",
    ),
    "checkpoint of a file": (
        f"{GOOD} --checkpoint good.png",
        "good.png: no weights file, or a damaged one .*: make one",
    ),
    "checkpoint of no step": (f"{GOOD} --checkpoint W/checkpoints/9999", "9999: no such file or folder; give the"),
    "references without suffix": (
        "references --references crop.png --checkpoint W -o nuclei",
        r"nuclei: give a name that ends in .refs, such as nuclei.refs",
    ),
    "references of another suffix": (
        "references --references crop.png --checkpoint W -o nuclei.npz",
        r"nuclei.npz: give a name that ends in .refs, such as nuclei.refs",
    ),
    "references without a name": (
        "references --references crop.png --checkpoint W -o .refs",
        r"\.refs: give a name that ends in .refs",
    ),
    "references into the root": (
        "references --references crop.png --checkpoint W -o /",
        r"/: give a name that ends in .refs, such as nuclei.refs",
    ),
    "references into a missing home": (
        "references --references crop.png --checkpoint W -o '~nobody-of-this-name/a.refs'",
        "~nobody-of-this-name/a.refs: there is no such user, or no home: give the whole path",
    ),
    "references nowhere": (
        "references --references crop.png --checkpoint W",
        "required: --output/-o; `fsis references",
    ),
    "references that are encoded": (
        "references --references x.refs --checkpoint W -o y.refs",
        "x.refs: no such file: make it with `fsis references`",
    ),
    "output that is a file": (
        f"{GOOD} --output crop.png",
        r"crop.png: cannot be written \(Not a directory\): a part of",
    ),
    "output in a file": (
        f"{GOOD} --output crop.png/out",
        r"crop.png/out: cannot be written \(Not a directory\): a part",
    ),
    "references in a file": (
        "references --references crop.png --checkpoint W -o crop.png/a.refs",
        r"crop.png/a.refs: cannot be written \(.*\): a part of the path is a file; choose another folder",
    ),
    "output of a long name": (f"{GOOD} --output {'o' * 300}", r"o: cannot be written \(File name too long\): shorten"),
}


@pytest.mark.parametrize(("command", "message"), OPTIONS.values(), ids=OPTIONS)
def test_bad_options(fsis, desk, command, message):
    (desk / "empty").mkdir()
    before = sorted(desk.iterdir())
    outcome = fsis(*shlex.split(command))
    assert re.search(f"^fsis: error: .*{message}", outcome.error)
    assert outcome.stdout == ""
    assert sorted(desk.iterdir()) == before


# -- results that cannot be written -------------------------------------------------------------------------------


def test_a_folder_that_must_not_be_written_to(fsis, desk, monkeypatch):
    """Nobody keeps root from writing but a file system that is mounted read-only: so the question is answered here."""
    (desk / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: pathlib.Path(path).name != "out")
    reason = "cannot be written (Permission denied): choose a folder that you may write to"
    assert fsis(*GOOD.split()).error == f"fsis: error: {desk / 'out'}: {reason}"
    assert list((desk / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["good-labels.tif", "good-table.csv", "images.jsonl", "summary.csv"])
def test_a_folder_has_the_name_of_a_result(fsis, desk, name):
    (desk / "out" / name).mkdir(parents=True)
    outcome = fsis(*GOOD.split())
    reason = "cannot be written (Is a directory): a folder has that name: rename it or choose another name"
    assert outcome.error == f"fsis: error: {desk / 'out' / name}: {reason}"
    assert outcome.stdout == ""
    assert not [path for path in (desk / "out").iterdir() if path.name not in (name, ".tiles")]


def test_a_name_that_is_too_long_for_its_results(fsis, desk):
    name = f"{'x' * 250}.png"
    (desk / "good.png").rename(desk / name)
    error = fsis(*GOOD.replace("good.png", name).split()).error
    assert "x.partial: cannot be written (File name too long): shorten the name of the image or of" in error
    assert [path.name for path in (desk / "out").iterdir()] == [".tiles"]


def test_the_disk_is_full_while_tiles_are_noted(fsis, desk, cell, small_disk):
    tifffile.imwrite(desk / "large.tif", np.tile(cell[0], (4, 4)))
    out = small_disk / "out"
    command = ["segment", "large.tif", *GOOD.split()[2:-1], out, "--min-score", "0", "--save", "labels"]
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1 << 10))
    # Room for the lock, and no more.
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - os.sysconf("SC_PAGE_SIZE"))
    outcome = fsis(*command)
    assert f"{out}/.tiles/large: cannot be written (No space left on device): free some space" in outcome.error
    assert outcome.stdout == ""
    (small_disk / "filler").unlink()
    assert fsis(*command).status == 0
    assert sorted(path.name for path in out.iterdir()) == [".tiles", "images.jsonl", "large-labels.tif", "summary.csv"]


def test_an_image_too_large_for_one_kind_of_result_has_none(fsis, desk, monkeypatch):
    monkeypatch.setattr("fsis_jax.io.writers._COCO_LIMIT", 10)
    outcome = fsis(*GOOD.split(), "--save", "labels", "coco")
    assert re.search(r"good.png: .* pixels are too many for COCO's run lengths: save geojson$", outcome.error)
    assert outcome.stdout == ""
    assert not (desk / "out").exists()
