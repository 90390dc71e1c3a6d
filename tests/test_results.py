"""The tables of numbers and model card are what docs/results.json says."""

import json
import pathlib

import make_results
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["docs/numbers.md", "docs/model_card.md"])
def test_tables_are_those_of_the_results(name):
    text = (ROOT / name).read_text()
    results = json.loads((ROOT / "docs" / "results.json").read_text())
    assert "<!-- table " in text
    assert make_results.with_tables(text, results) == text


def _repeat(ap50, of):
    families = {
        "mask": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@500"),
        "bioimage": ("AP@0.5", "AP@0.75", "F1@0.5", "F1@0.75"),
        "histology": ("AJI", "PQ"),
    }
    rows = {f: {name: ap50 if name == "AP50" else 0.5 for name in names} for f, names in families.items()}
    return {f: {**row, "AP_large": None, "categories": {c: dict(row) for c in of}} for f, row in rows.items()}


def test_gathering_rounds_and_tables_give_mean_and_spread_over_repeats(tmp_path):
    runs = {
        "fold-1": {"unseen-5shot-train": [_repeat(0.2, ["a"]), _repeat(0.4, ["a"])]},
        "fold-2": {"unseen-5shot-train": [_repeat(0.6, ["b"]), _repeat(0.80004, ["b"])]},
        **{f"fold-{fold}": {"unseen-5shot-train": [_repeat(0.4, ["c"]), _repeat(0.6, ["c"])]} for fold in (3, 4, 5)},
        "otsu": {"otsu-all": [_repeat(0.1, ["a", "b"])]},
    }
    selective = {
        "images": 4,
        "mask_ap50": 0.9,
        "wrong_mask_ap50": 0.2,
        "on_other": 0.1,
        "found": 9.0,
        "found_absent": 2,
    }
    runs["fold-1"]["mosaics-all-5shot"] = [selective]
    for run, tests in runs.items():
        for test, repeats in tests.items():
            path = tmp_path / run / "evaluation" / f"{test}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"config": {}, "repeats": repeats}))
    results = make_results.gather(tmp_path)
    assert results["fold-2"]["unseen-5shot-train"][1]["mask"]["AP50"] == 0.8
    assert "AR@500" not in results["fold-2"]["unseen-5shot-train"][1]["mask"]
    text = "\n".join(f"<!-- table {name} -->\nstale\n<!-- end -->" for name in make_results.TABLES)
    made = make_results.with_tables(text, results)
    assert "stale" not in made
    # Folds first: 0.4 and 0.6 in the two repeats.
    assert "| unseen kinds, 5 references from other images | 0.500 ± 0.100 | 0.500 ± 0.000 |" in made
    assert "| a | - | 0.300 ± 0.100 | - | - | 0.100 |" in made
    assert "| fold-1 | 0.900 | 0.200 | 0.100 | 9.000 | 2.000 |" in made
    assert make_results.with_tables(made, results) == made
