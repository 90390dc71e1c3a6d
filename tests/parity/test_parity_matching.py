"""The blocks that match target and references, alone: co-attention, its channel gate, and the L1 variant."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import relative
from flax import nnx
from golden_files import Vectors, load
from parity_table import Figures

from fsis_jax.conversion import ca_fsis
from fsis_jax.models.co_attention import ChannelGate, CoAttention, Match
from fsis_jax.models.l1_match import L1Match
from fsis_jax.models.layers import BatchStatistic, Training

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "ops.npz")


def tensors(vectors: Vectors, prefix: str) -> dict[str, np.ndarray]:
    """Those of a block that the converter knows, by our name within the block and in our layout."""
    found = {}
    for name in vectors.starting(prefix):
        ours = ca_fsis.to_ours(f"match_net.{name.removeprefix(prefix)}", vectors[name])
        if ours is not None:
            found[ours[0].removeprefix("matching/")] = ours[1]
    return found


def widened(values: Mapping[str, np.ndarray], hidden: int) -> dict[str, np.ndarray]:
    """The gate's hidden layer filled up to `hidden` with units that do nothing: ours has no fewer than four."""
    missing = hidden - values["gate/fc1/bias"].shape[0]
    pads = {
        "gate/fc1/kernel": ((0, 0), (0, missing)),
        "gate/fc1/bias": (0, missing),
        "gate/fc2/kernel": ((0, missing), (0, 0)),
    }
    return {name: np.pad(value, pads[name]) if name in pads else value for name, value in values.items()}


def filled(module: nnx.Module, values: Mapping[str, np.ndarray]) -> Any:
    """`module` (from nnx.eval_shape) with exactly these tensors."""
    graph, state = nnx.split(module)
    flat = nnx.to_flat_state(state)
    assert {"/".join(map(str, path)) for path, _ in flat} == set(values)
    assert all(variable.shape == values["/".join(map(str, path))].shape for path, variable in flat)
    return nnx.merge(
        graph,
        nnx.from_flat_state(
            (path, variable.replace(jnp.asarray(values["/".join(map(str, path))]))) for path, variable in flat
        ),
    )


def channels_last(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def co_attention(vectors: Vectors) -> CoAttention:
    channels = vectors["match/detect"].shape[1]
    module = nnx.eval_shape(lambda: CoAttention(channels, norm="batch", dtype=jnp.float32, rngs=nnx.Rngs(0)))
    values = tensors(vectors, "match/w/")
    return filled(module, widened(values, module.gate.fc1.kernel.shape[1]))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_co_attention(vectors: Vectors, figures: Figures, mode: str) -> None:
    """Outputs; the gradient of sum_i (i + 1)^2 |output_i|^2; in training, the running statistics."""
    graph, state = nnx.split(co_attention(vectors))
    training = Training() if mode == "train" else None

    def outputs(match: Match) -> dict[str, jax.Array]:
        assert match.gate is not None
        gate = match.gate[:, None, None]
        return {"non_det": match.rpn, "act_det": match.target, "act_aim": match.reference, "c_weight": gate}

    @jax.jit
    def run(target: jax.Array, reference: jax.Array) -> Any:
        def loss(target: jax.Array, reference: jax.Array) -> Any:
            module = nnx.merge(graph, state, copy=True)
            found = outputs(module(target, reference, None, training))
            total = sum(((i + 1) ** 2 * (x**2).sum() for i, x in enumerate(found.values())), jnp.float32(0))
            return total, (found, nnx.state(module, BatchStatistic))

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(target, reference)

    gradients, (found, statistics) = run(channels_last(vectors["match/detect"]), channels_last(vectors["match/aim"]))
    for name, value in found.items():
        theirs = vectors[f"match/{mode}_{name}"].transpose(0, 2, 3, 1)
        figures.check("co-attention alone, relative", "", relative(value, theirs), TOLERANCE)
    for name, value in zip(("detect", "aim"), gradients, strict=True):
        theirs = vectors[f"match/{mode}_grad_{name}"].transpose(0, 2, 3, 1)
        figures.check("gradient of co-attention, relative", "", relative(value, theirs), TOLERANCE)
    for theirs, ours in (("W", "reference_norm"), ("Q", "target_norm")):
        for kind in ("mean", "var"):
            prefix = "match/after_train_" if mode == "train" else "match/w/"
            error = relative(statistics[ours][kind][...], vectors[f"{prefix}{theirs}.1.running_{kind}"])
            figures.check("running statistics of co-attention, relative", "", error, TOLERANCE)


def test_channel_gate(vectors: Vectors, figures: Figures) -> None:
    values = {name: value for name, value in tensors(vectors, "match/w/").items() if name.startswith("gate/")}
    channels = vectors["gate/in"].shape[1]
    module = nnx.eval_shape(lambda: ChannelGate(channels, rngs=nnx.Rngs(0)))
    wide = widened(values, module.fc1.kernel.shape[1])
    gate = filled(module, {name.removeprefix("gate/"): value for name, value in wide.items()})
    found = jax.jit(gate)(channels_last(vectors["gate/in"]))
    figures.check("channel gate, relative", "", relative(found, vectors["gate/out"][:, :, 0, 0]), TOLERANCE)


def test_l1_matching(vectors: Vectors, figures: Figures) -> None:
    """It reads the same target and reference features as the co-attention."""
    channels = vectors["l1match/out"].shape[1]
    module = nnx.eval_shape(lambda: L1Match(channels, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    block = filled(module, tensors(vectors, "l1match/w/"))
    found = jax.jit(block)(channels_last(vectors["match/detect"]), channels_last(vectors["match/aim"]))
    theirs = vectors["l1match/out"].transpose(0, 2, 3, 1)
    figures.check("L1 matching alone, relative", "", relative(found.target, theirs), TOLERANCE)
    figures.check("L1 matching alone, relative", "", relative(found.rpn, theirs), TOLERANCE)
