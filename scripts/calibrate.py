"""Fit a model's score threshold to its references (`fsis_jax.inference.calibration`), and write it with its weights.

python scripts/calibrate.py runs/models/cells-base --data DIR --output cells-base.npz

Targets are training images, each with references from other images. Slope and offset are those with the best mean over
the categories of AP@0.5 = TP / (TP + FP + FN).
"""

import dataclasses
import itertools
import logging
import pathlib
import sys
from collections.abc import Mapping, Sequence

from fsis_jax.checkpoints.runs import load_run
from fsis_jax.checkpoints.weights import save_weights
from fsis_jax.cli import run
from fsis_jax.cli.parsing import Parser
from fsis_jax.data.opening import open_source
from fsis_jax.evaluation.instance_metrics import Matching, match, total
from fsis_jax.evaluation.predictions import Prediction, predict
from fsis_jax.evaluation.scores import counted
from fsis_jax.inference.calibration import Calibration
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.preprocess.records import Source

THRESHOLDS = [round(0.04 * step, 2) for step in range(2, 20)]
SLOPES, OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0), [round(0.05 * step, 2) for step in range(-8, 11)]

_logger = logging.getLogger("fsis_jax")


def calibrate(arguments: Sequence[str]) -> None:
    """Predict, fit, write."""
    parser = Parser(prog="calibrate.py", description=__doc__)
    parser.add_argument("run", type=pathlib.Path, help="folder of a training run")
    parser.add_argument("--data", required=True, help="folder with COCO annotations, of which the train split is used")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.npz")
    parser.add_argument("--images", type=int, default=6, help="of a category (default: %(default)s)")
    options = parser.parse_args(arguments)
    trained = load_run(options.run)
    source = open_source(options.data, "train")
    # With this line a result's threshold is the references' own score.
    segmenter = Segmenter(trained.model, trained.config, calibration=Calibration(1.0, 0.0))
    predictions = predict(
        *(segmenter, source, source, sorted(source.categories)),
        shots=5,
        references="train",
        max_images=options.images,
        progress="targets",
    )
    slope, offset, best, fixed = fit(source, predictions)
    _logger.info(
        "threshold %g x own score + %g: AP@0.5 %.3f, by one threshold for all %.3f", slope, offset, best, fixed
    )
    validation = {**trained.validation, "own_slope": slope, "own_offset": offset}
    save_weights(options.output, dataclasses.replace(trained, validation=validation))


def fit(source: Source, predictions: Sequence[Prediction]) -> tuple[float, float, float, float]:
    """Slope, offset, the mean AP@0.5 with them, and with the best single threshold."""
    counts = [{at: _counts(source, prediction, at) for at in THRESHOLDS} for prediction in predictions]
    own = [prediction.instances.min_score for prediction in predictions]
    categories = [prediction.category for prediction in predictions]

    def mean(slope: float, offset: float) -> float:
        chosen = [_at(count, slope * score + offset) for count, score in zip(counts, own, strict=True)]
        each = [
            total(matching for matching, of in zip(chosen, categories, strict=True) if of == category).ap
            for category in sorted(set(categories))
        ]
        return sum(each) / len(each)

    slope, offset = max(itertools.product(SLOPES, OFFSETS), key=lambda line: mean(*line))
    return slope, offset, mean(slope, offset), max(mean(0.0, at) for at in THRESHOLDS)


def _counts(source: Source, prediction: Prediction, min_score: float) -> Matching:
    instances = dataclasses.replace(prediction.instances, min_score=min_score)
    return match(*counted(source, dataclasses.replace(prediction, instances=instances)))


def _at(counts: Mapping[float, Matching], threshold: float) -> Matching:
    return counts[min(counts, key=lambda at: abs(at - threshold))]


if __name__ == "__main__":
    run(calibrate, sys.argv[1:])
