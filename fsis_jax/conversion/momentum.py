"""The momentum of torch.optim.SGD and of our optimiser: the same sums of gradients, in another order and layout.

PyTorch numbers the parameters group by group: the PyTorch project's tools/train_net_step.py makes one group of those
whose name contains "bias" after one of all others (and an empty one for group norms), each in the order of the model,
of the parameters that are not frozen. A parameter that never had a gradient has no momentum there and a zero one here.
Both accumulate g + 0.9 m, and biases learn at twice the rate by a factor behind the momentum.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.state_dict import is_trained
from fsis_jax.errors import FsisError
from fsis_jax.models.detector import Detector
from fsis_jax.training.schedule import learning_rate
from fsis_jax.training.step import new_state

BUFFER = "momentum_buffer"


def parameter_groups(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The trained parameters among the names of a `state_dict`, in its order: the others, and the biases."""
    trained = [name for name in names if is_trained(name)]
    return [name for name in trained if "bias" not in name], [name for name in trained if "bias" in name]


def momentum_of(optimizer: Any, shapes: ca_fsis.Shapes) -> dict[str, np.ndarray]:
    """Our flat name -> momentum, of the parameters that have one.

    Args:
        optimizer: the state_dict of torch.optim.SGD.
        shapes: of the model's state_dict, in its order.

    Raises:
        FsisError: if the groups are not those of the model's parameters, or a tensor has not its parameter's shape.
    """
    if not isinstance(optimizer, dict) or not {"state", "param_groups"} <= optimizer.keys():
        raise FsisError("no state of an optimiser in it; convert without --resume")
    groups = [list(group["params"]) for group in optimizer["param_groups"]]
    expected = parameter_groups(shapes)
    if [len(group) for group in groups if group] != [len(names) for names in expected if names]:
        counts = ", ".join(str(len(group)) for group in groups)
        raise FsisError(
            f"the optimiser's groups have {counts} parameters; the model's weights and biases are "
            f"{len(expected[0])} and {len(expected[1])}; convert without --resume"
        )
    ids = [identity for group in groups for identity in group]
    found: dict[str, np.ndarray] = {}
    for identity, name in zip(ids, [*expected[0], *expected[1]], strict=True):
        value = optimizer["state"].get(identity, {}).get(BUFFER)
        if value is None:
            continue
        if not isinstance(value, np.ndarray) or value.shape != shapes[name]:
            raise FsisError(f"the momentum of {name} has not the shape {shapes[name]}; convert without --resume")
        ours = ca_fsis.to_ours(name, value)
        if ours is not None:
            found[ours[0]] = ours[1].astype(np.float32, copy=False)
    return found


def abstract_state(config: ConfigDict) -> TrainState:
    """The shapes of a run's state."""
    return jax.eval_shape(lambda: new_state(config, Detector(config.model, rngs=nnx.Rngs(config.seed)))[1])


def optimizer_arrays(config: ConfigDict, momentum: Mapping[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """The item "optimizer" of a checkpoint after `step` steps with this momentum; zero where there is none."""
    arrays = {"step": np.array(step, np.int32)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_state(config).optimizer):
        name = _traced(path)
        if name is not None:
            value = momentum.get(name, np.zeros(leaf.shape, leaf.dtype))
        elif getattr(path[-1], "name", "") == "count":
            value = np.array(step // config.optimizer.accumulate, leaf.dtype)
        else:
            value = np.zeros(leaf.shape, leaf.dtype)
        arrays[jax.tree_util.keystr(path)] = value
    return arrays


def sgd_state(config: ConfigDict, arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, Any]:
    """The state_dict of torch.optim.SGD at a checkpoint.

    Args:
        config: of the run.
        arrays: the checkpoint's item "optimizer".
        names: of the model's state_dict, in its order.
    """
    traces = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(abstract_state(config).optimizer):
        name = _traced(path)
        if name is not None:
            traces[name] = arrays[jax.tree_util.keystr(path)]
    weights, biases = parameter_groups(names)
    state = {}
    for number, name in enumerate([*weights, *biases]):
        ours = ca_fsis.our_name(name)
        if ours is not None:
            state[number] = {BUFFER: ca_fsis.their_layout(ours, traces[ours])}
    settings = config.optimizer
    last = max(int(arrays["step"]) // settings.accumulate - 1, 0)  # its rate: the original decays it on its way
    rate = float(learning_rate(config)(last))
    groups = [
        {"params": list(range(len(weights))), "lr": rate, "weight_decay": settings.weight_decay},
        {
            "params": list(range(len(weights), len(weights) + len(biases))),
            "lr": rate * settings.bias_rate,
            "weight_decay": 0.0,
        },
        {"params": [], "lr": rate, "weight_decay": 0.0},
    ]
    constant = {"momentum": 0.9, "dampening": 0.0, "nesterov": False}
    return {"state": state, "param_groups": [group | constant for group in groups]}


def _traced(path: tuple[Any, ...]) -> str | None:
    """The flat name of the parameter whose momentum lies at this place of an optimiser's state; None elsewhere."""
    names = [getattr(key, "name", None) for key in path]
    if "trace" not in names:
        return None
    keys = [key for key in path[names.index("trace") + 1 :] if isinstance(key, jax.tree_util.DictKey)]
    return "/".join(str(key.key) for key in keys)
