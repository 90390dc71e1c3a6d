"""How a model is tested: references of a category, targets that show it, repeats with other references.

For every target and every evaluated category in it the model is shown k references, either from other images (the
category's train split, what users do) or from the target itself (what the PyTorch project's test does), and its
instances are compared with the cells of that category. Numbers are the mean over categories; the spread is that over
repeats.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fsis_jax.data.episodes import ReferenceBox, evaluation_references
from fsis_jax.data.records import Source
from fsis_jax.data.transforms import cut_reference
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.coco_ap import best_f1_score, evaluate
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.exports import write_overlay
from fsis_jax.io.files import atomic_write
from fsis_jax.io.images import decode_image, to_rgb8

KINDS = {"mask": "segm", "box": "bbox", "mask_box": "mask_bbox"}
"""Our names of what is compared, and those of `coco_ap.evaluate`."""
TABLE = ("mask", "box")
"""Kinds that the table shows; the file of results has all."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model found on one target for one category."""

    target: int
    """Position of the target in its source."""
    image_id: int
    category: int
    instances: Instances
    references: np.ndarray
    """(k, S, S, 3) uint8, as the network saw them."""


def predict(
    segmenter: Segmenter,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    references: Literal["train", "target"],
    repeat: int = 0,
    seed: int = 0,
    max_images: int = 0,
    progress: str = "",
) -> list[Prediction]:
    """Segment the targets that show one of `categories`, once for each of those that they show.

    Args:
        segmenter: the model.
        targets: images to segment.
        train: images that references come from, unless `references` is "target".
        categories: ids to evaluate.
        shots: k.
        references: where they come from.
        repeat: number of the repeat; another one draws other references.
        seed: of the draws.
        max_images: at most so many targets per category, evenly spread; 0 takes all.
        progress: title of a progress bar; none if empty.

    Raises:
        FsisError: if no target shows any of the categories, or a category has no reference.
    """
    work = [
        (target, category)
        for target in _chosen_targets(targets, categories, max_images)
        for category in _shown(targets, target)
        if category in categories
    ]
    if not work:
        raise FsisError(f"no image shows a cell of the categories {sorted(categories)}; check eval.split and data.fold")
    return list(
        tqdm(
            segment_targets(
                segmenter, targets, train, work, shots=shots, references=references, repeat=repeat, seed=seed
            ),
            desc=progress,
            total=len(work),
            unit="image",
            disable=not progress,
            leave=False,
        )
    )


@dataclasses.dataclass(frozen=True)
class _Episode(Job):
    references: References
    target: int = -1
    category: int = -1


def segment_targets(
    segmenter: Segmenter,
    targets: Source,
    train: Source,
    work: Sequence[tuple[int, int]],
    *,
    shots: int,
    references: Literal["train", "target"],
    repeat: int = 0,
    seed: int = 0,
) -> Iterator[Prediction]:
    """Segment targets, each with references of a category that it may or may not show.

    Args:
        work: position of the target and category of each prediction; the others are as for `predict`.
    """

    def jobs() -> Iterator[_Episode]:
        legacy = segmenter.config.data.transform.legacy_reference_crop
        for target, category in work:
            boxes = evaluation_references(
                targets.annotations,
                train.annotations,
                target,
                category,
                shots,
                source=references,
                repeat=repeat,
                seed=seed,
            )
            crops = reference_crops(train if references == "train" else targets, boxes, legacy=legacy)
            encoded = segmenter.encode_references(crops)
            yield _Episode(read_target(targets, target), encoded, target=target, category=category)

    for episode, instances in segmenter.segment_all(jobs()):
        yield Prediction(
            target=episode.target,
            image_id=targets.annotations[episode.target].image_id,
            category=episode.category,
            instances=dataclasses.replace(instances, category=targets.categories[episode.category]),
            references=episode.references.images,
        )


def score(
    targets: Source, predictions: Sequence[Prediction], categories: Sequence[int], kinds: Sequence[str] = TABLE
) -> dict[str, Any]:
    """COCO average precision of the `kinds` of `KINDS`.

    Returns:
        {"mask": {"AP": ..., "AP50": ..., ...}, "box": {...}}, each the mean over the categories, with the same numbers
        for each category by its name under "categories".
    """
    detections = _coco(predictions)
    images = {prediction.image_id for prediction in predictions}
    result = {}
    for name in kinds:
        scores = evaluate(targets.annotations, detections, iou_type=KINDS[name], images=images, categories=categories)
        by_id = scores.pop("categories")
        result[name] = {**scores, "categories": {targets.categories[key]: value for key, value in by_id.items()}}
    return result


