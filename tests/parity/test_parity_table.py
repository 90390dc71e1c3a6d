"""The frame of the parity tests: golden files that may be absent, the recorder of figures, and its table."""

import json
import pathlib

import numpy as np
import pytest
from golden_files import existing, load
from parity_table import BEGIN, END, Figures, parts_around

LIMIT = 12e6
"""Bytes of the copy of the golden vectors that comes with the project."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two files, of which the second holds part of an array of the first."""
    (tmp_path / "V").mkdir()
    np.savez(tmp_path / "a.npz", x=np.arange(6).reshape(2, 3), label=np.array("text"))
    np.savez(tmp_path / "V" / "b.npz", y=np.ones(2))
    (tmp_path / "aliases.json").write_text(json.dumps({"V/b.npz": {"x": ["a.npz", "x", [1, 2]]}}))
    return tmp_path


def test_arrays_are_read_by_name(folder: pathlib.Path) -> None:
    vectors = load(folder, "V", "b.npz")
    np.testing.assert_array_equal(vectors["x"], [[0, 1]])
    assert sorted(vectors) == ["x", "y"]
    assert len(vectors) == 2
    assert "x" in vectors
    assert "z" not in vectors
    assert str(load(folder, "a.npz")["label"]) == "text"


def test_what_is_absent_skips_the_test_and_is_named(folder: pathlib.Path) -> None:
    vectors = load(folder, "V", "b.npz")
    for what, absent in (
        ("z in V/b.npz", lambda: vectors["z"]),
        (r"k1_\* in V/b.npz", lambda: vectors.starting("k1_")),
        ("V/c.npz", lambda: load(folder, "V", "c.npz")),
        ("W", lambda: existing(folder, "W")),
    ):
        with pytest.raises(pytest.skip.Exception, match=f"^the golden folder has no {what}$"):
            absent()


def test_an_error_beyond_its_tolerance_fails() -> None:
    figures = Figures()
    figures.check("boxes, px", "V", 0.5, 0.5)
    figures.check("wrong boxes", "V", 0, 0)
    for achieved in (0.6, float("nan"), float("inf")):
        with pytest.raises(pytest.fail.Exception, match=r"boxes, px V: .* exceeds 0\.5"):
            figures.check("boxes, px", "V", achieved, 0.5)
    with pytest.raises(pytest.fail.Exception, match="exceeds 0"):
        figures.check("wrong boxes", "V", 1, 0)


def test_the_table_shows_the_figure_closest_to_its_tolerance() -> None:
    figures = Figures()
    assert not figures
    figures.check("boxes, px", "V2", 0.25, 1)
    figures.check("boxes, px", "V1", 0.2, 1)
    figures.check("boxes, px", "V1", 0.001, 0.002)
    figures.check("wrong boxes", "", 0, 0)
    assert figures.table().splitlines()[2:] == [
        "| wrong boxes | - | 0 | 0 | 1 |",
        "| boxes, px | V1 | 0.001 | 0.002 | 2 |",
        "| boxes, px | V2 | 0.25 | 1 | 1 |",
    ]


def test_a_page_without_one_pair_of_markers_is_refused(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(pytest.UsageError, match=r"page\.md: a page with"):
        parts_around(page)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert parts_around(page) == ("before\n", "\nafter\n")
    page.write_text(f"{BEGIN}{BEGIN}{END}")
    with pytest.raises(pytest.UsageError):
        parts_around(page)


def test_the_copy_of_the_project_is_small_and_whole() -> None:
    copy = pathlib.Path(__file__).parent.parent / "golden"
    assert sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()) <= LIMIT
    for variant in ("V1_fpn_full", "V2_c4_full", "V3_fpn_l1", "V4_fpn_norel", "V5_fpn_deform"):
        for name in ("infer.npz", "train.npz"):
            vectors = load(copy, variant, name)
            assert all(vectors[key].dtype != object for key in vectors)
        existing(copy, variant, "manifest.json")
    for name in ("ops.npz", "schedule.npz", "data_items.npz", "data.json", "eval.json", "weights_rule.py", "README.md"):
        existing(copy, name)
