"""The test of a model: shots, sources of references, repeats; a table, a file of results, pictures.

For every target and every evaluated category in it the model is shown k references (`predictions.py`), and its
instances are compared with the cells of that category (`scores.py`). Numbers are the mean over categories; the spread
is that over repeats with other references. A closed-set detector looks at every target once (`closed_set.py`).
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.evaluation import keypoint_ap
from fsis_jax.evaluation.closed_set import by_category, predict_closed_set
from fsis_jax.evaluation.coco_ap import best_f1_score, coco_evaluate
from fsis_jax.evaluation.kinds import measure_kinds
from fsis_jax.evaluation.outcomes import save_overlays, write_detections
from fsis_jax.evaluation.predictions import Model, predict
from fsis_jax.evaluation.scores import COCO_AREAS, families_of, predictions_to_coco, score, summarise
from fsis_jax.evaluation.selectivity import measure_selectivity
from fsis_jax.io.atomic import atomic_write
from fsis_jax.preprocess.records import ReferencesFrom, Source

TABLE = (
    *(("mask", name) for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")),
    *(("bioimage", name) for name in ("AP@0.5", "AP@0.75", "F1@0.5")),
    *(("histology", name) for name in ("AJI", "PQ")),
    ("touching", "recall@0.5"),
)
"""Families and measures that the table shows; the file of results has all."""
BOX_TABLE = tuple(("box", name) for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"))
"""The same of a model without masks."""
KEYPOINT_TABLE = tuple(("keypoints", name) for name in ("AP", "AP50", "AP75"))
"""What is added to either of a model with keypoints."""


def run_protocol(
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    references: ReferencesFrom,
    settings: ConfigDict,
    seed: int,
    overlays: pathlib.Path,
) -> dict[str, Any]:
    """One test: `predict` and `score` for every repeat; pictures and detections of the first.

    Args:
        model: what is tested.
        targets: test images.
        train: images that references come from, unless they come from the target.
        categories: ids to evaluate.
        shots: references per target.
        references: where they come from.
        settings: `config.eval`, for repeats, images per category and pictures.
        seed: of the draws of references.
        overlays: folder for the pictures, and for what was found (`write_detections`).

    Returns:
        As `summarise` of `score`.
    """
    results = []
    for repeat in range(settings.repeats):
        predictions = predict(
            model,
            targets,
            train,
            categories,
            shots=shots,
            references=references,
            repeat=repeat,
            seed=seed,
            max_images=settings.max_images,
            progress=f"{shots} from {references}, repeat {repeat + 1}/{settings.repeats}",
        )
        results.append(score(targets, predictions, categories, families=families_of(model.config.model)))
        if repeat == 0:
            write_detections(overlays, targets, predictions, families_of(model.config.model))
            save_overlays(overlays, targets, predictions, categories, settings.overlays)
    return summarise(results)


def run_closed_set(
    model: Model, targets: Source, categories: Sequence[int], *, settings: ConfigDict, overlays: pathlib.Path
) -> dict[str, Any]:
    """One test of a closed-set detector, as `run_protocol`; small and large are what COCO calls so."""
    found = predict_closed_set(model, targets, categories, max_images=settings.max_images, progress="testing")
    save_overlays(overlays, targets, found, categories, settings.overlays)
    parted = by_category(targets, found, categories)
    families = families_of(model.config.model)
    write_detections(overlays, targets, parted, families)
    return summarise([score(targets, parted, categories, families=families, area_splits=COCO_AREAS)])


def run_selectivity(
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """`measure_selectivity` for every repeat, as `summarise` gives it."""
    return summarise(
        [
            dataclasses.asdict(
                measure_selectivity(model, targets, train, categories, shots=shots, repeat=repeat, seed=seed)
            )
            for repeat in range(repeats)
        ]
    )


def run_kinds(
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    settings: ConfigDict,
    seed: int,
) -> dict[str, Any]:
    """`measure_kinds` for every repeat, as `summarise` gives it; `settings` is `config.eval`."""
    tests = range(settings.repeats)
    most = settings.max_images
    return summarise(
        [
            measure_kinds(model, targets, train, categories, shots=shots, repeat=test, seed=seed, max_images=most)
            for test in tests
        ]
    )


def write_results(
    path: pathlib.Path, config: ConfigDict, results: dict[str, Any], *, model: dict[str, Any] | None
) -> pathlib.Path:
    """Results with what gave them, as JSON; numbers that do not exist (no such cells) are null.

    Args:
        path: of the file.
        config: of the test.
        results: of `run_protocol`, `run_closed_set`, `run_selectivity` or `run_kinds`.
        model: what was tested: "weights" as they were named, "fingerprint" and "min_score"; None: no model.
    """
    content = {"config": json.loads(config.to_json_best_effort()), "model": model, **results}
    with atomic_write(path) as file:
        file.write(json.dumps(_without_nan(content), indent=1, allow_nan=False).encode())
    return path


def format_table(results: dict[str, Any]) -> str:
    """Mean and standard deviation over the repeats: a row for each category, and one for their mean."""
    mean, sd = results["mean"], results["sd"]
    table = TABLE if "mask" in mean else BOX_TABLE
    if "keypoints" in mean:
        table = (*table, *KEYPOINT_TABLE)
    rows = [["category", *(f"{family} {name}" for family, name in table)]]
    for category in mean[table[0][0]]["categories"]:
        of = [(mean[family]["categories"][category], sd[family]["categories"][category]) for family, _ in table]
        rows.append([category, *(_cell(m[name], s[name]) for (m, s), (_, name) in zip(of, table, strict=True))])
    rows.append(["mean", *(_cell(mean[family][name], sd[family][name]) for family, name in table)])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def format_selectivity(results: dict[str, Any]) -> str:
    """Mean and standard deviation over the repeats, a line for each number."""
    width = max(map(len, results["mean"]))
    return "\n".join(f"{name:{width}}  {_cell(value, results['sd'][name])}" for name, value in results["mean"].items())


def format_kinds(results: dict[str, Any]) -> str:
    """Mean and standard deviation over the repeats: a row for each kind, and one of counts for each kind of cell.

    Then of each kind the reliability of its probabilities, a row for each bin that has instances in every repeat.
    """
    mean, sd = results["mean"], results["sd"]
    columns = [*next(iter(mean["kinds"].values()))]
    rows = [["kind", *columns]]
    for name, values in mean["kinds"].items():
        rows.append([name, *(_cell(values[c], sd["kinds"][name][c]) for c in columns)])
    lines = [
        f"{name}: " + ", ".join(f"{c:.1f} {k}" for k, c in found.items()) for name, found in mean["confusion"].items()
    ]
    bins = [["kind", "told", "instances", "probability", "right"]]
    for name, table in mean["reliability"].items():
        for told, row in table.items():
            if not np.isnan(row["right"]):
                spread = sd["reliability"][name][told]
                shares = [_cell(row[c], spread[c]) for c in ("probability", "right")]
                bins.append([name, told, f"{row['instances']:.1f}", *shares])
    reliable = ["are the probabilities the shares that are right?", _aligned(bins)]
    return "\n".join([_aligned(rows), "found, of the cells that are", *lines, *reliable])


def _cell(mean: float, sd: float) -> str:
    return "-" if np.isnan(mean) else f"{mean:.3f} ± {sd:.3f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def validate(
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    seed: int,
    overlays: pathlib.Path,
    overlay_count: int,
) -> dict[str, float]:
    """AP of masks (where the model gives them), boxes and keypoints, and the score threshold with the best F1.

    Args:
        model: few-shot, or a closed-set detector, which is shown no references.
        shots, seed: of the references.
    """
    if model.config.model.classes:
        shown = predict_closed_set(model, targets, categories, progress="validation")
        predictions = by_category(targets, shown, categories)
    else:
        shown = predictions = predict(
            *(model, targets, train, categories), shots=shots, references="train", seed=seed, progress="validation"
        )
    found, families = predictions_to_coco(predictions), families_of(model.config.model)
    counted: dict[str, Any] = {"images": {p.image_id for p in predictions}, "categories": categories}
    result: dict[str, float] = {}
    if "mask" in families:
        masks = coco_evaluate(targets.annotations, found, iou_type="segm", **counted)
        result |= {"mask_ap50": masks["AP50"], "mask_ap": masks["AP"]}
    boxes = coco_evaluate(targets.annotations, found, iou_type="bbox", **counted)
    result["box_ap50"] = boxes["AP50"]
    if "mask" not in families:
        result["box_ap"] = boxes["AP"]
    if "keypoints" in families:
        points = coco_evaluate(
            targets.annotations, found, iou_type="keypoints", max_dets=keypoint_ap.MAX_DETS, **counted
        )
        result |= {"keypoint_ap50": points["AP50"], "keypoint_ap": points["AP"]}
    kind = "segm" if "mask" in families else "bbox"
    min_score, f1 = best_f1_score(targets.annotations, found, iou_type=kind, **counted)
    chosen = [dataclasses.replace(p, instances=dataclasses.replace(p.instances, min_score=min_score)) for p in shown]
    save_overlays(overlays, targets, chosen, categories, overlay_count)
    return {**result, "f1": f1, "min_score": min_score}
