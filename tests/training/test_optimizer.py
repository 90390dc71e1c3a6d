"""One and two updates against torch.optim.SGD's rule written out in numpy, and which parameters are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fsis_jax.config import base_config
from fsis_jax.models.detector import Detector
from fsis_jax.models.layers import FrozenStatistic, UndecayedParam
from fsis_jax.training.optimizer import accumulate, make_optimizer, trainable

RATE = 0.01
NAMES = ("conv/kernel", "conv/bias", "norm/scale", "norm/bias", "batch_norm/scale")
UNDECAYED = ("conv/bias", "norm/scale", "norm/bias")


def _params(rng):
    def values():
        return jnp.asarray(rng.normal(size=4), jnp.float32)

    return nnx.State(
        {
            "conv": {"kernel": nnx.Param(values()), "bias": nnx.Param(values())},
            "norm": {"scale": UndecayedParam(values()), "bias": nnx.Param(values())},
            "batch_norm": {"scale": nnx.Param(values())},
        }
    )


def _flat(state):
    return {"/".join(path): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(state)}


def _config(**changes):
    config = base_config()
    config.update_from_flattened_dict(
        {
            "optimizer.warmup_steps": 0,
            "optimizer.learning_rate": RATE,
            "optimizer.weight_decay": 0.1,
            **{f"optimizer.{key}": value for key, value in changes.items()},
        }
    )
    return config


def _gradients(rng, params):
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)


def _torch_sgd(params, momenta, gradients):
    """torch.optim.SGD after clip_grad_value_(0.4), by parameter group."""
    for name, value in params.items():
        gradient = np.clip(gradients[name], -0.4, 0.4) + (0 if name in UNDECAYED else 0.1) * value
        momenta[name] = 0.9 * momenta[name] + gradient
        params[name] = value - RATE * (2 if "bias" in name else 1) * momenta[name]


def test_updates_are_those_of_torch():
    rng = np.random.default_rng(0)
    params = _params(rng)
    optimizer = make_optimizer(_config(), params)
    state = optimizer.init(params)
    expected = _flat(params)
    assert sorted(expected) == sorted(NAMES)
    momenta = dict.fromkeys(expected, 0.0)
    for _ in range(3):
        gradients = _gradients(rng, params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        _torch_sgd(expected, momenta, _flat(gradients))
        for name, value in _flat(params).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_accumulated_gradients_are_summed_and_clipped_after_each_pass():
    rng = np.random.default_rng(1)
    params = _params(rng)
    optimizer = make_optimizer(_config(accumulate=3), params)
    state = optimizer.init(params)
    expected = _flat(params)
    momenta = dict.fromkeys(expected, 0.0)
    for _ in range(2):
        total = dict.fromkeys(expected, 0.0)
        for passed in range(3):
            gradients = _gradients(rng, params)
            total = {name: np.clip(total[name] + value, -0.4, 0.4) for name, value in _flat(gradients).items()}
            before = _flat(params)
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            if passed < 2:
                assert all(np.array_equal(value, before[name]) for name, value in _flat(params).items())
        _torch_sgd(expected, momenta, total)
        for name, value in _flat(params).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("scaled", [True, False])
def test_momentum_is_scaled_with_a_rate_that_drops(scaled):
    """Against the rule of Detectron.pytorch's utils/net.py (update_learning_rate, _CorrectMomentum) in numpy."""
    rng = np.random.default_rng(4)
    params = _params(rng)
    config = _config(scale_momentum=scaled, warmup_steps=2, decay_steps=(4, 6), learning_rate=RATE)
    optimizer = make_optimizer(config, params)
    state = optimizer.init(params)
    expected = _flat(params)
    momenta = dict.fromkeys(expected, 0.0)
    before = 0.0
    factors = [1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.01, 0.01]
    for factor in factors:
        rate = RATE * factor
        if scaled and before > 1e-7 and max(rate / before, before / rate) > 1.1:
            momenta = {name: value * (rate / before) for name, value in momenta.items()}
        gradients = _gradients(rng, params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in expected.items():
            gradient = np.clip(_flat(gradients)[name], -0.4, 0.4) + (0 if name in UNDECAYED else 0.1) * value
            momenta[name] = 0.9 * momenta[name] + gradient
            expected[name] = value - rate * (2 if "bias" in name else 1) * momenta[name]
        for name, value in _flat(params).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
        before = rate


def test_the_rate_counts_updates_not_passes():
    optimizer = accumulate(optax.scale_by_schedule(lambda count: count.astype(jnp.float32)), 2, clip_value=10.0)
    params = jnp.ones(())
    state = optimizer.init(params)
    seen = []
    for _ in range(6):
        update, state = optimizer.update(jnp.ones(()), state, params)
        seen.append(float(update))
    assert seen == [0, 0, 0, 2, 0, 4]


def test_adamw_clips_and_decays_the_same_parameters():
    params = _params(np.random.default_rng(2))
    optimizer = make_optimizer(_config(name="adamw"), params)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    before = _flat(params)
    for name, value in _flat(updates).items():
        decay = 0 if name in UNDECAYED else -RATE * 0.1 * before[name]
        np.testing.assert_allclose(value, decay + np.zeros(4), rtol=1e-5, atol=1e-9, err_msg=name)


def test_adam_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    params = _params(rng)
    optimizer = make_optimizer(_config(name="adam"), params)
    state = optimizer.init(params)
    tensors = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in _flat(params).items()}
    groups = [
        {
            "params": [tensor],
            "lr": RATE * (2 if "bias" in name else 1),
            "weight_decay": 0 if name in UNDECAYED else 0.1,
        }
        for name, tensor in tensors.items()
    ]
    reference = torch.optim.Adam(groups)
    for _ in range(4):
        gradients = _gradients(rng, params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in _flat(gradients).items():
            tensors[name].grad = torch.from_numpy(value.clip(-0.4, 0.4))
        reference.step()
        for name, value in _flat(params).items():
            np.testing.assert_allclose(value, tensors[name].detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def detector():
    """Shapes only."""
    return nnx.eval_shape(lambda: Detector(_narrow().model, rngs=nnx.Rngs(0)))


def _narrow(**changes):
    config = base_config()
    config.model.backbone.width = 8
    config.model.fpn.channels = 16
    config.update_from_flattened_dict(changes)
    return config


def _names(state):
    return {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def _split(model, config):
    """Names of the trained and of all other variables."""
    _, trained, kept = nnx.split(model, trainable(config), ...)
    return _names(trained), _names(kept)


def test_the_statistics_of_frozen_batch_norm_are_not_trained(detector):
    frozen = _names(nnx.state(detector, FrozenStatistic))
    assert frozen
    assert not frozen & _split(detector, _narrow())[0]


@pytest.mark.parametrize("freeze_at", range(6))
def test_the_stem_and_the_first_stages_are_not_trained(detector, freeze_at):
    trained, kept = _split(detector, _narrow(**{"model.backbone.freeze_at": freeze_at}))
    assert any(name.startswith("backbone/stem") for name in trained) == (freeze_at < 1)
    stages = {int(name.split("/")[2]) for name in trained if name.startswith("backbone/stages")}
    assert stages == set(range(max(freeze_at - 1, 0), 4))
    heads = {name for name in _names(nnx.state(detector, nnx.Param)) if not name.startswith("backbone/")}
    assert heads <= trained
    assert {"fpn", "matching", "rpn", "box_head", "mask_head"} <= {name.split("/")[0] for name in heads}
    assert not trained & kept


def test_a_frozen_backbone_takes_its_pyramid_along(detector):
    trained, kept = _split(detector, _narrow(**{"training.freeze_backbone": True, "model.backbone.freeze_at": 0}))
    assert {"matching", "rpn", "box_head", "mask_head"} == {name.split("/")[0] for name in trained}
    assert {"backbone", "fpn"} <= {name.split("/")[0] for name in kept}


def test_the_norm_of_the_stem_belongs_to_it():
    config = _narrow(**{"model.backbone.norm": "group", "model.backbone.freeze_at": 0})
    model = nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0)))
    stem = {"backbone/stem/kernel", "backbone/stem_norm/scale", "backbone/stem_norm/bias"}
    every = _names(nnx.state(model, nnx.Param))
    assert stem <= every
    assert _split(model, config)[0] == every
    config.model.backbone.freeze_at = 1
    assert _split(model, config)[0] == every - stem
