"""Episodes: which target, which references, and whether the references' category is in the target.

Follows the PyTorch project's `lib/roi_data/loader.py` with two changes: references come from other images than the
target, because the target's own cell would give its answer away, and nothing is kept between draws: an episode is a
pure function of (seed, index), so that a resumed run, and any number of workers, see the same.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

import cv2
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.preprocess.records import Annotations, ReferenceSource
from fsis_jax.preprocess.windows import decode_columns

Kind = Literal["present", "background", "absent", "plain"]
"""What the references show; "plain": there are none (closed_set.py)."""
BACKGROUND_SIDES = (32, 64, 128)
"""Sides of background patches, in pixels of the resized target."""
BACKGROUND_MARGIN = 2
"""A background patch touches no instance dilated by this many pixels of the stored image."""

# Streams of random numbers that must not repeat one another.
_EPISODE_STREAM, _ORDER_STREAM, _TEST_STREAM = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class ReferenceBox:
    """An example cell: a box of a record, not yet cut out."""

    record: int
    """Position of the record in its source."""
    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2) in pixels of the stored image."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One training sample."""

    target: int
    """Position of the target's record in the source."""
    kind: Kind
    category: int | None
    """Category of the references; None for background patches, and where there are no references."""
    references: tuple[ReferenceBox, ...]
    contrast_category: int | None = None
    """Another category, for the box head to tell apart from the references'; None where not used."""
    contrast: tuple[ReferenceBox, ...] = ()
    """As many references of it."""
    others: tuple[int, ...] = ()
    """Positions of 1 or 3 records that show none of the target's categories nor of the references', for a mosaic."""


@functools.lru_cache(maxsize=256)
def _epoch_order(count: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER_STREAM, stream, epoch)).permutation(count)


def shuffled(values: Sequence[int], position: int, *, seed: int, stream: int = 0) -> int:
    """The value at `position` of an endless sequence of seeded permutations of `values`, one per epoch."""
    epoch, place = divmod(position, len(values))
    return values[int(_epoch_order(len(values), seed, stream, epoch)[place])]


