"""Learning rates and lengths against the PyTorch project's, and by hand."""

import itertools

import numpy as np
import pytest

from fsis_jax.config import base_config
from fsis_jax.training.schedule import base_rate, learning_rate, scaled_steps, total_steps

ORIGINAL_BATCH = {"FPN": 16, "C4": 8}


def _config(**changes):
    config = base_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("model", "batch", "passes"), list(itertools.product(["FPN", "C4"], ["default", "1", "8", "16"], [1, 2]))
)
def test_rates_and_lengths_are_the_originals(golden, model, batch, passes):
    arrays = np.load(golden / "schedule.npz")
    expected = {
        key: arrays[f"{model}_bs{batch}_it{passes}/{key}"]
        for key in ("steps", "lr_weight", "lr_bias", "base_lr", "solver_steps", "max_iter")
    }
    original = ORIGINAL_BATCH[model]
    config = _config(
        **{
            "training.batch_size": original if batch == "default" else int(batch),
            "optimizer.reference_batch_size": original,
            "optimizer.accumulate": passes,
        }
    )
    assert base_rate(config) == pytest.approx(float(expected["base_lr"]))
    assert total_steps(config) == expected["max_iter"]
    assert [0, *(scaled_steps(config, step) for step in config.optimizer.decay_steps)] == list(expected["solver_steps"])
    rates = np.array([float(learning_rate(config)(step)) for step in expected["steps"]])
    np.testing.assert_allclose(rates, expected["lr_weight"], rtol=1e-6)
    np.testing.assert_allclose(config.optimizer.bias_rate * rates, expected["lr_bias"], rtol=1e-6)


def test_the_default_rate_by_hand():
    rate = learning_rate(_config(**{"training.batch_size": 16}))
    given = {0: 0.02 / 3, 250: 0.02 * 2 / 3, 500: 0.02, 4999: 0.02, 5000: 0.002, 7999: 0.002, 8000: 0.0002}
    assert {step: float(rate(step)) for step in given} == pytest.approx(given)


def test_a_cosine_ends_at_zero_and_needs_no_warm_up():
    config = _config(
        **{"optimizer.schedule": "cosine", "optimizer.warmup_steps": 0, "training.steps": 100, "training.batch_size": 8}
    )
    rate = learning_rate(config)
    assert [float(rate(step)) for step in (0, 50, 100, 120)] == pytest.approx([0.01, 0.005, 0, 0], abs=1e-9)


def test_exact_steps_take_the_place_of_scaled_ones():
    assert total_steps(_config(**{"training.batch_size": 1})) == 160_000
    assert total_steps(_config(**{"training.batch_size": 1, "training.steps": 7})) == 7
