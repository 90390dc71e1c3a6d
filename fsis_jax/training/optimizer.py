"""The optimiser: SGD or Adam with the PyTorch project's recipe, or AdamW for models trained from scratch.

As torch.optim.SGD and Adam in train_net_step.py: gradient values clipped, weight decay added to the gradient except
for parameters whose name contains "bias" and for group-norm scales, momentum 0.9 (Adam: betas 0.9 and 0.999), biases
at twice the rate. AdamW decays the parameters themselves, and has one rate for all.

Where the rate changes by more than a tenth, Detectron.pytorch multiplies the momentum by the change (SCALE_MOMENTUM;
`_CorrectMomentum` of its utils/net.py). In Detectron the momentum holds the rate, which makes that right; in PyTorch,
and here, it does not, so `optimizer.scale_momentum` is off unless asked for.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.models.layers import UndecayedParam
from fsis_jax.training.schedule import Schedule, learning_rate

_MOMENTUM = 0.9
_THRESHOLD = 1.1
"""Detectron's SCALE_MOMENTUM_THRESHOLD."""


def trainable(config: ConfigDict) -> nnx.filterlib.Filter:
    """A filter of the parameters that are trained: all but those of the stages that the config freezes."""
    if config.training.freeze_backbone:
        return nnx.All(nnx.Param, nnx.Not(lambda path, _: path[0] in ("backbone", "fpn")))
    freeze_at = config.model.backbone.freeze_at
    return nnx.All(nnx.Param, nnx.Not(lambda path, _: path[0] == "backbone" and _stage(path) <= freeze_at))


def _stage(path: tuple[Any, ...]) -> int:
    """The stage that a variable of the backbone belongs to: 1 the stem with its norm, 2 res2, ... 5 res5."""
    return path[2] + 2 if path[1] == "stages" else 1


def make_optimizer(config: ConfigDict, params: nnx.State) -> optax.GradientTransformationExtraArgs:
    """The chain for `params`, the trainable part of a detector's state (its variables tell what decays).

    Its `update` takes `schedule`, a `Schedule` in the place of the config's own.
    """
    settings = config.optimizer
    is_bias = _map_with_path(params, lambda path, _: "bias" in path[-1])
    decays = _map_with_path(
        params, lambda path, variable: "bias" not in path[-1] and not isinstance(variable, UndecayedParam)
    )
    clip = optax.clip(settings.clip_value)
    decay = optax.add_decayed_weights(settings.weight_decay, decays)
    bias_rate = optax.masked(optax.scale(settings.bias_rate), is_bias)
    default = learning_rate(config)
    rate = _scale_by_rate(default)
    if settings.name == "adamw":
        chain = optax.chain(clip, optax.scale_by_adam(), decay, rate)
    else:
        momentum = _scaled_momentum(default) if settings.scale_momentum else optax.trace(_MOMENTUM)
        moments = optax.scale_by_adam() if settings.name == "adam" else momentum
        chain = optax.chain(clip, decay, moments, bias_rate, rate)
    return chain if settings.accumulate == 1 else accumulate(chain, settings.accumulate, settings.clip_value)


def _scale_by_rate(default: Schedule) -> optax.GradientTransformationExtraArgs:
    """As `optax.scale_by_learning_rate`, but that the schedule's values may be arguments."""

    def update(
        updates: optax.Updates,
        state: optax.ScaleByScheduleState,
        params: optax.Params | None = None,
        *,
        schedule: Schedule = default,
        **_: Any,
    ) -> tuple[optax.Updates, optax.ScaleByScheduleState]:
        rate = schedule(state.count)
        scaled = jax.tree.map(lambda x: jnp.asarray(-rate, x.dtype) * x, updates)
        return scaled, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )


class ScaledMomentumState(NamedTuple):
    """Momentum, and the number of updates."""

    trace: optax.Updates
    count: jax.Array  # type: ignore[assignment]  # as optax calls it


def _scaled_momentum(default: Schedule) -> optax.GradientTransformationExtraArgs:
    """Momentum that is multiplied by the change of the rate where that is more than `_THRESHOLD` either way."""

    def update(
        updates: optax.Updates,
        state: ScaledMomentumState,
        params: optax.Params | None = None,
        *,
        schedule: Schedule = default,
        **_: Any,
    ) -> tuple[optax.Updates, ScaledMomentumState]:
        before, now = schedule(jnp.maximum(state.count - 1, 0)), schedule(state.count)
        change = now / jnp.maximum(before, 1e-10)
        scales = (before > 1e-7) & (jnp.maximum(change, 1 / jnp.maximum(change, 1e-10)) > _THRESHOLD)
        factor = _MOMENTUM * jnp.where(scales, change, 1.0)
        trace = jax.tree.map(lambda g, m: g + factor * m, updates, state.trace)
        return trace, ScaledMomentumState(trace, optax.safe_increment(state.count))

    def init(params: optax.Params) -> ScaledMomentumState:
        return ScaledMomentumState(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


def _map_with_path(params: nnx.State, function: Any) -> Any:
    """A tree of the shape of `params` with function(path, variable) at every leaf."""
    flat = {path: function(path, variable) for path, variable in nnx.to_flat_state(params)}
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: flat[tuple(key.key for key in keys if isinstance(key, jax.tree_util.DictKey))], params
    )


class AccumulateState(NamedTuple):
    """Gradients summed so far, how many, and the inner state."""

    total: optax.Updates
    passes: jax.Array
    inner: optax.OptState


def accumulate(
    inner: optax.GradientTransformation, passes: int, clip_value: float
) -> optax.GradientTransformationExtraArgs:
    """Update once every `passes` calls with the sum of the gradients; the running sum is clipped at each call."""
    inner = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> AccumulateState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AccumulateState(zeros, jnp.zeros((), jnp.int32), inner.init(params))

    def update(
        updates: optax.Updates, state: AccumulateState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AccumulateState]:
        total = jax.tree.map(lambda t, g: jnp.clip(t + g, -clip_value, clip_value), state.total, updates)
        zeros = jax.tree.map(jnp.zeros_like, total)

        def apply() -> tuple[optax.Updates, AccumulateState]:
            result, inner_state = inner.update(total, state.inner, params, **extra)
            return result, AccumulateState(zeros, jnp.zeros((), jnp.int32), inner_state)

        def wait() -> tuple[optax.Updates, AccumulateState]:
            return zeros, AccumulateState(total, state.passes + 1, state.inner)

        return jax.lax.cond(state.passes + 1 >= passes, apply, wait)

    return optax.GradientTransformationExtraArgs(init, update)
