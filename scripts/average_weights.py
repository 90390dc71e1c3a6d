"""The mean of the parameters of several networks that were trained on from one another, as one weights file.

python scripts/average_weights.py FILE FILE ... --config configs/cells_base_last.py --min-score 0.24 --output OUT

Such a mean is often better than each of them (model soups, Wortsman et al. 2022), at the cost of one. Detections are
made as the config says; the score from which instances count was chosen by hand, since the validation images of each
run were trained on by another.
"""

import argparse
import pathlib
import runpy
import sys
from collections.abc import Sequence

import numpy as np

from fsis_jax.checkpoints.differences import differences
from fsis_jax.checkpoints.learnt import UNKNOWN
from fsis_jax.checkpoints.weights import Trained, load_weights, save_weights
from fsis_jax.cli import run
from fsis_jax.cli.parsing import Parser
from fsis_jax.errors import FsisError


def average_weights(arguments: Sequence[str]) -> None:
    """Write the mean."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=pathlib.Path, nargs="+", metavar="FILE", help="from `fsis export`")
    parser.add_argument("--config", type=pathlib.Path, required=True, help="whose model.detections are taken")
    parser.add_argument("--min-score", type=float, required=True)
    parser.add_argument("--output", "-o", type=pathlib.Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    every = [load_weights(path) for path in options.files]
    for path, trained in zip(options.files, every, strict=True):
        found = differences(every[0].arrays, trained.arrays)
        if found:
            raise FsisError(f"{path}: a network unlike that of {options.files[0]}: {found}: nothing to average")
    mean = {name: np.mean([trained.arrays[name] for trained in every], axis=0) for name in every[0].arrays}
    config, learnt = every[0].config.copy_and_resolve_references(), every[0].learnt or UNKNOWN
    config.model.detections = runpy.run_path(str(options.config))["get_config"]().model.detections
    for trained in every[1:]:
        learnt = learnt.and_more(trained.learnt or UNKNOWN)
    save_weights(options.output, Trained(mean, config, {"min_score": options.min_score}, learnt))


if __name__ == "__main__":
    run(average_weights, sys.argv[1:])
