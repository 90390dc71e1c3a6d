"""Learning rates and lengths by hand."""

import pytest

from fsis_jax.config import base_config
from fsis_jax.training.schedule import learning_rate, total_steps


def _config(**changes):
    config = base_config()
    config.update_from_flattened_dict(changes)
    return config


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
