"""From all that a detector found to the cells that a person counts: whole, apart, and of the sizes that are wanted."""

import dataclasses

import cv2
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.cropped_mask import CroppedMask, Size, largest_part


@dataclasses.dataclass(frozen=True)
class Tidying:
    """What is done to masks, and which instances are left out.

    Raises:
        FsisError: an area that is negative or not a number, or the least is above the most.
    """

    whole: bool = True
    """A mask is its largest connected part, without holes. False leaves masks as the network gives them."""
    exclude_edges: bool = False
    """Leave out instances that reach the border of the image, which may be cut."""
    min_area: float = 0.0
    """Pixels; an instance of fewer is left out ..."""
    max_area: float = np.inf
    """... as is one of more."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= self.max_area:
            raise FsisError(
                f"areas from {self.min_area:g} to {self.max_area:g} pixels: give 0 or more, the least first"
            )

    def __call__(self, candidates: Instances, min_score: float | None = None) -> Instances:
        """The instances that score at least `min_score` (None: the candidates' own), no pixel in two of them.

        Masks are made whole before `Instances.without_overlaps`, so that a cell inside another's hole stays apart;
        what is left out by its place, its size or as of an unwanted kind has taken its pixels all the same.
        """
        if min_score is None:
            min_score = candidates.min_score
        found = candidates.select(candidates.scores >= min_score)
        if self.whole and not found.boxes_only:
            found = dataclasses.replace(found, masks=tuple(_whole(crop) for crop in found.masks))
        found = found.without_overlaps(min_score)
        areas = found.areas()
        keep = (areas >= self.min_area) & (areas <= self.max_area)
        if found.unwanted:
            keep &= np.array([category not in found.unwanted for category in found.categories], bool)
        if self.exclude_edges:
            keep &= [not _at_edge(crop, found.size) for crop in found.masks]
        return found.select(keep)


WHOLE_CELLS = Tidying()
"""Every cell, in one piece and without holes."""


def _at_edge(crop: CroppedMask, size: Size) -> bool:
    """Whether a pixel of a mask lies in the first or last row or column of its image."""
    x1, y1, x2, y2 = crop.extent
    sides = (
        (y1 == 0, crop.mask[:1]),
        (x1 == 0, crop.mask[:, :1]),
        (y2 == size[0], crop.mask[-1:]),
        (x2 == size[1], crop.mask[:, -1:]),
    )
    return any(at_edge and bool(pixels.any()) for at_edge, pixels in sides)


def _whole(crop: CroppedMask) -> CroppedMask:
    """The largest connected part of a mask, its holes filled."""
    if crop.mask.all() or not crop.mask.any():
        return crop
    ground = np.pad(~largest_part(crop.mask), 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(ground, connectivity=8)
    return crop._replace(mask=(parts != parts[0, 0])[1:-1, 1:-1])
