"""`fsis refine`: corrections of a result become part of the references."""

import csv
import json

import cv2
import numpy as np
import pytest

from fsis_jax.inference.references_file import load_references

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def result(fsis, tiny_run, cell, tmp_path):
    """A panel of two kinds, and what it finds in an image, of any score."""
    grey, (x1, y1, x2, y2) = cell
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    box = f"{tmp_path / 'a.png'}:{x1},{y1},{x2},{y2}"
    other = f"{tmp_path / 'a.png'}:{x1 + 3},{y1 + 3},{x2},{y2}"
    model = ["--checkpoint", tiny_run.workdir]
    panel = tmp_path / "panel.refs"
    outcome = fsis("references", "--kind", f"whole={box}", "--kind", f"part={other}", "-o", panel, *model)
    assert outcome.status == 0, outcome
    options = ["--save", "table", "geojson", "--min-score", "0", "-o", tmp_path / "out"]
    outcome = fsis("segment", tmp_path / "a.png", "--references", panel, *options, *model)
    assert outcome.status == 0, outcome
    with open(tmp_path / "out" / "a-table.csv", newline="") as file:
        return panel, tmp_path / "out", list(csv.DictReader(file)), model


def test_numbers_of_the_table(fsis, result, tmp_path):
    panel, out, rows, model = result
    better = tmp_path / "better.refs"
    corrections = ["--wrong", "1", "2", "--right", "part=3"]
    outcome = fsis("refine", panel, "--result", out, *corrections, "-o", better, *model)
    assert outcome.status == 0, outcome
    assert "3 corrections of a" in outcome.stdout
    before, after = load_references(panel), load_references(better)
    added = after.traits[len(before.traits) :]
    assert after.trait_kinds[len(before.traits) :].tolist() == [2, 2, 1]
    sizes = [(float(row["x2"]) - float(row["x1"])) * (float(row["y2"]) - float(row["y1"])) for row in rows[:3]]
    np.testing.assert_allclose(np.exp(2 * added[:, 0]), sizes, rtol=1e-5)
    again = ["--min-score", "0", "-o", tmp_path / "again", *model]
    assert fsis("segment", tmp_path / "a.png", "--references", better, *again).status == 0


def test_a_number_that_is_said_to_be_two_things_is_named(fsis, result, tmp_path):
    panel, out, _, model = result
    for told, wrong in (
        ("--wrong 3: said to be right, too", ["--wrong", "3", "--right", "part=3"]),
        ("--right 2: said to be part and whole", ["--right", "part=2", "--right", "whole=2"]),
    ):
        outcome = fsis("refine", panel, "--result", out, *wrong, "-o", tmp_path / "x.refs", *model)
        assert (outcome.status, outcome.stderr.count("\n")) == (2, 1)
        assert told in outcome.stderr


def test_the_plane_must_be_that_of_the_result(fsis, result, tmp_path):
    panel, out, _, model = result
    wrong = ["--wrong", "1", "--page", "1", "-o", tmp_path / "x.refs", *model]
    outcome = fsis("refine", panel, "--result", out, *wrong)
    assert outcome.status == 2
    assert "of a file's only plane: leave out --channel, --page and --series" in outcome.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("label,kind,x1\n1,zelle\xfc,3\n".encode("cp1252"), "decode"),
        (b"label,kind,x1\n1\n", "line 2 has another number of columns"),
        (b"label;kind;x1\n1;whole;3\n", "'x1'"),
    ],
)
def test_a_table_that_another_program_saved_is_told(fsis, result, tmp_path, content, told):
    panel, out, _, model = result
    (out / "a-table.csv").write_bytes(content)
    outcome = fsis("refine", panel, "--result", out, "--wrong", "1", "-o", tmp_path / "x.refs", *model)
    assert (outcome.status, outcome.stderr.count("\n")) == (2, 1)
    assert f"{out / 'a-table.csv'}: not as `fsis segment` wrote it" in outcome.stderr
    assert told in outcome.stderr


def test_what_was_changed_in_a_geojson(fsis, result, tmp_path):
    panel, out, _, model = result
    content = json.loads((out / "a.geojson").read_text())
    _, second, *others = content["features"]
    second["properties"]["classification"]["name"] = {"whole": "part", "part": "whole"}[
        second["properties"]["classification"]["name"]
    ]
    corner = [[[0, 0], [6, 0], [6, 4], [0, 4], [0, 0]]]
    missed = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": corner},
        "properties": {"classification": {"name": "part"}},
    }
    content["features"] = [second, *others, missed]
    changed = tmp_path / "changed.geojson"
    changed.write_text(json.dumps(content))
    better = tmp_path / "better.refs"
    outcome = fsis("refine", panel, "--result", out, "--corrected", changed, "-o", better, *model)
    assert outcome.status == 0, outcome
    before, after = load_references(panel), load_references(better)
    kinds = after.trait_kinds[len(before.traits) :].tolist()
    told = before.kinds.index(second["properties"]["classification"]["name"])
    assert sorted(kinds) == sorted([2, told, 1])
    assert np.exp(2 * after.traits[-1, 0]) == pytest.approx(24)


def test_what_is_refused(fsis, result, tmp_path):
    panel, out, rows, model = result
    better = ["-o", tmp_path / "better.refs", *model]
    cases = [
        (["refine", panel, "--result", out], "no correction given"),
        (["refine", panel, "--result", out, "--wrong", "0"], f"give a number from 1 to {len(rows)}"),
        (["refine", panel, "--result", out, "--wrong", "x"], "give a number from 1"),
        (["refine", panel, "--result", out, "--right", "3"], "give KIND=ID"),
        (["refine", panel, "--result", out, "--right", "dust=3"], "'dust' is none of the kinds (whole, part)"),
        (["refine", panel, "--result", tmp_path, "--wrong", "1"], "no results"),
        (["refine", panel, "--result", out, "--image", "b", "--wrong", "1"], "no results of 'b'; there are a"),
    ]
    for command, message in cases:
        outcome = fsis(*command, *better)
        assert outcome.status == 2
        assert message in outcome.stderr
    assert not (tmp_path / "better.refs").exists()
    record = out / "images.jsonl"
    record.write_text(record.read_text().replace('"model": "', '"model": "other'))
    outcome = fsis("refine", panel, "--result", out, "--wrong", "1", *better)
    assert outcome.status == 2
    assert "of another model than the references" in outcome.stderr