class EpisodeSampler:
    """Episode of each index: `sampler(index)`, a pure function of (seed, index).

    Args:
        annotations: of all records of the source.
        categories: ids that may be learnt; references are of these only.
        targets: positions of the records to train on, some perhaps several times. References come from these records
            too, and from no other.
        shots: references per episode.
        scale_of: scale by which a record is resized when it gives its own background patches
            (`transforms.own_scale`).
        present, background: probabilities of these kinds; the rest is "absent". Where a kind is impossible for a
            target, another takes its place: present -> absent, background -> absent, absent -> background -> present.
        reference_source: where references of a present category come from, if there are any: "other" images,
            the "target" itself (the cell shown is then also one to find), or "any".
        min_reference_area: references have a larger mask, in pixels of the stored image.
        contrast: also draw references of another category, half of the time one that the target shows if there is one;
            without effect where there is only one category.
        mosaic: probability that other targets, of other categories, are shown beside the target; without effect where
            there are none.
    """

    def __init__(
        self,
        annotations: Sequence[Annotations],
        *,
        categories: Collection[int],
        targets: Sequence[int],
        shots: int,
        scale_of: Callable[[Annotations], float],
        present: float = 0.8,
        background: float = 0.1,
        reference_source: ReferenceSource = "other",
        min_reference_area: float = 20.0,
        contrast: bool = False,
        mosaic: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not targets:
            raise FsisError("no target image to train on: the split is empty; check the data root, split and fold")
        self.annotations = annotations
        self.targets = tuple(int(target) for target in targets)
        self.shots = shots
        self.seed = seed
        self._scale_of = scale_of
        self._kind_edges = (present, present + background)
        self._reference_source = reference_source
        pools = {category: _pool(annotations, {*self.targets}, category, min_reference_area) for category in categories}
        self._pools: Mapping[int, np.ndarray] = {
            category: pool for category, pool in sorted(pools.items()) if len(pool)
        }
        if not self._pools:
            raise FsisError(
                f"no usable reference: none of the categories {sorted(categories)} has an instance of more than "
                f"{min_reference_area} pixels in the training images; lower min_reference_area or check the fold"
            )
        self._contrast = contrast and len(self._pools) > 1
        self._mosaic = mosaic
        self._shown = {target: frozenset(annotations[target].classes.tolist()) for target in self.targets}
        held = [np.unique(annotations[target].classes[~annotations[target].crowd]) for target in self.targets]
        self._image_counts = dict(zip(*np.unique(np.concatenate(held), return_counts=True), strict=True))

    def __call__(self, index: int) -> Episode:
        """Episode `index` of the run; every epoch visits each of `targets` once."""
        return self.episode(index, shuffled(self.targets, index, seed=self.seed))

    def episode(self, index: int, target: int) -> Episode:
        """Episode `index` with a given target."""
        rng = np.random.default_rng((self.seed, _EPISODE_STREAM, index))
        draw = rng.random()
        if draw < self._kind_edges[0]:
            order = [self._present, self._absent]
        elif draw < self._kind_edges[1]:
            order = [self._background, self._absent, self._present]
        else:
            order = [self._absent, self._background, self._present]
        for make in order:
            episode = make(rng, target)
            if episode is not None:
                if self._mosaic and rng.random() < self._mosaic:
                    episode = self._with_others(rng, episode)
                return self._with_contrast(rng, episode) if self._contrast else episode
        # Present and absent together cover every category that has a reference, and the constructor saw one.
        raise AssertionError(f"no episode for record {target}")

    def _present(self, rng: np.random.Generator, target: int) -> Episode | None:
        record = self.annotations[target]
        found = [int(c) for c in np.unique(record.classes[~record.crowd]) if int(c) in self._pools]
        if not found:
            return None
        weights = np.array([1.0 / self._image_counts[category] for category in found])
        category = int(rng.choice(found, p=weights / weights.sum()))
        pool = self._pools[category]
        own = pool[:, 0] == target
        if self._reference_source == "other" and not own.all():
            pool = pool[~own]
        elif self._reference_source == "target" and own.any():
            pool = pool[own]
        return Episode(target, "present", category, self._draw(rng, pool))

    def _absent(self, rng: np.random.Generator, target: int) -> Episode | None:
        here = set(self.annotations[target].classes.tolist())
        absent = [category for category in self._pools if category not in here]
        if not absent:
            return None
        category = int(rng.choice(absent))
        return Episode(target, "absent", category, self._draw(rng, self._pools[category]))

    def _background(self, rng: np.random.Generator, target: int) -> Episode | None:
        record = self.annotations[target]
        boxes = background_patches(rng, record, self.shots, scale=self._scale_of(record))
        if boxes is None:
            return None
        return Episode(target, "background", None, tuple(ReferenceBox(target, box) for box in boxes))

    def _with_others(self, rng: np.random.Generator, episode: Episode) -> Episode:
        """A mosaic of 2 or 4, whose other parts do not show what the references show."""
        avoided = {*self._shown[episode.target], episode.category}
        fitting = [target for target in self.targets if self._shown[target].isdisjoint(avoided)]
        count = int(rng.choice([1, 3]))
        if len(fitting) < count:
            return episode
        others = rng.choice(fitting, count, replace=False)
        return dataclasses.replace(episode, others=tuple(others.tolist()))

    def _with_contrast(self, rng: np.random.Generator, episode: Episode) -> Episode:
        others = [category for category in self._pools if category != episode.category]
        visible = set().union(*(self._shown[target] for target in (episode.target, *episode.others)))
        shown = visible.intersection(others)
        if shown and rng.random() < 0.5:
            others = sorted(shown)
        category = int(rng.choice(others))
        contrast = self._draw(rng, self._pools[category])
        return dataclasses.replace(episode, contrast_category=category, contrast=contrast)

    def _draw(self, rng: np.random.Generator, pool: np.ndarray) -> tuple[ReferenceBox, ...]:
        return _draw(rng, pool, self.shots, self.annotations)


def evaluation_references(
    target_annotations: Sequence[Annotations],
    train_annotations: Sequence[Annotations],
    target: int,
    category: int,
    shots: int,
    *,
    source: Literal["train", "target"] = "train",
    repeat: int = 0,
    seed: int = 0,
    min_reference_area: float = 20.0,
) -> tuple[ReferenceBox, ...]:
    """References of `category` for evaluating one target; a pure function of its arguments.

    "train": from the images of the train split (what a user does); `ReferenceBox.record` counts in that split.
    "target": from the target itself (what the PyTorch project's test does; its quirk Q7). Where no instance is large
    enough, all count; where there are fewer than `shots`, some are shown twice. The reference of 1 shot is the first
    of those of 5 shots.

    Raises:
        FsisError: there is no instance of the category.
    """
    if source not in ("train", "target"):
        raise FsisError(f"source of test references {source!r}: use 'train' or 'target'")
    annotations = train_annotations if source == "train" else target_annotations
    records = range(len(train_annotations)) if source == "train" else (target,)
    pool = _pool(annotations, records, category, min_reference_area)
    if not len(pool):
        pool = _pool(annotations, records, category, 0.0)
    if not len(pool):
        where = "the train split" if source == "train" else target_annotations[target].file_name
        raise FsisError(
            f"no reference of category {category} in {where}; "
            "choose the other source of references (eval.references) or leave the category out"
        )
    rng = np.random.default_rng((seed, _TEST_STREAM, repeat, target, category))
    return _draw(rng, pool, shots, annotations)


def has_reference(annotations: Sequence[Annotations], category: int) -> bool:
    """Whether any instance can be shown as a reference of `category`."""
    return len(_pool(annotations, range(len(annotations)), category, 0.0)) > 0


def background_patches(
    rng: np.random.Generator, record: Annotations, count: int, *, scale: float
) -> list[tuple[float, float, float, float]] | None:
    """`count` square boxes (x1, y1, x2, y2) of the stored image that touch no instance and do not overlap one another.

    Their side is one of `BACKGROUND_SIDES` pixels of the resized image, drawn among those of which there are enough;
    None where there is none.
    """
    found = np.zeros((record.height, record.width), np.uint8)
    for counts, box in zip(record.rles, record.boxes, strict=True):
        x0, x1 = max(0, math.floor(box[0])), min(record.width, math.ceil(box[2]))
        found[:, x0:x1] |= decode_columns(counts, record.height, x0, x1)
    blocked = cv2.dilate(found, np.ones((2 * BACKGROUND_MARGIN + 1,) * 2, np.uint8))
    for side in rng.permutation(BACKGROUND_SIDES):
        patches = list(_free_squares(rng, blocked, max(2, round(int(side) / scale)), count))
        if len(patches) == count:
            return patches
    return None


def _free_squares(
    rng: np.random.Generator, blocked: np.ndarray, side: int, count: int
) -> Iterator[tuple[float, float, float, float]]:
    if side > min(blocked.shape):
        return
    sums = cv2.integral(blocked)
    free = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side] == 0
    for _ in range(count):
        corners = np.flatnonzero(free)
        if not len(corners):
            return
        y, x = divmod(int(rng.choice(corners)), free.shape[1])
        yield float(x), float(y), float(x + side), float(y + side)
        free[max(0, y - side + 1) : y + side, max(0, x - side + 1) : x + side] = False


