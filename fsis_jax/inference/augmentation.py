"""Test-time augmentation: in which other ways an image is shown to the network (Detectron's BBOX_AUG and MASK_AUG)."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to show an image."""

    times: float = 1.0
    """Its scale, times the usual one."""
    flipped: bool = False
    """Left and right have changed places."""


def variants(*, flip: bool, scales: Sequence[float]) -> tuple[Variant, ...]:
    """What is shown beside the usual image: with `flip` all of them flipped too.

    Args:
        flip, scales: as `config.eval` has them.
    """
    upright = (Variant(), *(Variant(scale) for scale in scales))
    flipped = [Variant(variant.times, True) for variant in upright] if flip else []
    return (*upright[1:], *flipped)
