"""From a config to the data of a run: its categories, its training and validation images, its batches."""

import collections
import dataclasses
import functools
import logging
from collections.abc import Collection, Sequence

import numpy as np
from ml_collections import ConfigDict

from fsis_jax.config import user_path
from fsis_jax.data.coco import open_source
from fsis_jax.data.episodes import EpisodeSampler
from fsis_jax.data.pipeline import BatchIterator, make_batches
from fsis_jax.data.records import Annotations, Source, Subset
from fsis_jax.data.synthetic import generate
from fsis_jax.data.transforms import TransformConfig, own_scale
from fsis_jax.errors import FsisError

logger = logging.getLogger("fsis_jax")


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of one run."""

    seen: tuple[int, ...]
    """Ids of the categories that may be learnt."""
    unseen: tuple[int, ...]
    """Ids of the held-out ones."""
    train: Source
    """Training images, validation images left out."""
    validation: Source


def held_out(source: Source, fold: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the seen and of the unseen categories of a fold; fold 0 holds out none.

    Raises:
        FsisError: if there is no such fold.
    """
    if fold and fold not in source.folds:
        raise FsisError(f"config.data.fold is {fold}; the data set has folds {sorted(source.folds)}, and 0 for none")
    unseen = tuple(source.folds[fold]) if fold else ()
    return tuple(sorted(set(source.categories) - set(unseen))), unseen


def open_split(config: ConfigDict, split: str) -> Source:
    """The "train" or "test" images of `config.data.root`, which is made first if `config.data.synthetic` says so."""
    root = user_path(config.data.root)
    if config.data.synthetic and not root.exists():
        logger.info("making synthetic cells in %s", root)
        generate(root, seed=config.seed)
    return open_source(root, split)


def open_splits(config: ConfigDict) -> Splits:
    """Open the training images and set the validation images apart, at random by `config.seed`.

    Images that show cells of held-out categories only are left out of both.

    Raises:
        FsisError: if no image is left to train on.
    """
    source = open_split(config, "train")
    seen, unseen = held_out(source, config.data.fold)
    usable = [
        position
        for position, annotations in enumerate(source.annotations)
        if not len(annotations.classes) or np.isin(annotations.classes, seen).any()
    ]
    if not usable:
        raise FsisError(f"{config.data.root}: no training image shows a category outside fold {config.data.fold}")
    fraction = config.data.validation_fraction
    order = np.random.default_rng((config.seed, len(usable))).permutation(usable).tolist()
    validation = _set_apart(source, order, round(fraction * len(usable)), seen)
    if not validation:
        logger.info("validating on the %d training images themselves", len(usable))
        both = Subset(source, usable)
        return Splits(seen, unseen, both, both)
    train = sorted(set(usable) - set(validation))
    return Splits(seen, unseen, Subset(source, train), Subset(source, sorted(validation)))


def _set_apart(source: Source, order: Sequence[int], count: int, seen: Collection[int]) -> list[int]:
    """The first `count` images of `order` that show a seen category and leave each of theirs an image to train on.

    A validation image without a cell tells nothing, and one whose categories are nowhere else has no references.
    """

    def seen_in(annotations: Annotations) -> set[int]:
        return set(annotations.classes[~annotations.crowd].tolist()) & set(seen)

    shown = {position: seen_in(source.annotations[position]) for position in order}
    left = collections.Counter(category for categories in shown.values() for category in categories)
    chosen: list[int] = []
    for position in order:
        if len(chosen) < count and shown[position] and all(left[category] > 1 for category in shown[position]):
            chosen.append(position)
            left.subtract(shown[position])
    return chosen


def transform_config(config: ConfigDict) -> TransformConfig:
    """The transforms of a run; the box convention is the model's."""
    return TransformConfig.from_config({**config.data.transform, "box_offset": int(config.model.legacy_boxes)})


def training_batches(config: ConfigDict, splits: Splits, steps: int) -> BatchIterator:
    """The batches of a run of `steps` steps."""
    transform = transform_config(config)
    sampler = EpisodeSampler(
        splits.train.annotations,
        categories=splits.seen,
        targets=range(len(splits.train)),
        shots=config.data.shots,
        scale_of=functools.partial(own_scale, config=transform),
        present=config.data.present,
        background=config.data.background,
        reference_source=config.data.reference_source,
        min_reference_area=config.data.min_reference_area,
        contrast=config.data.contrast,
        mosaic=config.data.mosaic,
        seed=config.seed,
    )
    return make_batches(
        splits.train,
        sampler,
        transform,
        trainable=splits.seen,
        canvases=config.data.train_canvases,
        batch_size=config.training.batch_size,
        steps=steps,
        workers=config.data.workers,
        seed=config.seed,
    )
