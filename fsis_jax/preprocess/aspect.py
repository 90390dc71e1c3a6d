"""Bounds of the aspect ratio (width over height) of training images: what is longer is cropped, not shrunk or padded.

As ASPECT_CROPPING of Detectron.pytorch (`lib/roi_data/loader.py`). Grouping images of like aspect into one batch is
what the canvases do.
"""


def bounded_size(size: tuple[int, int], bounds: tuple[float, float] | tuple[()]) -> tuple[int, int]:
    """The largest (height, width) within `size` whose width over height is within `bounds` (least, largest).

    Args:
        bounds: the least is at most 1, the largest at least 1; () bounds nothing.

    >>> bounded_size((100, 250), (0.5, 2.0)), bounded_size((300, 100), (0.5, 2.0)), bounded_size((100, 150), (0.5, 2.0))
    ((100, 200), (200, 100), (100, 150))
    """
    if not bounds:
        return size
    height, width = size
    least, largest = bounds
    return min(height, max(1, int(width / least))), min(width, max(1, int(height * largest)))
