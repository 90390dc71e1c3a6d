"""Gather what the protocol printed into docs/results.json, and make the tables of numbers and model card from it.

python scripts/make_results.py [--runs runs/models]    # after scripts/make_models.py
python scripts/make_results.py --tables                # the tables alone, from docs/results.json
"""

import argparse
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.json"
MEASURES = {
    "mask": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    "bioimage": ("AP@0.5", "AP@0.75", "F1@0.5"),
    "histology": ("AJI", "PQ"),
}
"""Kept of each family, for the mean and for every category."""
SHOWN = (
    *(("mask", name) for name in ("AP50", "AP75", "AP")),
    *(("bioimage", name) for name in ("AP@0.5", "F1@0.5")),
    *(("histology", name) for name in ("AJI", "PQ")),
)
FOLDS = (1, 2, 3, 4, 5)
OTHERS = "5 references from other images"

Test = list[dict[str, Any]]
"""The repeats of one test of one run."""
Results = dict[str, dict[str, Test]]
"""{run: {test: repeats}}."""


def main() -> None:
    """Gather, unless only the tables are wanted, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/models"), metavar="DIR")
    parser.add_argument("--tables", action="store_true")
    options = parser.parse_args()
    if not options.tables:
        RESULTS.write_text(json.dumps(gather(options.runs), separators=(",", ":")) + "\n")
    results: Results = json.loads(RESULTS.read_text())
    for name in ("docs/numbers.md", "docs/model_card.md"):
        path = ROOT / name
        path.write_text(with_tables(path.read_text(), results))


def gather(runs: pathlib.Path) -> Results:
    """What is in DIR/RUN/evaluation/TEST.json, rounded to four digits; null is a number that does not exist."""
    results: Results = {}
    for path in sorted(runs.glob("*/evaluation/*.json")):
        tests = results.setdefault(path.parent.parent.name, {})
        tests[path.stem] = [_kept(repeat) for repeat in json.loads(path.read_text())["repeats"]]
    return results


def _kept(repeat: dict[str, Any]) -> dict[str, Any]:
    if "mask" not in repeat:  # selectivity
        return {name: _rounded(value) for name, value in repeat.items()}
    kept: dict[str, Any] = {}
    for family, names in MEASURES.items():
        of = repeat[family]
        kept[family] = {name: _rounded(of[name]) for name in names}
        kept[family]["categories"] = {
            category: {name: _rounded(row[name]) for name in names} for category, row in of["categories"].items()
        }
    return kept


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def with_tables(text: str, results: Results) -> str:
    """The text with every table between its two marks, `<!-- table NAME -->` and `<!-- end -->`, made anew."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)


def folds_table(results: Results) -> str:
    """Means over the folds of every way to test."""
    folds, controls = _folds(results)
    matched = [name.removesuffix("-no-matching") for name in controls]
    numbers = " and ".join(name.removeprefix("fold-") for name in matched)
    rows = [(f"seen kinds, {OTHERS}", folds, "seen-5shot-train")]
    for source, where in (("train", "from other images"), ("target", "from the target itself")):
        for shots in (1, 3, 5):
            count = f"{shots} reference{'s' * (shots > 1)}"
            rows.append((f"unseen kinds, {count} {where}", folds, f"unseen-{shots}shot-{source}"))
    rows.append(("unseen kinds, 5 references of a wrong kind", folds, "unseen-5shot-wrong"))
    for title, test in (
        (f"seen kinds of folds {numbers}, {OTHERS}", "seen-5shot-train"),
        (f"unseen kinds of folds {numbers}, {OTHERS}", "unseen-5shot-train"),
        (f"unseen kinds of folds {numbers}, 5 references of a wrong kind", "unseen-5shot-wrong"),
    ):
        rows += [(title, matched, test), ("matching switched off, same test", controls, test)]
    rows.append(("all 11 kinds, Otsu + watershed", ["otsu"], "otsu-all"))
    rows.append((f"all 11 kinds, `cells-small` (trained on all), {OTHERS}", ["cells-small"], "all-5shot-train"))
    return _tests_table(results, rows, SHOWN)


def gpu_table(results: Results) -> str:
    """`cells-small-gpu` and its folds, beside the same tests of `cells-small` and its."""
    rows = []
    for title, test in (
        (f"seen kinds, {OTHERS}", "seen-5shot-train"),
        (f"unseen kinds, {OTHERS}", "unseen-5shot-train"),
    ):
        rows += [(title, _folds(results, "gpu-")[0], test), ("recipe of `cells-small`", _folds(results)[0], test)]
    controls = _folds(results, "gpu-")[1]
    matched = [name.removesuffix("-no-matching") for name in controls]
    rows.append((f"unseen kinds of folds 1 and 3, {OTHERS}", matched, "unseen-5shot-train"))
    rows.append(("matching switched off, same test", controls, "unseen-5shot-train"))
    rows.append((f"all 11 kinds, `cells-small-gpu`, {OTHERS}", ["cells-small-gpu"], "all-5shot-train"))
    rows.append(("`cells-small`, same test", ["cells-small"], "all-5shot-train"))
    return _tests_table(results, rows, SHOWN)


