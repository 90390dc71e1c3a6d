"""What a user should know before and after: references that show nothing or have odd sizes, images without a cell.

Crops are refused only if the network would see nothing in them at all: dim cells are stretched and seen.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.tile_plan import TilePlan, size_groups
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import to_8bit

_logger = logging.getLogger(__name__)


def check_crop(crop: np.ndarray, transform: TransformConfig, name: str) -> None:
    """Raise FsisError if there is nothing to see in a crop: (h, w) or (h, w, 3 or 4), any dtype.

    Args:
        name: of the crop, for messages.
    """
    pixels8 = to_8bit(crop, transform)
    if np.ptp(pixels8, axis=(0, 1)).any():
        return
    why = "all its pixels have one value" if np.isfinite(crop).any() else "none of its pixels has a value"
    raise FsisError(f"{name}: shows nothing, {why}: give a crop of a cell, from the channel and page that show it")


def size_warnings(
    sides: np.ndarray, transform: TransformConfig, names: Sequence[str] = (), owners: np.ndarray | None = None
) -> list[str]:
    """What will happen with references of sizes that the model cannot use well, a line for each reason.

    Args:
        sides: (k, 2), height and width of the cells in pixels of the images to segment.
        names: of the references, if they are to be named.
        owners: (k,), of each the row of its kind; None: of one kind.
    """
    if transform.scale != "reference" or not len(sides):
        return []
    each = np.sqrt(np.prod(sides, axis=1, dtype=np.float64))
    wanted = transform.reference_pixels
    least, most = wanted / transform.max_scale, wanted / transform.min_scale
    groups = size_groups(sides, transform, owners)
    warnings = []
    for rows, _ in groups:
        median = float(np.median(each[rows]))
        if least <= median <= most:
            continue
        seen = median * (transform.min_scale if median > most else transform.max_scale)
        extreme = rows[each[rows].argmax() if median > most else each[rows].argmin()]
        named = f"{names[extreme]}: " if names else ""
        warnings.append(
            f"{named}references of {median:.3g} pixels, and this model reads cells of {least:.3g} to {most:.3g}: it "
            f"will see them {seen:.3g} pixels large in place of {wanted:.3g}, and miss cells or find pieces of them; "
            "give boxes around single cells, or resize the images"
        )
    if len(groups) > 1 and len({*(() if owners is None else owners.tolist())}) < 2:
        named = f"{names[each.argmin()]}, {names[each.argmax()]}: " if names else ""
        warnings.append(
            f"{named}references of {each.min():.3g} to {each.max():.3g} pixels: images are read at two scales, which "
            "takes twice the time; if they are cells of two kinds, name these: --kind NAME=CROP"
        )
    return warnings


def warn_of_sizes(
    sides: np.ndarray,
    transform: TransformConfig,
    told: set[str],
    names: Sequence[str] = (),
    owners: np.ndarray | None = None,
) -> None:
    """Log `size_warnings` but those that were `told`, which the others become."""
    for warning in size_warnings(sides, transform, names, owners):
        if warning not in told:
            _logger.warning(warning)
        told.add(warning)


def no_cell_causes(candidates: Instances, min_score: float, plan: TilePlan, sides: np.ndarray) -> tuple[str, ...]:
    """The likeliest reasons why nothing counts in an image, two at most, measured, the likelier first.

    Args:
        candidates: what was found, of any score.
        plan: how the image was read.
        sides: (k, 2) of the references, in pixels of the image; (0, 2) of a closed-set detector.
    """
    best = float(candidates.scores.max(initial=0))
    if best >= min_score:
        count = len(candidates.without_overlaps(min_score))
        return (
            f"choice: {count} cells have a score of {min_score:.2f} or more, but were left out by their area, for an "
            "edge that they touch, or as what is not wanted (--min-area, --max-area, --exclude-edges, --not)",
        )
    if not len(sides):
        return _score_cause(candidates, min_score), f"categories: this model finds {', '.join(candidates.names)} alone"
    side = float(np.median(np.sqrt(np.prod(sides, axis=1, dtype=np.float64))))
    height, width = plan.size
    wanted = plan.transform.reference_pixels if plan.transform.scale == "reference" else side * plan.scale
    scale = (
        f"scale: the references are {side:.3g} pixels large, the image {width}x{height}; the network saw cells of that "
        f"size {side * plan.scale:.3g} pixels large, best are {wanted:.3g}. Cells of other sizes are missed: give a "
        "tight box around one in this image, or check --pixel-size and --reference-pixel-size"
    )
    causes = _score_cause(candidates, min_score), scale
    near = best >= min_score / 2 and abs(side * plan.scale / wanted - 1) < 0.1
    return causes if near else causes[::-1]


def _score_cause(candidates: Instances, min_score: float) -> str:
    best = float(candidates.scores.max(initial=0))
    lower = math.floor(best * 100) / 100
    if not lower:
        return f"scores: nothing has a score of 0.01 or more, and the threshold is {min_score:.2f}"
    there = len(candidates.without_overlaps(lower))
    return (
        f"scores: the best of {len(candidates)} candidates has {best:.2f}, and the threshold is {min_score:.2f}: "
        f"--min-score {lower:g} shows {there}"
    )
