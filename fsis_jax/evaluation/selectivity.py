"""Does the network look at its references? Measured on images that show several categories.

Shown references of one category, it should find the cells of that category, leave those of the others, and find
little when the references' category is absent. An image with one category cannot tell: a network that segments
every cell whatever it is shown scores just as well there.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.evaluation.coco_ap import coco_evaluate
from fsis_jax.evaluation.predictions import Model, Prediction, predict, segment_targets, shown
from fsis_jax.evaluation.scores import predictions_to_coco
from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.records import Source, Subset


@dataclasses.dataclass(frozen=True)
class Selectivity:
    """Numbers over all images with two categories or more. Instances count from the model's `min_score` on."""

    images: int
    mask_ap50: float
    """AP50 of the referenced category over all scores, the mean over categories."""
    wrong_mask_ap50: float
    """The same cells, where the references are of a category that is absent."""
    on_other: float
    """Share of the instances that lie on a cell of another category."""
    found: float
    """Instances per image with references of a category that is present."""
    found_absent: float
    """Instances per image with references of one that is absent."""

    @property
    def absent_ratio(self) -> float:
        """`found_absent` over `found`."""
        return self.found_absent / max(self.found, 1e-9)

    def __str__(self) -> str:
        return (
            f"{self.images} images with several categories: mask AP50 of the referenced one {self.mask_ap50:.3f}, "
            f"with references of an absent one {self.wrong_mask_ap50:.3f}; "
            f"{self.on_other:.1%} of the instances found lie on the others; "
            f"with an absent category's references {self.absent_ratio:.1%} as many are found "
            f"({self.found_absent:.1f} and {self.found:.1f} an image)"
        )


def measure_selectivity(
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int = 1,
    repeat: int = 0,
    seed: int = 0,
) -> Selectivity:
    """Test a model on the targets that show several categories, one of `categories` among them.

    Args:
        model: what is tested.
        targets: test images.
        train: images that references come from.
        categories: ids that references are of.
        shots: references at a time.
        repeat: number of the repeat; another one draws other references.
        seed: of the draws of references and of absent categories.

    Raises:
        FsisError: no target shows several categories with one of `categories` among them, or each of those shows all
            of `categories`.
    """
    several = [
        position
        for position in range(len(targets))
        if len(held := shown(targets, position)) > 1 and held.intersection(categories)
    ]
    if not several:
        raise FsisError(
            f"none of the {len(targets)} images shows several categories with one of {sorted(categories)} among them: "
            "give more images (eval.mosaics), or test more categories (eval.split)"
        )
    mixed = Subset(targets, several)
    present = predict(model, mixed, train, categories, shots=shots, references="train", repeat=repeat, seed=seed)
    counted = [prediction.instances.without_overlaps() for prediction in present]
    on_other = sum(
        int(_on_other(mixed, prediction, instances).sum())
        for prediction, instances in zip(present, counted, strict=True)
    )
    found = sum(len(instances) for instances in counted)

    rng = np.random.default_rng((seed, repeat))
    work = []
    for position in range(len(mixed)):
        absent = sorted(set(categories) - shown(mixed, position))
        if absent:
            work.append((position, int(rng.choice(absent))))
    if not work:
        raise FsisError(
            f"every image with several categories shows all of {sorted(categories)}: none can be absent; "
            "test more categories (eval.split)"
        )
    lacking = list(
        segment_targets(model, mixed, train, work, shots=shots, references="train", repeat=repeat, seed=seed)
    )
    wrong = [
        dataclasses.replace(prediction, category=category)
        for prediction in lacking
        for category in sorted(shown(mixed, prediction.target).intersection(categories))
    ]
    return Selectivity(
        images=len(mixed),
        mask_ap50=_ap50(mixed, present, categories),
        wrong_mask_ap50=_ap50(mixed, wrong, categories),
        on_other=on_other / max(found, 1),
        found=found / len(present),
        found_absent=sum(len(prediction.instances.without_overlaps()) for prediction in lacking) / len(lacking),
    )


def _ap50(targets: Source, predictions: Sequence[Prediction], categories: Sequence[int]) -> float:
    """Mask AP50 on the images that have predictions."""
    images = {prediction.image_id for prediction in predictions}
    scores = coco_evaluate(
        targets.annotations, predictions_to_coco(predictions), iou_type="segm", images=images, categories=categories
    )
    return float(scores["AP50"])


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
