"""An image to segment, and how far that is."""

import dataclasses
import functools
import itertools
from collections.abc import Container, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.references import References
from fsis_jax.inference.tile_plan import TilePlan
from fsis_jax.inference.tiling import Tile, merge_scales, merge_tiles
from fsis_jax.io.given import ImageLike
from fsis_jax.io.intensity import Stretch
from fsis_jax.models.arrays import Detections


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
    only: Container[int] | None = None
    """Numbers of the tiles to segment; the others another process does. None: all."""
    stretches: Sequence[Stretch | None] = ()
    """Of each plan of the image, where they are known; (): taken from the image."""


J = TypeVar("J", bound=Job)


@dataclasses.dataclass(frozen=True)
class Work(Generic[J]):
    """An image that is being segmented; its tiles are numbered through all of its plans."""

    job: J
    plans: Sequence[TilePlan]
    """One for each size of references (`size_groups`), and so each scale."""
    references: References
    nothing: Instances
    """What a tile without an instance gives."""
    parts: dict[int, Instances] = dataclasses.field(default_factory=dict)
    """What was found in the finished tiles, by number; at first those of the job's journal."""

    def __post_init__(self) -> None:
        if self.job.journal is not None:
            only = self.job.only
            finished = self.job.journal.finished.items()
            self.parts.update({number: found for number, found in finished if only is None or number in only})

    @property
    def done(self) -> bool:
        return len(self.parts) >= len(self.wanted)

    @functools.cached_property
    def wanted(self) -> range | list[int]:
        """Numbers of the tiles to segment."""
        only, every = self.job.only, range(len(self.tiles))
        return every if only is None else [number for number in every if number in only]

    @functools.cached_property
    def tiles(self) -> list[tuple[TilePlan, Tile]]:
        """All tiles, by their numbers, each with the plan that it is of."""
        return [(plan, tile) for plan in self.plans for tile in plan.tiles]

    def prepared(
        self, size: int, variants: Sequence[Variant]
    ) -> Iterator[tuple[TilePlan, list[int], list[list[np.ndarray]]]]:
        """The tiles that are left, up to `size` of a plan at once, of one that has but one tile that alone.

        Tiles that show nothing are finished with that. A tile is read when it is asked for.

        Yields:
            The plan; the numbers of the tiles; each as it is and in the `variants`.
        """
        chosen: list[int] = []
        images: list[list[np.ndarray]] = []
        left = [number for number in self.wanted if number not in self.parts]
        for place, number in enumerate(left):
            plan, tile = self.tiles[number]
            pixels = plan.prepare(tile)
            if pixels is None:
                self.parts[number] = self.nothing
            else:
                chosen.append(number)
                images.append([pixels, *(plan.prepare_variant(tile, variant) for variant in variants)])
            last = place + 1 == len(left) or self.tiles[left[place + 1]][0] is not plan
            if chosen and (last or len(chosen) == size or len(plan.tiles) == 1):
                yield plan, chosen, images
                chosen, images = [], []

    def finish(self, number: int, found: Instances) -> None:
        """Note what was found in a tile; in the journal, too, but for an image that is one tile and that all of it."""
        self.parts[number] = found
        if self.job.journal is not None and (len(self.tiles) > 1 or self.job.only is not None):
            self.job.journal.add(number, found)

    def whole(self, min_score: float) -> Instances:
        """The instances of the image, as far as its tiles are finished."""
        parts = iter([self.parts.get(number, self.nothing) for number in range(len(self.tiles))])
        scales = []
        for plan in self.plans:
            of_plan = list(itertools.islice(parts, len(plan.tiles)))
            merged = merge_tiles(of_plan, plan.tiles, plan.size, plan.margin) if len(of_plan) > 1 else of_plan[0]
            scales.append(merged)
        found = merge_scales(scales)
        return dataclasses.replace(
            found,
            min_score=min_score,
            names=self.nothing.names,
            unwanted=self.references.unwanted,
            boxes_only=self.nothing.boxes_only,
        )


@dataclasses.dataclass(frozen=True)
class TileBatch(Generic[J]):
    """Tiles of one image that the device is at work on."""

    work: Work[J]
    tiles: list[int]
    """Their numbers."""
    detections: Detections | None
    """What was found in the tiles, and in copies of the last one up to the batch's size; None without a tile."""