def can_be_shown(record: Annotations, min_area: float) -> np.ndarray:
    """(N,) bool, which instances are large enough for a reference: more than `min_area` pixels, 2 wide and high."""
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    return np.asarray(~record.crowd & (record.areas > min_area) & (sides >= 2).all(axis=1))


def _pool(annotations: Sequence[Annotations], records: Collection[int], category: int, min_area: float) -> np.ndarray:
    """(n, 2) int: record and row of every instance that can serve as a reference of `category`.

    A cell that the border of its image cuts shows neither its size nor its shape, and nobody would choose it: such
    instances count only where the category has no others.
    """
    whole, cut = [], []
    for position in sorted(records):
        record = annotations[position]
        boxes = record.boxes
        usable = (record.classes == category) & can_be_shown(record, min_area)
        inside = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < (record.width, record.height)).all(axis=1)
        whole += [(position, row) for row in np.flatnonzero(usable & inside).tolist()]
        cut += [(position, row) for row in np.flatnonzero(usable & ~inside).tolist()]
    return np.array(whole or cut, np.int64).reshape(-1, 2)


def _draw(
    rng: np.random.Generator, pool: np.ndarray, shots: int, annotations: Sequence[Annotations]
) -> tuple[ReferenceBox, ...]:
    """Without replacement as far as the pool goes, then from its start again."""
    order = rng.permutation(len(pool))
    chosen = pool[order[np.arange(shots) % len(pool)]].tolist()
    return tuple(ReferenceBox(record, tuple(annotations[record].boxes[row].tolist())) for record, row in chosen)
