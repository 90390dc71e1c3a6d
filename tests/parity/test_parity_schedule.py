"""Learning rates and lengths of runs against the PyTorch project's."""

import itertools
import pathlib

import numpy as np
import pytest
from differences import largest, relative
from golden_files import Vectors, load
from parity_table import Figures

from fsis_jax.config import base_config
from fsis_jax.recipes import c4_config
from fsis_jax.training.schedule import base_rate, learning_rate, scaled_steps, total_steps

CONFIGS = {"FPN": base_config, "C4": c4_config}


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "schedule.npz")


@pytest.mark.parametrize(
    ("model", "batch", "passes"), list(itertools.product(CONFIGS, ["default", "1", "8", "16"], ["1", "2"]))
)
def test_rates_and_lengths(vectors: Vectors, figures: Figures, model: str, batch: str, passes: str) -> None:
    """Of a batch size and a number of passes whose gradients are summed; at every step that the vectors hold."""
    case = f"{model}_bs{batch}_it{passes}"
    config = CONFIGS[model]()
    original = int(vectors[f"{case}/original_batch_size"])
    assert config.optimizer.reference_batch_size == original
    config.training.batch_size = original if batch == "default" else int(batch)
    config.optimizer.accumulate = int(passes)
    figures.check("learning rate, relative", "", relative(base_rate(config), vectors[f"{case}/base_lr"]), 1e-6)
    figures.check("length of a run, steps", "", largest(total_steps(config), vectors[f"{case}/max_iter"]), 0)
    decays = [0, *(scaled_steps(config, step) for step in config.optimizer.decay_steps)]
    figures.check("length of a run, steps", "", largest(decays, vectors[f"{case}/solver_steps"]), 0)
    rates = np.array([float(learning_rate(config)(step)) for step in vectors[f"{case}/steps"]])
    for kind, factor in (("weight", 1.0), ("bias", config.optimizer.bias_rate)):
        error = np.abs(factor * rates / vectors[f"{case}/lr_{kind}"] - 1).max()
        figures.check("learning rate, relative", "", error, 1e-6)
