"""The optimiser: SGD or Adam with the PyTorch project's recipe, or AdamW for models trained from scratch.

As torch.optim.SGD and Adam in train_net_step.py: gradient values clipped, weight decay added to the gradient except
for parameters whose name contains "bias" and for group-norm scales, momentum 0.9 (Adam: betas 0.9 and 0.999), biases
at twice the rate. AdamW decays the parameters themselves, and has one rate for all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.models.layers import UndecayedParam
from fsis_jax.training.schedule import learning_rate


def trainable(config: ConfigDict) -> nnx.filterlib.Filter:
    """A filter of the parameters that are trained: all but those of the stages that the config freezes."""
    if config.training.freeze_backbone:
        return nnx.All(nnx.Param, nnx.Not(lambda path, _: path[0] in ("backbone", "fpn")))
    freeze_at = config.model.backbone.freeze_at
    return nnx.All(nnx.Param, nnx.Not(lambda path, _: path[0] == "backbone" and _stage(path) <= freeze_at))


def _stage(path: tuple[Any, ...]) -> int:
    """The stage that a variable of the backbone belongs to: 1 the stem with its norm, 2 res2, ... 5 res5."""
    return path[2] + 2 if path[1] == "stages" else 1


def make_optimizer(config: ConfigDict, params: nnx.State) -> optax.GradientTransformation:
    """The chain for `params`, the trainable part of a detector's state (its variables tell what decays)."""
    settings = config.optimizer
    is_bias = _map_with_path(params, lambda path, _: "bias" in path[-1])
    decays = _map_with_path(
        params, lambda path, variable: "bias" not in path[-1] and not isinstance(variable, UndecayedParam)
    )
    clip = optax.clip(settings.clip_value)
    decay = optax.add_decayed_weights(settings.weight_decay, decays)
    bias_rate = optax.masked(optax.scale(settings.bias_rate), is_bias)
    rate = optax.scale_by_learning_rate(learning_rate(config))
    if settings.name == "adamw":
        chain = optax.chain(clip, optax.scale_by_adam(), decay, rate)
    else:
        moments = optax.scale_by_adam() if settings.name == "adam" else optax.trace(0.9)
        chain = optax.chain(clip, decay, moments, bias_rate, rate)
    return chain if settings.accumulate == 1 else accumulate(chain, settings.accumulate, settings.clip_value)


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


def accumulate(inner: optax.GradientTransformation, passes: int, clip_value: float) -> optax.GradientTransformation:
    """Update once every `passes` calls with the sum of the gradients; the running sum is clipped at each call."""

    def init(params: optax.Params) -> AccumulateState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AccumulateState(zeros, jnp.zeros((), jnp.int32), inner.init(params))

    def update(
        updates: optax.Updates, state: AccumulateState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AccumulateState]:
        total = jax.tree.map(lambda t, g: jnp.clip(t + g, -clip_value, clip_value), state.total, updates)
        zeros = jax.tree.map(jnp.zeros_like, total)

        def apply() -> tuple[optax.Updates, AccumulateState]:
            result, inner_state = inner.update(total, state.inner, params)
            return result, AccumulateState(zeros, jnp.zeros((), jnp.int32), inner_state)

        def wait() -> tuple[optax.Updates, AccumulateState]:
            return zeros, AccumulateState(total, state.passes + 1, state.inner)

        return jax.lax.cond(state.passes + 1 >= passes, apply, wait)

    return optax.GradientTransformation(init, update)
