"""Sample images for `fsis demo` and the notebooks: two kinds of cell on one drawn image, with all that is true of it.

They are no training images: they are drawn with seeds, from 1002 on, that no data set here uses.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from fsis_jax.synthetic.appearances import APPEARANCES
from fsis_jax.synthetic.drawing import draw

KINDS: Mapping[str, str] = {"nuclei": "fluo_discs", "membranes": "fluo_membranes"}
"""What a sample shows -> its look; of fluorescence, and so grey."""
SIDE = 400
"""Height and width of a sample in pixels."""
_SEED = 1002
_ROOM = 3
"""Pixels that an example cell is away from the border and from other cells, at least."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A drawn image."""

    image: np.ndarray
    """(H, W) uint8."""
    labels: Mapping[str, np.ndarray]
    """Kind -> (H, W) int32, 0 = background and 1 ... n its cells, of each what can be seen."""

    def examples(self, kind: str, count: int = 3) -> list[tuple[int, int, int, int]]:
        """Boxes around cells that a user might show: whole, apart from others, neither the smallest nor the largest.

        Args:
            kind: of `KINDS`.
            count: at most 5; fewer are given where the image has no more.
        """
        covered = np.any([labels > 0 for labels in self.labels.values()], axis=0)
        height, width = covered.shape
        whole: list[tuple[int, tuple[int, int, int, int]]] = []
        for number in range(1, int(self.labels[kind].max()) + 1):
            mask = self.labels[kind] == number
            ys, xs = np.nonzero(mask)
            x1, y1, x2, y2 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
            inside = min(x1, y1, width - x2, height - y2) >= _ROOM
            around = (slice(max(y1 - _ROOM, 0), y2 + _ROOM), slice(max(x1 - _ROOM, 0), x2 + _ROOM))
            if inside and not (covered & ~mask)[around].any():
                whole.append((len(ys), (x1, y1, x2, y2)))
        ranks = np.linspace(0.25, 0.75, count) if count > 1 else np.array([0.5])
        places = np.unique(np.rint(ranks * (len(whole) - 1)).astype(int)) if whole else ()
        return [sorted(whole)[place][1] for place in places]


def draw_sample(number: int = 0) -> Sample:
    """Sample 0, 1, 2, ...: each the same whenever it is drawn."""
    drawing = draw(
        np.random.default_rng(_SEED + number), [APPEARANCES[appearance] for appearance in KINDS.values()], SIDE, SIDE
    )
    labels = {kind: np.zeros((SIDE, SIDE), np.int32) for kind in KINDS}
    kinds = list(KINDS)
    for mask, appearance in zip(drawing.masks, drawing.appearances, strict=True):
        image = labels[kinds[appearance]]
        image[mask] = image.max() + 1
    return Sample(drawing.pixels[..., 0], labels)
