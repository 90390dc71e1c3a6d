"""What a model finds on test images: every target, with references of every category to evaluate.

References come from other images (the category's train split, what users do), from the target itself (what the
PyTorch project's test does), or, as a control, from other images of a wrong category: a model that follows its
references should then find little.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fsis_jax.data.episodes import ReferenceBox, evaluation_references
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import J, Job
from fsis_jax.inference.references import References
from fsis_jax.io.decoding import decode_image
from fsis_jax.io.intensity import Image, Stretch
from fsis_jax.preprocess.records import ReferencesFrom, Source
from fsis_jax.preprocess.transforms import cut_reference

# A stream of random numbers of its own; see data/episodes.py for the others.
_WRONG_STREAM = 21

T = TypeVar("T")


class Model(Protocol):
    """What is tested: a `Segmenter`, or what takes its place."""

    config: ConfigDict
    min_score: float

    def encode_references(
        self, crops: Sequence[np.ndarray], *, stretches: Sequence[Stretch | None], checked: bool
    ) -> References: ...

    def stretch_of(self, image: Image, sides: np.ndarray) -> Stretch | None: ...

    def candidates(self, jobs: Iterable[J]) -> Iterator[tuple[J, Instances]]: ...


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
    model: Model,
    targets: Source,
    train: Source,
    categories: Sequence[int],
    *,
    shots: int,
    references: ReferencesFrom,
    repeat: int = 0,
    seed: int = 0,
    max_images: int = 0,
    progress: str = "",
) -> list[Prediction]:
    """Segment the targets that show one of `categories`, once for each of those that they show.

    Args:
        model: the model.
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
        FsisError: as `pairs_to_test`, or a category has no reference.
    """
    work = pairs_to_test(targets, categories, max_images)
    found = segment_targets(model, targets, train, work, shots=shots, references=references, repeat=repeat, seed=seed)
    return list(with_progress(found, progress, len(work)))


def with_progress(items: Iterable[T], title: str, total: int) -> Iterable[T]:
    """The items, with a progress bar on stderr that counts images; none if the title is empty."""
    shown = sys.stderr is not None  # a program with a window has none
    interval = 0.1 if shown and sys.stderr.isatty() else 30
    return tqdm(
        items, desc=title, total=total, unit="image", disable=not (title and shown), leave=False, mininterval=interval
    )


def pairs_to_test(source: Source, categories: Sequence[int], max_images: int) -> list[tuple[int, int]]:
    """(target, category) of every evaluated category that a target shows; arguments as for `predict`.

    Raises:
        FsisError: if no target shows any of the categories.
    """
    chosen: set[int] = set()
    for category in categories:
        showing = [target for target in range(len(source)) if category in shown(source, target)]
        chosen.update(spread(showing, max_images))
    if not chosen:
        raise FsisError(f"no image shows a cell of the categories {sorted(categories)}; check eval.split and data.fold")
    return [
        (target, category) for target in sorted(chosen) for category in sorted(shown(source, target) & {*categories})
    ]


def spread(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the values, evenly spread; 0 takes all."""
    if not count or len(values) <= count:
        return list(values)
    return [values[row] for row in np.linspace(0, len(values) - 1, count).astype(int)]


def shown(source: Source, target: int) -> set[int]:
    """Ids of the categories that a target shows."""
    annotations = source.annotations[target]
    return set(annotations.classes[~annotations.crowd].tolist())


@dataclasses.dataclass(frozen=True)
class _Episode(Job):
    references: References
    target: int = -1
    category: int = -1


def segment_targets(
    model: Model,
    targets: Source,
    train: Source,
    work: Sequence[tuple[int, int]],
    *,
    shots: int,
    references: ReferencesFrom,
    repeat: int = 0,
    seed: int = 0,
) -> Iterator[Prediction]:
    """Segment targets, each with references of a category that it may or may not show.

    Args:
        work: position of the target and category of each prediction; the others are as for `predict`.
    """

    def jobs() -> Iterator[_Episode]:
        known = _categories(train) if references == "wrong" else set()
        for target, category in work:
            told = category
            if references == "wrong":
                others = sorted(known - shown(targets, target))
                if not others:
                    raise FsisError(
                        f"{targets.annotations[target].file_name} shows every category of the train split, so none is "
                        "wrong: set config.eval.references to train"
                    )
                rng = np.random.default_rng((seed, _WRONG_STREAM, repeat, target, category))
                told = int(rng.choice(others))
            boxes = evaluation_references(
                targets.annotations,
                train.annotations,
                target,
                told,
                shots,
                source="target" if references == "target" else "train",
                repeat=repeat,
                seed=seed,
            )
            shown_in = targets if references == "target" else train
            crops, stretches = zip(*(reference_of(model, shown_in, box) for box in boxes), strict=True)
            encoded = model.encode_references(crops, stretches=stretches, checked=False)
            yield _Episode(read_target(targets, target), encoded, target=target, category=category)

    for episode, instances in model.candidates(jobs()):
        yield Prediction(
            target=episode.target,
            image_id=targets.annotations[episode.target].image_id,
            category=episode.category,
            instances=dataclasses.replace(instances, category=targets.categories[episode.category]),
            references=episode.references.images,
        )


def reference_of(model: Model, source: Source, reference: ReferenceBox) -> tuple[np.ndarray, Stretch | None]:
    """A box cut out of its image, as the model's config has it, and how that image is stretched."""
    image = read_target(source, reference.record)
    x1, y1, x2, y2 = reference.box
    sides = np.array([[y2 - y1, x2 - x1]], np.float32)
    legacy = model.config.data.transform.legacy_reference_crop
    return cut_reference(image, reference.box, legacy=legacy), model.stretch_of(image, sides)


def _categories(source: Source) -> set[int]:
    return set().union(*(shown(source, position) for position in range(len(source))))


def read_target(source: Source, position: int) -> np.ndarray:
    """The decoded image of a record."""
    record = source[position]
    return decode_image(record.encoded, record.annotations.file_name)