def run_protocol(
    segmenter: Segmenter,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    settings: ConfigDict,
    seed: int,
    overlays: pathlib.Path,
) -> dict[str, Any]:
    """The whole test: `predict` and `score` for every repeat; pictures of the first.

    Args:
        segmenter: the model.
        targets: test images.
        train: images that references come from, unless the settings say "target".
        categories: ids to evaluate.
        settings: `config.eval`.
        seed: of the draws of references.
        overlays: folder for the pictures.

    Returns:
        {"repeats": [score, ...], "mean": score, "sd": score}: mean and standard deviation over the repeats.
    """
    results = []
    for repeat in range(settings.repeats):
        predictions = predict(
            segmenter,
            targets,
            train,
            categories,
            shots=settings.shots,
            references=settings.references,
            repeat=repeat,
            seed=seed,
            max_images=settings.max_images,
            progress=f"repeat {repeat + 1}/{settings.repeats}",
        )
        results.append(score(targets, predictions, categories, tuple(KINDS)))
        if repeat == 0:
            save_overlays(overlays, targets, predictions, settings.overlays)
    return {"repeats": results, "mean": _across(results, np.mean), "sd": _across(results, np.std)}


def write_results(path: pathlib.Path, config: ConfigDict, results: dict[str, Any]) -> pathlib.Path:
    """Results and the config that gave them, as JSON; numbers that do not exist (no such cells) are null."""
    content = {"config": json.loads(config.to_json_best_effort()), **results}
    with atomic_write(path) as file:
        file.write(json.dumps(_without_nan(content), indent=1, allow_nan=False).encode())
    return path


def format_table(results: dict[str, Any]) -> str:
    """Mean and standard deviation over the repeats: a row for each category, and one for their mean."""
    columns = [(kind, name) for kind in TABLE for name in ("AP", "AP50", "AP75")]
    columns += [("mask", f"AP_{size}") for size in ("small", "medium", "large")]
    titles = ["category", *(f"{kind} {name}" for kind, name in columns)]
    rows = []
    mean, sd = results["mean"], results["sd"]
    for category in mean["mask"]["categories"]:
        cells = [
            _cell(mean[kind]["categories"][category][name], sd[kind]["categories"][category][name])
            for kind, name in columns
        ]
        rows.append([category, *cells])
    rows.append(["mean", *(_cell(mean[kind][name], sd[kind][name]) for kind, name in columns)])
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [titles, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def _cell(mean: float, sd: float) -> str:
    return "-" if np.isnan(mean) else f"{mean:.3f} ± {sd:.3f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def validate(
    segmenter: Segmenter,
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
    predictions = predict(segmenter, targets, train, categories, shots=shots, references="train", seed=seed)
    scores = score(targets, predictions, categories)
    min_score, f1 = best_f1_score(
        targets.annotations,
        _coco(predictions),
        images={prediction.image_id for prediction in predictions},
        categories=categories,
    )
    chosen = [
        dataclasses.replace(p, instances=dataclasses.replace(p.instances, min_score=min_score)) for p in predictions
    ]
    save_overlays(overlays, targets, chosen, overlay_count)
    return {
        "mask_ap50": scores["mask"]["AP50"],
        "mask_ap": scores["mask"]["AP"],
        "box_ap50": scores["box"]["AP50"],
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


def read_target(source: Source, position: int) -> np.ndarray:
    """The decoded image of a record."""
    record = source[position]
    return decode_image(record.encoded, record.annotations.file_name)


def reference_crops(source: Source, boxes: Sequence[ReferenceBox], *, legacy: bool = False) -> list[np.ndarray]:
    """The boxes cut out of their images; `legacy` as for `cut_reference`."""
    return [cut_reference(read_target(source, reference.record), reference.box, legacy=legacy) for reference in boxes]


def _shown(source: Source, target: int) -> list[int]:
    annotations = source.annotations[target]
    return [int(category) for category in np.unique(annotations.classes[~annotations.crowd])]


def _chosen_targets(source: Source, categories: Sequence[int], max_images: int) -> list[int]:
    chosen: set[int] = set()
    for category in categories:
        showing = [target for target in range(len(source)) if category in _shown(source, target)]
        if max_images and len(showing) > max_images:
            showing = [showing[row] for row in np.linspace(0, len(showing) - 1, max_images).astype(int)]
        chosen.update(showing)
    return sorted(chosen)


def _coco(predictions: Sequence[Prediction]) -> list[Any]:
    return [row for p in predictions for row in p.instances.to_coco(p.image_id, p.category)]


def _across(results: Sequence[dict[str, Any]], function: Any) -> dict[str, Any]:
    """`function` over the repeats, number by number."""
    first = results[0]
    return {
        key: _across([result[key] for result in results], function)
        if isinstance(value, dict)
        else float(function([result[key] for result in results]))
        for key, value in first.items()
    }
