"""Pictures of one stain in false colour: a grey image that a viewer saved as red, green and blue."""

from collections.abc import Iterator

import numpy as np

from fsis_jax.io.intensity import Image, coarsest

_NAMES = ("red", "green", "blue")
_ROOM = 512
"""Longest side of the level of a pyramid that is looked at, if it has one so small."""
_WINDOWS, _SIDE = 6, 64
"""Windows along each side, and their side in pixels: not all of a large image is read."""
_NOISE = 0.02
"""Share of the strongest channel's range by which another may differ from what that tells of it, or one level."""


def only_stain(image: Image) -> str | None:
    """The channel that tells all that a picture in colour shows, "green"; None for one in grey or in true colours.

    It tells all if the others are constant, or follow it as a straight line.

    Args:
        image: (H, W) or (H, W, C).
    """
    if len(image.shape) != 3 or image.shape[2] < 3:
        return None
    level = coarsest(image, max(image.shape[:2]) / _ROOM)
    pixels = np.concatenate([window.reshape(-1, 3) for window in _windows(level)]).astype(np.float64)
    if not np.isfinite(pixels).all() or (pixels == pixels[:, :1]).all():
        return None
    ranges = np.ptp(pixels, axis=0)
    main = int(np.argmax(ranges))
    strong = pixels[:, main] - pixels[:, main].mean()
    for channel in set(range(3)) - {main}:
        values = pixels[:, channel] - pixels[:, channel].mean()
        left = values - strong * (float(strong @ values) / max(float(strong @ strong), 1e-300))
        if np.abs(left).max() > max(_NOISE * ranges[main], 1 if image.dtype.kind in "iu" else 0):
            return None
    return _NAMES[main] if ranges[main] > 0 else None


def _windows(image: Image) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    for top in np.unique(np.linspace(0, max(height - _SIDE, 0), _WINDOWS).astype(int)).tolist():
        for left in np.unique(np.linspace(0, max(width - _SIDE, 0), _WINDOWS).astype(int)).tolist():
            yield np.asarray(image[top : top + _SIDE, left : left + _SIDE])[..., :3]
