"""How far our arrays are from golden ones: single numbers, in float64."""

import numpy as np
from numpy.typing import ArrayLike


def largest(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The largest absolute difference, in the unit of the arrays. Their shapes must be equal."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert a.shape == b.shape, f"shape {a.shape} is not {b.shape}"
    return float(np.abs(a - b).max(initial=0.0))


def relative(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The largest difference divided by the largest golden value; by 1 if all of those are 0."""
    return largest(ours, theirs) / (float(np.abs(np.asarray(theirs, np.float64)).max(initial=0.0)) or 1.0)


def unequal(ours: ArrayLike, theirs: ArrayLike) -> int:
    """How many entries differ. Their shapes must be equal."""
    a, b = np.asarray(ours), np.asarray(theirs)
    assert a.shape == b.shape, f"shape {a.shape} is not {b.shape}"
    return int(np.count_nonzero(a != b))


def one_minus_iou(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    """(n,) 1 - intersection over union of masks (n, H, W); 0 where both are empty."""
    a, b = np.asarray(ours, bool), np.asarray(theirs, bool)
    assert a.shape == b.shape, f"shape {a.shape} is not {b.shape}"
    axes = (-2, -1)
    union = (a | b).sum(axes)
    return np.where(union > 0, 1 - (a & b).sum(axes) / np.maximum(union, 1), 0.0)
