"""Sample data: cells that are drawn."""

from typing import Any

import numpy as np

from fsis_jax.synthetic.appearances import APPEARANCES
from fsis_jax.synthetic.drawing import draw


def cells() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """An image (480, 640, 3) uint8 of large textured cells among small ones, as a layer of napari."""
    appearances = [APPEARANCES["fluo_textured"], APPEARANCES["fluo_discs"]]
    drawing = draw(np.random.default_rng(5), appearances, 480, 640)
    return [(drawing.pixels, {"name": "drawn cells"}, "image")]
