"""The mean of the parameters of several networks that were trained on from one another, as one weights file.

python scripts/average_weights.py FILE FILE ... --config configs/cells_base_last.py --min-score 0.25 --output OUT

Such a mean is often better than each of them (model soups, Wortsman et al. 2022), at the cost of one. Detections are
made as the config says; the score from which instances count was chosen by hand, since the validation images of each
run were trained on by another.
"""

import argparse
import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
from flax import nnx

from fsis_jax.checkpoints.learnt import UNKNOWN
from fsis_jax.checkpoints.weights import load_weights, save_weights
from fsis_jax.errors import FsisError


def main() -> None:
    """Write the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=pathlib.Path, nargs="+", metavar="FILE", help="from `fsis export`")
    parser.add_argument("--config", type=pathlib.Path, required=True, help="whose model.detections are taken")
    parser.add_argument("--min-score", type=float, required=True)
    parser.add_argument("--output", "-o", type=pathlib.Path, required=True, metavar="FILE")
    options = parser.parse_args()
    every = [load_weights(path) for path in options.files]
    states = [nnx.state(trained.model) for trained in every]
    for path, state in zip(options.files, states, strict=True):
        if jax.tree.map(jnp.shape, state) != jax.tree.map(jnp.shape, states[0]):
            raise FsisError(f"{path}: a network unlike that of {options.files[0]}: nothing to average")
    nnx.update(every[0].model, jax.tree.map(lambda *values: sum(values) / len(values), *states))
    config, learnt = every[0].config.copy_and_resolve_references(), every[0].learnt or UNKNOWN
    config.model.detections = runpy.run_path(str(options.config))["get_config"]().model.detections
    for trained in every[1:]:
        learnt = learnt.and_more(trained.learnt or UNKNOWN)
    mean = dataclasses.replace(every[0], config=config, validation={"min_score": options.min_score}, learnt=learnt)
    save_weights(options.output, mean)


if __name__ == "__main__":
    main()
