"""All that a network finds, whatever its scores: what tests of networks that learned next to nothing look at."""

import numpy as np

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter


def candidates(
    network: Segmenter,
    image: np.ndarray,
    references: References | list[np.ndarray] | None = None,
    *,
    pixel_size: float | None = None,
    tile: int = 0,
) -> Instances:
    """`Segmenter.candidates` of one image."""
    return next(network.candidates([Job(image, references, pixel_size)], tile=tile))[1]
