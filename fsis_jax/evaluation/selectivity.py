"""Does the network look at its references? Measured on images that show two categories.

Shown references of one category, it should find the cells of that category, leave those of the other, and find
little when the references' category is absent. An image with one category cannot tell: a network that segments
every cell whatever it is shown scores just as well there.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fsis_jax.data.records import Source, Subset
from fsis_jax.evaluation.protocol import Prediction, predict, score, segment_targets
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.segmenter import Segmenter


@dataclasses.dataclass(frozen=True)
class Selectivity:
    """Numbers over all images with two categories or more."""

    images: int
    mask_ap50: float
    """Of the referenced category, mean over categories, all scores."""
    on_other: float
    """Share of the instances of at least `min_score` that lie on a cell of another category."""
    absent_ratio: float
    """Such instances per image with references of an absent category, over those with references of one present."""

    def __str__(self) -> str:
        return (
            f"{self.images} images with two categories: mask AP50 of the referenced one {self.mask_ap50:.3f}; "
            f"{self.on_other:.1%} of the instances found lie on the other; "
            f"with an absent category's references {self.absent_ratio:.1%} as many are found"
        )


def measure_selectivity(
    segmenter: Segmenter, targets: Source, train: Source, categories: Sequence[int], *, shots: int = 1, seed: int = 0
) -> Selectivity:
    """Test a model on the targets that show two of `categories` or more.

    Args:
        segmenter: the model, with the `min_score` that it counts from.
        targets: test images.
        train: images that references come from.
        categories: ids that may be shown.
        shots: references at a time.
        seed: of the draws of references and of absent categories.
    """
    several = [
        position
        for position, annotations in enumerate(targets.annotations)
        if len(set(annotations.classes.tolist()) & set(categories)) > 1
    ]
    mixed = Subset(targets, several)
    present = predict(segmenter, mixed, train, categories, shots=shots, references="train", seed=seed)
    counted = [prediction.instances.without_overlaps() for prediction in present]
    on_other = sum(
        int(_on_other(mixed, prediction, instances).sum())
        for prediction, instances in zip(present, counted, strict=True)
    )
    found = sum(len(instances) for instances in counted)

    rng = np.random.default_rng(seed)
    absent_work = []
    for position, annotations in enumerate(mixed.annotations):
        absent = sorted(set(categories) - set(annotations.classes.tolist()))
        if absent:
            absent_work.append((position, int(rng.choice(absent))))
    shown_absent = segment_targets(segmenter, mixed, train, absent_work, shots=shots, references="train", seed=seed)
    absent_found = sum(len(prediction.instances.without_overlaps()) for prediction in shown_absent)
    return Selectivity(
        images=len(mixed),
        mask_ap50=score(mixed, present, categories)["mask"]["AP50"],
        on_other=on_other / max(found, 1),
        absent_ratio=(absent_found / max(len(absent_work), 1)) / max(found / max(len(present), 1), 1e-9),
    )


def _on_other(source: Source, prediction: Prediction, instances: Instances) -> np.ndarray:
    """(n,) bool: whether an instance covers more pixels of other categories' cells than of the referenced one's."""
    annotations = source.annotations[prediction.target]
    own = np.zeros(instances.size, bool)
    other = np.zeros(instances.size, bool)
    truth = Instances.from_rles(annotations.rles, instances.size, scores=-np.arange(len(annotations.rles)))
    for crop, category in zip(truth.masks, annotations.classes, strict=True):
        (own if category == prediction.category else other)[crop.slices] |= crop.mask
    return np.array(
        [
            np.count_nonzero(other[crop.slices] & crop.mask) > np.count_nonzero(own[crop.slices] & crop.mask)
            for crop in instances.masks
        ],
        bool,
    )
