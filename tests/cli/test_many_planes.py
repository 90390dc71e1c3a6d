"""`fsis segment` of all planes of a stack, with one result each, and their cells linked."""

import csv
import json

import numpy as np
import pytest
import tifffile

from fsis_jax.cli.many_planes import each_plane
from fsis_jax.errors import FsisError
from fsis_jax.inference.output_settings import OutputSettings

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")
PLAIN = ("--references", "crop.png", "--checkpoint", "W", "--output", "out", "--min-score", "0", "--save", "labels")


@pytest.fixture
def stack(desk, cell):
    """A stack of three planes with two channels on the desk, of which the second is dark."""
    grey = cell[0]
    planes = np.stack([grey, np.roll(grey, 1, axis=1), grey[::-1]])
    pixels = np.stack([planes, np.zeros_like(planes)], axis=1)
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(desk / "s.ome.tif", pixels, ome=True, photometric="minisblack", metadata=metadata)
    return desk


def test_every_plane_has_results_and_a_line_of_the_summary(fsis, stack):
    outcome = fsis("segment", "s.ome.tif", "--page", "all", "--channel", "all", *PLAIN)
    assert outcome.status == 0, outcome.stderr
    names = [f"{channel}-Z{z}" for channel in ("DAPI", "GFP") for z in (1, 2, 3)]
    assert sorted(path.name for path in (stack / "out").glob("*.tif")) == [f"s-{name}-labels.tif" for name in names]
    assert [line.split(":")[0] for line in outcome.stdout.splitlines()] == [
        f"s.ome.tif {name.replace('-', ' ')}" for name in names
    ]
    with open(stack / "out/summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["plane"].replace(",", "-") for row in rows) == names
    counts = {row["plane"]: int(row["count"]) for row in rows}
    assert counts["DAPI,Z1"] == tifffile.imread(stack / "out/s-DAPI-Z1-labels.tif").max() > 0
    single = fsis("segment", "s.ome.tif", "--page", "Z1", "--channel", "DAPI", *PLAIN[:4], *PLAIN[6:], "-o", "one")
    assert single.stdout == f"s.ome.tif: {counts['DAPI,Z1']} cells\n"


def test_cells_are_linked_over_planes(fsis, stack):
    options = ("--page", "all", "--channel", "DAPI", "--link", "z", "--json", *PLAIN)
    outcome = fsis("segment", "s.ome.tif", *options)
    assert outcome.status == 0, outcome.stderr
    *_, linked = map(json.loads, outcome.stdout.splitlines())
    volume = tifffile.imread(stack / "out/s-DAPI-linked-labels.tif")
    assert linked == {
        "image": "s.ome.tif",
        "plane": ["DAPI"],
        "planes": 3,
        "cells": int(volume.max()),
        "link": "z",
    }
    for z, labels in enumerate(volume, start=1):
        own = tifffile.imread(stack / f"out/s-DAPI-Z{z}-labels.tif")
        np.testing.assert_array_equal(labels > 0, own > 0)
        assert len(np.unique(labels)) == len(np.unique(own))
    with open(stack / "out/s-DAPI-linked.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == volume.max()
    again = fsis("segment", "s.ome.tif", *options)  # of what is finished already
    assert json.loads(again.stdout.splitlines()[-1]) == linked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s.ome.tif", "--link", "z"), "--link z: links the planes of --page all by their labels: give both"),
        (("s.ome.tif", "--page", "all", "--link", "t"), "s.ome.tif: pages Z1, Z2, Z3 ..., no axis T: leave out --link"),
        (("good.png", "--page", "all", "--link", "z"), "good.png: only one plane, no axis Z: leave out --link"),
    ],
)
def test_what_cannot_be_linked(fsis, stack, arguments, message):
    assert message in fsis("segment", *arguments, *PLAIN).error


def test_a_series_of_one_plane_beside_a_stack_cannot_be_linked(tmp_path):
    """Told of the series that lacks the axis, with no word of the others."""
    plane = np.zeros((40, 50), np.uint8)
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as file:
        file.write(np.stack([plane] * 3), metadata={"axes": "ZYX"}, photometric="minisblack")
        file.write(plane[:30], metadata={"axes": "YX"}, photometric="minisblack")
    settings = OutputSettings(page="all", series="all")
    told = r"two\.ome\.tif: only one plane in series 2, no axis Z: leave out --link$"
    with pytest.raises(FsisError, match=told):
        each_plane([str(tmp_path / "two.ome.tif")], settings, "z")


def _planes(folder):
    """What `fsis corrections` took, as the sums of pixels of its pictures."""
    return [int(tifffile.imread(path).sum()) for path in sorted((folder / "images").iterdir())]


def test_corrections_of_planes(fsis, stack):
    """Each is taken of the plane that its results are of; with --page those of that plane."""
    pixels = tifffile.imread(stack / "s.ome.tif")[:, 0].astype(np.int64)
    pixels[1] = np.roll(pixels[0], 1, axis=1)
    assert fsis("segment", "s.ome.tif", "--page", "all", "--channel", "DAPI", *PLAIN).status == 0
    assert fsis("corrections", "out", "-o", "each").status == 0
    assert fsis("data", "check", "each").status == 0
    assert _planes(stack / "each") == [int(plane.sum()) for plane in pixels]
    for number, arguments in enumerate(
        (["--page", "Z2"], ["--page", "z2", "--channel", "DAPI"], ["--image", "s-DAPI-Z2"])
    ):
        outcome = fsis("corrections", "out", *arguments, "-o", f"one{number}")
        assert outcome.status == 0, outcome
        assert _planes(stack / f"one{number}") == [int(pixels[1].sum())]
    for arguments, told in (
        (["--page", "Z9"], "no results of the plane Z9: there are s-DAPI-Z1, s-DAPI-Z2, s-DAPI-Z3"),
        (["--page", "Z1", "--image", "s-DAPI-Z2"], "s-DAPI-Z2 are of its plane DAPI,Z2: leave out --channel, --page"),
    ):
        assert told in fsis("corrections", "out", *arguments, "-o", "none").error

    # What was segmented before the record told how a plane is opened.
    record = stack / "out/images.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    record.write_text("".join(json.dumps({**line, "opened": None}) + "\n" for line in lines))
    assert "are of its plane DAPI,Z1: choose it by --channel" in fsis("corrections", "out", "-o", "none").error
    assert fsis("corrections", "out", "--page", "Z3", "--channel", "DAPI", "-o", "third").status == 0
    assert _planes(stack / "third") == [int(pixels[2].sum())]


def test_a_reference_is_on_one_plane(fsis, stack):
    reference = ("--reference", "s.ome.tif:5,5,25,25")
    outcome = fsis("segment", "s.ome.tif", "--page", "all", "--channel", "all", *reference, *PLAIN[2:])
    assert "a reference is on one: encode it first, by `fsis references --page 1`" in outcome.error
