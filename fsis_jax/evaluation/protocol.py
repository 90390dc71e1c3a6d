"""The test of a model: shots, sources of references, repeats; a table, a file of results, pictures.

For every target and every evaluated category in it the model is shown k references (`predictions.py`), and its
instances are compared with the cells of that category (`scores.py`). Numbers are the mean over categories; the spread
is that over repeats with other references.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.data.records import Source
from fsis_jax.evaluation.coco_ap import best_f1_score, evaluate
from fsis_jax.evaluation.predictions import Model, Prediction, ReferencesFrom, predict, read_target
from fsis_jax.evaluation.scores import score, summarise, to_coco
from fsis_jax.evaluation.selectivity import measure_selectivity
from fsis_jax.io.exports import write_overlay
from fsis_jax.io.files import atomic_write
from fsis_jax.io.images import to_rgb8

TABLE = (
    *(("mask", name) for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")),
    *(("bioimage", name) for name in ("AP@0.5", "AP@0.75", "F1@0.5")),
    *(("histology", name) for name in ("AJI", "PQ")),
)
"""Families and measures that the table shows; the file of results has all."""


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
    """One test: `predict` and `score` for every repeat; pictures of the first.

    Args:
        model: what is tested.
        targets: test images.
        train: images that references come from, unless they come from the target.
        categories: ids to evaluate.
        shots: references per target.
        references: where they come from.
        settings: `config.eval`, for repeats, images per category and pictures.
        seed: of the draws of references.
        overlays: folder for the pictures.

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
        results.append(score(targets, predictions, categories))
        if repeat == 0:
            save_overlays(overlays, targets, predictions, settings.overlays)
    return summarise(results)


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


def write_results(
    path: pathlib.Path, config: ConfigDict, results: dict[str, Any], *, model: dict[str, Any] | None
) -> pathlib.Path:
    """Results with what gave them, as JSON; numbers that do not exist (no such cells) are null.

    Args:
        path: of the file.
        config: of the test.
        results: of `run_protocol` or `run_selectivity`.
        model: what was tested: "weights" as they were named, "fingerprint" and "min_score"; None: no model.
    """
    content = {"config": json.loads(config.to_json_best_effort()), "model": model, **results}
    with atomic_write(path) as file:
        file.write(json.dumps(_without_nan(content), indent=1, allow_nan=False).encode())
    return path


def format_table(results: dict[str, Any]) -> str:
    """Mean and standard deviation over the repeats: a row for each category, and one for their mean."""
    mean, sd = results["mean"], results["sd"]
    rows = [["category", *(f"{family} {name}" for family, name in TABLE)]]
    for category in mean["mask"]["categories"]:
        of = [(mean[family]["categories"][category], sd[family]["categories"][category]) for family, _ in TABLE]
        rows.append([category, *(_cell(m[name], s[name]) for (m, s), (_, name) in zip(of, TABLE, strict=True))])
    rows.append(["mean", *(_cell(mean[family][name], sd[family][name]) for family, name in TABLE)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def format_selectivity(results: dict[str, Any]) -> str:
    """Mean and standard deviation over the repeats, a line for each number."""
    width = max(map(len, results["mean"]))
    return "\n".join(f"{name:{width}}  {_cell(value, results['sd'][name])}" for name, value in results["mean"].items())


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
    """Mask AP50 on validation images, and the score threshold with the best F1 there."""
    predictions = predict(model, targets, train, categories, shots=shots, references="train", seed=seed)
    found = to_coco(predictions)
    counted: dict[str, Any] = {
        "images": {prediction.image_id for prediction in predictions},
        "categories": categories,
    }
    masks, boxes = (evaluate(targets.annotations, found, iou_type=kind, **counted) for kind in ("segm", "bbox"))
    min_score, f1 = best_f1_score(targets.annotations, found, **counted)
    chosen = [
        dataclasses.replace(p, instances=dataclasses.replace(p.instances, min_score=min_score)) for p in predictions
    ]
    save_overlays(overlays, targets, chosen, overlay_count)
    return {
        "mask_ap50": masks["AP50"],
        "mask_ap": masks["AP"],
        "box_ap50": boxes["AP50"],
        "f1": f1,
        "min_score": min_score,
    }


def save_overlays(folder: pathlib.Path, targets: Source, predictions: Sequence[Prediction], count: int) -> None:
    """Write `count` of the predictions, evenly spread, as pictures."""
    for row in np.unique(np.linspace(0, len(predictions) - 1, min(count, len(predictions))).astype(int)):
        prediction = predictions[row]
        image = to_rgb8(read_target(targets, prediction.target), stretch=True)
        name = f"{pathlib.Path(targets.annotations[prediction.target].file_name).stem}-{prediction.category}.png"
        write_overlay(
            folder / name, image, prediction.instances.without_overlaps(), references=list(prediction.references)
        )
