"""What a closed-set detector (`config.model.classes`) finds on test images: every target once, without references."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fsis_jax.evaluation.predictions import Model, Prediction, pairs_to_test, read_target, shown, with_progress
from fsis_jax.inference.job import Job
from fsis_jax.preprocess.records import Source

EVERY = -1
"""The category of a prediction that holds the instances of all."""


@dataclasses.dataclass(frozen=True)
class _Target(Job):
    target: int = -1


def predict_closed_set(
    model: Model, targets: Source, categories: Sequence[int], *, max_images: int = 0, progress: str = ""
) -> list[Prediction]:
    """Segment every target, once, also those that show nothing: what is found there is wrong.

    Args:
        model: a closed-set detector.
        targets: images to segment.
        categories: ids to evaluate.
        max_images: at most so many targets per category, evenly spread, and none that shows none; 0 takes all.
        progress: title of a progress bar; none if empty.

    Returns:
        Predictions of `EVERY` category, for `by_category`.

    Raises:
        FsisError: no target shows any of the categories.
    """
    showing = {target for target, _ in pairs_to_test(targets, categories, max_images)}
    chosen = sorted(showing) if max_images else range(len(targets))
    jobs = (_Target(read_target(targets, target), target=target) for target in chosen)
    nothing = np.zeros((0, 1, 1, 3), np.uint8)
    return [
        Prediction(job.target, targets.annotations[job.target].image_id, EVERY, instances, nothing)
        for job, instances in with_progress(model.candidates(jobs), progress, len(chosen))
    ]


def by_category(targets: Source, predictions: Sequence[Prediction], categories: Sequence[int]) -> list[Prediction]:
    """Predictions of `EVERY` category, parted: one for each of `categories` that a target shows or that is found there.

    Of the others there is nothing to count on that target.

    Raises:
        FsisError: a category whose name the model does not know.
    """
    parted = []
    for prediction in predictions:
        present, found = shown(targets, prediction.target), set(prediction.instances.categories)
        for category in categories:
            name = targets.categories[category]
            if category in present or name in found:
                instances = prediction.instances.of_category(name)
                parted.append(dataclasses.replace(prediction, category=category, instances=instances))
    return parted
