"""What a person has shown and corrected: values that never change, so that undo is a step back to an earlier one.

The score and the area only choose among what was found: `Tidying` goes through the instances by descending score, so
that those which it keeps at a threshold are the first of those which it keeps at 0. A `Result` holds the latter, and
another threshold needs neither the network nor a second look at the masks.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.cropped_mask import CroppedMask, Size
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.neighbours import box_ious
from fsis_jax.io.outlines import Box

Verdict = Literal["right", "wrong", "deleted"]
"""What a person says of an instance: it counts whatever the filters say; it is no such cell; it must not be there."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_LEAST_SIDE = 2
"""Pixels of a box."""
_SAME = 0.5
"""IoU of two boxes from which they are taken for the same cell."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """A box around an example cell, in whole pixels of an image."""

    image: str
    """Path."""
    box: Box

    def __str__(self) -> str:
        """As `fsis segment --reference` takes it."""
        return f"{self.image}:{','.join(str(int(value)) for value in self.box)}"


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which instances count."""

    min_score: float
    min_area: float = 0.0
    """Pixels ..."""
    max_area: float = np.inf
    """... as in `Tidying`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What was found in an image, and what a person says of it."""

    found: Instances
    """Of any score, tidied: no pixel is in two masks."""
    references: tuple[Reference, ...]
    """That it was found with."""
    part: Box | None = None
    """The part of the image that was segmented; None: all of it."""
    verdicts: Mapping[int, Verdict] = dataclasses.field(default_factory=dict)
    """Row of `found` -> what was said of it."""
    added: tuple[CroppedMask, ...] = ()
    """Cells that were missed."""

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask of `found`."""
        return self.found.areas()

    def judged(self, *verdicts: Verdict) -> np.ndarray:
        """(N,) bool, the instances of which one of these was said."""
        rows = np.zeros(len(self.found), bool)
        rows[[row for row, verdict in self.verdicts.items() if verdict in verdicts]] = True
        return rows

    def kept(self, filters: Filters) -> np.ndarray:
        """(N,) bool, the instances of `found` that count."""
        keep = self.found.scores >= filters.min_score
        keep &= (self.areas >= filters.min_area) & (self.areas <= filters.max_area)
        return (keep & ~self.judged("wrong", "deleted")) | self.judged("right")

    def counted(self, filters: Filters) -> Instances:
        """The cells that count, the added ones with a score of 1 and first."""
        kept = self.found.select(self.kept(filters))
        if self.added:
            boxes = np.array([crop.extent for crop in self.added], np.float32)
            kept = dataclasses.replace(
                kept,
                boxes=np.concatenate([boxes, kept.boxes]),
                scores=np.concatenate([np.ones(len(boxes), np.float32), kept.scores]),
                masks=(*self.added, *kept.masks),
            )
        # What was said to be right may score less than the filter asks for.
        return dataclasses.replace(kept, min_score=min(filters.min_score, float(kept.scores.min(initial=1))))

    def instance_at(self, x: float, y: float, filters: Filters) -> int | None:
        """The row of `found` with this pixel that is seen: it counts, or is marked as wrong."""
        seen = np.flatnonzero(self.kept(filters) | self.judged("wrong"))
        hits = [row for row in seen.tolist() if _holds(self.found.masks[row], x, y)]
        return hits[0] if hits else None

    def added_at(self, x: float, y: float) -> int | None:
        """The number of the added cell with this pixel."""
        hits = [number for number, crop in enumerate(self.added) if _holds(crop, x, y)]
        return hits[-1] if hits else None

    def likest(self, box: Box) -> int | None:
        """The row of `found` whose box is most like this one, if any is."""
        overlaps = box_ious(box, self.found.boxes)
        best = int(np.argmax(overlaps)) if len(overlaps) else None
        return best if best is not None and overlaps[best] >= _SAME else None

    def taken_over(self, earlier: "Result | None") -> "Result":
        """This result with what was said of an earlier one of the image, where the same cells were found again."""
        if earlier is None:
            return self
        verdicts: dict[int, Verdict] = {}
        for row, verdict in earlier.verdicts.items():
            x1, y1, x2, y2 = earlier.found.boxes[row].tolist()
            again = self.likest((x1, y1, x2, y2))
            if again is not None:
                verdicts.setdefault(again, verdict)
        return dataclasses.replace(self, verdicts=verdicts, added=earlier.added)


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """All that undo takes back."""

    references: tuple[Reference, ...] = ()
    results: Mapping[str, Result] = dataclasses.field(default_factory=dict)
    """Path of an image -> what was found in it."""


def whole_pixels(box: Box, size: Size) -> Box:
    """A box in whole pixels, cut off at the borders of its image.

    Raises:
        FsisError: nearly nothing is left.
    """
    height, width = size
    x1, x2 = sorted(min(max(round(x), 0), width) for x in box[::2])
    y1, y2 = sorted(min(max(round(y), 0), height) for y in box[1::2])
    if min(x2 - x1, y2 - y1) < _LEAST_SIDE:
        raise FsisError(f"a box of {x2 - x1}x{y2 - y1} pixels: drag one around a whole cell")
    return float(x1), float(y1), float(x2), float(y2)


def ellipse(box: Box) -> CroppedMask:
    """The mask of a cell of which only the box is known: the ellipse that fills it."""
    x1, y1, x2, y2 = (int(value) for value in box)
    across = (np.arange(x1, x2) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = (np.arange(y1, y2) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return CroppedMask(y1, x1, down[:, None] ** 2 + across[None] ** 2 <= 1)


def _holds(crop: CroppedMask, x: float, y: float) -> bool:
    x1, y1, x2, y2 = crop.extent
    return x1 <= x < x2 and y1 <= y < y2 and bool(crop.mask[int(y) - y1, int(x) - x1])
