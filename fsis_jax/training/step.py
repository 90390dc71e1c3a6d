"""One training step, written per device with the named axis `batch`.

The loss of a device is its share of the loss of the whole batch (sums here over counts everywhere), so gradients
are summed over devices, not averaged.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.batch import Batch
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.models.detector import Detector
from fsis_jax.models.layers import BatchStatistic
from fsis_jax.models.objective import training_losses
from fsis_jax.training.optimizer import make_optimizer, trainable
from fsis_jax.training.schedule import learning_rate

AXIS = "batch"


StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def new_state(config: ConfigDict, model: Detector) -> tuple[nnx.GraphDef, TrainState, StepFunction]:
    """Take a detector apart: its structure, the state at step 0, and the step function of one device."""
    graph, *states = nnx.split(model, trainable(config), BatchStatistic, ...)
    params, statistics, frozen = states
    optimizer = make_optimizer(config, params)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        statistics=statistics,
        frozen=frozen,
        optimizer=optimizer.init(params),
        schedule=learning_rate(config),
    )
    return graph, state, _make_step(graph, optimizer, config.seed)


def _make_step(graph: nnx.GraphDef, optimizer: optax.GradientTransformationExtraArgs, seed: int) -> StepFunction:
    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss(params: nnx.State) -> tuple[jax.Array, Any]:
            # Copies: the running statistics change within the trace of the gradient.
            model = nnx.merge(graph, params, state.statistics, state.frozen, copy=True)
            terms, counts = training_losses(model, batch, key, axis_name=AXIS)
            return sum(terms.values(), jnp.float32(0)), (terms, counts, nnx.state(model, BatchStatistic))

        gradients, (terms, counts, statistics) = jax.grad(loss, has_aux=True)(state.params)
        gradients = jax.lax.psum(gradients, AXIS)
        terms = jax.lax.psum(terms, AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params, schedule=state.schedule)
        metrics = {f"loss/{name}": value for name, value in terms.items()}
        metrics["loss/total"] = sum(terms.values(), jnp.float32(0))
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        metrics |= {f"count/{name}": value for name, value in jax.lax.psum(counts, AXIS).items()}
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            statistics=statistics,
            frozen=state.frozen,
            optimizer=optimizer_state,
            schedule=state.schedule,
        )
        return state, metrics

    return step


def merged_model(graph: nnx.GraphDef, state: TrainState) -> Detector:
    """The detector with the state's parameters."""
    return nnx.merge(graph, state.params, state.statistics, state.frozen)
