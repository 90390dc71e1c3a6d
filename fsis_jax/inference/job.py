"""An image to segment, and how far that is."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.references import References
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.inference.tiling import merge_tiles
from fsis_jax.io.given import ImageLike
from fsis_jax.models.detection import Detections


@dataclasses.dataclass(frozen=True)
class Job:
    """An image to segment. A subclass may carry what its caller wants back with the result."""

    image: ImageLike
    """As `Segmenter.segment` takes it."""
    references: References | Sequence[ImageLike] | None = None
    """Encoded, or crops; None for a closed-set detector."""
    pixel_size: float | None = None
    """Micrometres per pixel of the image; None: as it says itself. It counts where the references have theirs too."""
    journal: Journal | None = None
    """Where finished tiles of a large image are noted; those that are there already are not segmented again."""


J = TypeVar("J", bound=Job)


@dataclasses.dataclass(frozen=True)
class Work(Generic[J]):
    """An image that is being segmented."""

    job: J
    plan: TilePlan
    references: References
    nothing: Instances
    """What a tile without an instance gives."""
    parts: dict[int, Instances] = dataclasses.field(default_factory=dict)
    """What was found in the finished tiles, by number; at first those of the job's journal."""

    def __post_init__(self) -> None:
        if self.job.journal is not None:
            self.parts.update(self.job.journal.finished)

    @property
    def done(self) -> bool:
        return len(self.parts) == len(self.plan.tiles)

    def prepared(self, size: int, variants: Sequence[Variant]) -> Iterator[tuple[list[int], list[list[np.ndarray]]]]:
        """The tiles that are left, up to `size` at once: their numbers, and each as it is and in the `variants`.

        Tiles that show nothing are finished with that. A tile is read when it is asked for.
        """
        chosen: list[int] = []
        images: list[list[np.ndarray]] = []
        left = [number for number in range(len(self.plan.tiles)) if number not in self.parts]
        for number in left:
            tile = self.plan.tiles[number]
            pixels = self.plan.prepare(tile)
            if pixels is None:
                self.parts[number] = self.nothing
            else:
                chosen.append(number)
                images.append([pixels, *(self.plan.prepare_variant(tile, variant) for variant in variants)])
            if chosen and (len(chosen) == size or number == left[-1]):
                yield chosen, images
                chosen, images = [], []

    def finish(self, number: int, found: Instances) -> None:
        """Note what was found in a tile."""
        self.parts[number] = found
        if self.job.journal is not None and len(self.plan.tiles) > 1:
            self.job.journal.add(number, found)

    def whole(self, min_score: float) -> Instances:
        """The instances of the image, as far as its tiles are finished."""
        plan = self.plan
        parts = [self.parts.get(number, self.nothing) for number in range(len(plan.tiles))]
        found = parts[0] if len(parts) == 1 else merge_tiles(parts, plan.tiles, plan.size, plan.margin)
        names, boxes_only = self.nothing.names, self.nothing.boxes_only
        return dataclasses.replace(found, min_score=min_score, names=names, boxes_only=boxes_only)


@dataclasses.dataclass(frozen=True)
class TileBatch(Generic[J]):
    """Tiles of one image that the device is at work on."""

    work: Work[J]
    tiles: list[int]
    detections: Detections | None
    """Of the tiles, and of copies of the last one up to the size of the batch; None without a tile."""
