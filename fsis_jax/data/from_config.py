"""From a config to the data of a run: its categories, its training and validation images, its batches."""

import collections
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Collection, Sequence

import numpy as np
from ml_collections import ConfigDict

from fsis_jax import fis_cell
from fsis_jax.data.closed_set import ClosedSetSampler, class_ids
from fsis_jax.data.episodes import EpisodeSampler
from fsis_jax.data.opening import open_source
from fsis_jax.data.pipeline import BatchIterator, make_batches
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path
from fsis_jax.preprocess.records import Annotations, Source, Subset
from fsis_jax.preprocess.transform_config import transform_config
from fsis_jax.preprocess.transforms import own_scale
from fsis_jax.synthetic.generate import generate

DEBUG_TRAIN, DEBUG_VALIDATION = 8, 4
"""Images of a run with `config.debug`."""
LEAST_VALIDATION = 3
"""Images that validate, whatever the share, but for no more than a third of all: one tells little."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of one run."""

    seen: tuple[int, ...]
    """Ids of the categories that may be learnt; of a closed-set detector in the order of its classes."""
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


def seen_and_unseen(config: ConfigDict, source: Source) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the categories that a run learns, and of those that its fold holds out.

    Of a closed-set detector those of its classes, in their order, and none.

    Raises:
        FsisError: the data set has no such fold, or not all of the classes.
    """
    if config.model.classes:
        return class_ids(source.categories, config.model.classes), ()
    return held_out(source, config.data.fold)


def open_split(config: ConfigDict, split: str) -> Source:
    """The "train" or "test" images of `config.data.root`, which is made first if `config.data.synthetic` says so.

    Raises:
        FsisError: the data cannot be used, or do not have the keypoints that the model has.
    """
    root = _data_root(config)
    if config.data.synthetic and not root.exists():
        _logger.info("making synthetic cells in %s", root)
        generate(root, seed=config.seed)
    head = config.model.keypoint_head
    source = open_source(root, split, keypoints=head.kind != "none")
    if head.kind != "none":
        count = max((len(annotations.keypoint_names) for annotations in source.annotations), default=0)
        if count != head.keypoints:
            raise FsisError(
                f"{root}: its {split} images have {count} keypoints, config.model.keypoint_head.keypoints is "
                f"{head.keypoints}: give --config.model.keypoint_head.keypoints={count}"
                if count
                else f"{root}: its {split} images have no keypoints: give a COCO keypoint file, or "
                "--config.model.keypoint_head.kind=none"
            )
    return source


def _data_root(config: ConfigDict) -> pathlib.Path:
    """`config.data.root`; for a missing "fis_cell" the folder beside it that the PyTorch project calls "fss_cell"."""
    root = user_path(config.data.root)
    ours, theirs = fis_cell.FOLDERS
    other = root.with_name(theirs)
    if root.name == ours and not root.exists() and other.is_dir():
        _logger.info("%s: no such folder; reading %s", root, other)
        return other
    return root


def open_splits(config: ConfigDict) -> Splits:
    """Open the training images and set the validation images apart, at random by `config.seed`.

    Images that show cells of held-out categories only, or nothing but crowds, are left out of both; for a closed-set
    detector, all that show none of its classes. With `config.debug` a few of each are taken.

    Raises:
        FsisError: if no image is left to train on.
    """
    source = open_split(config, "train")
    seen, unseen = seen_and_unseen(config, source)
    plain = bool(config.model.classes)

    def is_usable(annotations: Annotations) -> bool:
        if plain:
            return bool(_shown(annotations, seen))
        # A crowd gives no reference, and an image with one is none without such cells.
        return not len(annotations.classes) or bool(np.isin(annotations.classes[~annotations.crowd], seen).any())

    usable = [position for position, annotations in enumerate(source.annotations) if is_usable(annotations)]
    if not usable:
        which = "one of config.model.classes" if plain else f"a category outside fold {config.data.fold}"
        raise FsisError(f"{config.data.root}: no training image shows {which}")
    fraction = config.data.validation_fraction
    count = max(round(fraction * len(usable)), min(LEAST_VALIDATION, len(usable) // 3)) if fraction else 0
    order = np.random.default_rng((config.seed, len(usable))).permutation(usable).tolist()
    validation = _set_apart(source, order, count, seen)
    train = sorted(set(usable) - set(validation))
    if not validation:
        _logger.info("validating on the %d training images themselves", len(usable))
        validation = train
    if config.debug:
        train, validation = _few(source, train, validation, seen)
    return Splits(seen, unseen, Subset(source, train), Subset(source, sorted(validation)))


def _few(
    source: Source, train: Sequence[int], validation: Sequence[int], seen: Collection[int]
) -> tuple[list[int], list[int]]:
    """Some of the training and of the validation images, the categories of the latter among those of the former."""
    first: dict[int, int] = {}
    for position in reversed(train):
        first |= dict.fromkeys(_shown(source.annotations[position], seen), position)
    few_train: set[int] = set()
    few_validation: list[int] = []
    for position in validation:
        needed = few_train | {first[category] for category in _shown(source.annotations[position], seen)}
        if len(few_validation) < DEBUG_VALIDATION and len(needed) <= DEBUG_TRAIN:
            few_train = needed
            few_validation.append(position)
    others = [position for position in train if position not in few_train]
    few_train |= set(others[: DEBUG_TRAIN - len(few_train)])
    return sorted(few_train), few_validation or sorted(few_train)[:DEBUG_VALIDATION]


def _set_apart(source: Source, order: Sequence[int], count: int, seen: Collection[int]) -> list[int]:
    """The first `count` images of `order` that show a seen category and leave each of theirs an image to train on.

    A validation image without a cell tells nothing, and one whose categories are nowhere else has no references.
    """
    shown = {position: _shown(source.annotations[position], seen) for position in order}
    left = collections.Counter(category for categories in shown.values() for category in categories)
    chosen: list[int] = []
    for position in order:
        if len(chosen) < count and shown[position] and all(left[category] > 1 for category in shown[position]):
            chosen.append(position)
            left.subtract(shown[position])
    return chosen


def _shown(annotations: Annotations, seen: Collection[int]) -> set[int]:
    """The seen categories of which an image shows an instance, crowds apart."""
    return set(annotations.classes[~annotations.crowd].tolist()) & set(seen)


def _repeated(annotations: Sequence[Annotations], seen: Collection[int], exponent: float) -> list[int]:
    """Positions of the targets of an epoch, those of rare categories several times (repeat factors, LVIS 2019)."""
    shown = [_shown(record, seen) for record in annotations]
    images = collections.Counter(category for categories in shown for category in categories)
    most = max(images.values(), default=1)
    times = [max((round((most / images[category]) ** exponent) for category in here), default=1) for here in shown]
    return [position for position, count in enumerate(times) for _ in range(count)]


def training_batches(
    config: ConfigDict, splits: Splits, steps: int, *, rows: Sequence[int] | None = None
) -> BatchIterator:
    """The batches of a run of `steps` steps, or these rows of each."""
    transform = transform_config(config)
    targets: Sequence[int] = range(len(splits.train))
    if config.model.classes:
        sampler: EpisodeSampler | ClosedSetSampler = ClosedSetSampler(targets)
    else:
        sampler = EpisodeSampler(
            splits.train.annotations,
            categories=splits.seen,
            targets=_repeated(splits.train.annotations, splits.seen, config.data.repeat_rare),
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
        rows=rows,
    )