def summary_table(results: Results) -> str:
    """The few numbers that docs/numbers.md shows."""
    folds, _ = _folds(results)
    rows = [
        (f"kinds seen in training, {OTHERS}", folds, "seen-5shot-train"),
        (f"kinds never seen, {OTHERS}", folds, "unseen-5shot-train"),
        ("kinds never seen, 1 reference from other images", folds, "unseen-1shot-train"),
        ("Otsu's threshold and the watershed, all kinds", ["otsu"], "otsu-all"),
    ]
    return _tests_table(results, rows, (("mask", "AP50"), ("bioimage", "AP@0.5"), ("histology", "PQ")))


def _folds(results: Results, recipe: str = "") -> tuple[list[str], list[str]]:
    """Runs of the folds, and of those with matching switched off."""
    folds = [f"{recipe}fold-{fold}" for fold in FOLDS]
    return folds, [f"{fold}-no-matching" for fold in folds if f"{fold}-no-matching" in results]


def _tests_table(
    results: Results, rows: Sequence[tuple[str, Sequence[str], str]], shown: Sequence[tuple[str, str]]
) -> str:
    """Rows are (title, runs to take the mean over, test); those that were not run are left out."""
    lines = [["test", *(f"{family} {name}" for family, name in shown)]]
    for title, runs, test in rows:
        tests = [results[run][test] for run in runs if test in results.get(run, {})]
        if tests and len(tests) == len(runs):
            lines.append([title, *(_spread(tests, family, name) for family, name in shown)])
    return _markdown(lines)


def categories_table(results: Results) -> str:
    """Mask AP50 of every category: unseen, seen, Otsu."""
    folds, _ = _folds(results)
    if "otsu" not in results:
        return ""
    otsu = results["otsu"]["otsu-all"]
    lines = [["kind", "unseen, 1 reference", "unseen, 5", "seen, 5 (mean of the folds)", "`cells-small`, 5", "Otsu"]]
    for category in otsu[0]["mask"]["categories"]:

        def cell(runs: Iterable[str], test: str, category: str = category) -> str:
            tests = [results[run][test] for run in runs if test in results.get(run, {})]
            having = [repeats for repeats in tests if category in repeats[0]["mask"]["categories"]]
            return _spread(having, "mask", "categories", category, "AP50")

        lines.append(
            [
                category,
                cell(folds, "unseen-1shot-train"),
                cell(folds, "unseen-5shot-train"),
                cell(folds, "seen-5shot-train"),
                cell(["cells-small"], "all-5shot-train"),
                cell(["otsu"], "otsu-all"),
            ]
        )
    return _markdown(lines)


def selectivity_table(results: Results) -> str:
    """What is found on mosaics of four categories."""
    lines = [["network", "AP50, right kind", "AP50, wrong kind", "on other kinds", "cells found", "found, kind absent"]]
    test = "mosaics-all-5shot"
    names = ("mask_ap50", "wrong_mask_ap50", "on_other", "found", "found_absent")
    for run in sorted(results):
        if test in results[run]:
            lines.append([run, *(_spread([results[run][test]], n) for n in names)])
    return _markdown(lines)


def ablations_table(results: Results) -> str:
    """The recipe for a short while, and without one of its parts."""
    runs = sorted(name for name in results if name.startswith("ablation-"))
    lines = [["recipe", "unseen AP50", "seen AP50"]]
    for run in sorted(runs, key=lambda name: name != "ablation-recipe"):
        name = run.removeprefix("ablation-").replace("-", " ")
        cells = [
            _spread([results[run][test]], "mask", "AP50") if test in results[run] else "-"
            for test in ("unseen-5shot-train", "seen-5shot-train")
        ]
        lines.append([name, *cells])
    return _markdown(lines)


TABLES = {
    "summary": summary_table,
    "folds": folds_table,
    "gpu": gpu_table,
    "categories": categories_table,
    "selectivity": selectivity_table,
    "ablations": ablations_table,
}


def _spread(tests: Sequence[Test], *keys: str) -> str:
    """The mean over tests and repeats of a number, and the standard deviation over repeats of the mean over tests."""
    values = np.array([[functools.reduce(dict.__getitem__, keys, repeat) for repeat in test] for test in tests], float)
    if not values.size:
        return "-"
    means = values.mean(axis=0)
    return f"{means.mean():.3f}" + (f" ± {means.std():.3f}" if len(means) > 1 else "")


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


if __name__ == "__main__":
    main()
