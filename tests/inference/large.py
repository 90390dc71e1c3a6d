"""Segments a large image file and prints how much memory that took beside the model: what test_large.py runs and kills.

python tests/inference/large.py CHECKPOINT IMAGE BOX OUT
"""

import json
import resource
import sys

import numpy as np

from fsis_jax.inference.example_cells import box_example, encode_examples
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.segment_files import segment_files
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.source import open_image


def _peak() -> float:
    """Megabytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(checkpoint: str, image: str, box: str, output: str) -> None:
    """The tiny model on tiles of 512 pixels, each with up to 100 cells."""
    trained = Segmenter.from_checkpoint(checkpoint)
    config = trained.config
    config.data.test_canvases = ((512, 512),)
    config.model.detections.max_instances = 400
    config.model.rpn.test_pre_nms = config.model.rpn.test_post_nms = 400
    segmenter = Segmenter(trained.model, config, min_score=0.0)
    references = encode_examples(segmenter, [box_example(f"{image}:{box}", open_image)])
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200), np.uint8)
    segmenter.segment(noise, references)
    before, tiles = _peak(), [0, 0]

    def note(_: str, done: int, total: int) -> None:
        tiles[:] = done, total

    settings = OutputSettings(save=("labels", "table", "geojson", "overlay"))
    (outcome,) = segment_files(segmenter, [image], references, output, settings, progress=note)
    print(json.dumps({"cells": outcome.cells, "error": outcome.error, "tiles": tiles, "megabytes": _peak() - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
