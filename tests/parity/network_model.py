"""The detector of each golden variant, filled with the golden weights by the converter, and how arrays are compared."""

import contextlib
import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import largest, relative
from flax import nnx
from golden_files import existing
from ml_collections import ConfigDict
from parity_table import Figures

from fsis_jax.conversion import ca_fsis
from fsis_jax.models.co_attention import Match
from fsis_jax.models.detector import Detector
from fsis_jax.models.l1_match import L1Match

Arrays = Mapping[str, np.ndarray]
Path = tuple[str | int, ...]


def shapes_of(golden: pathlib.Path, variant: str) -> dict[str, tuple[int, ...]]:
    """PyTorch name -> shape of every tensor in the variant's published form."""
    manifest = json.loads(existing(golden, variant, "manifest.json").read_text())
    return {name: tuple(shape) for name, shape in manifest["state_dict"]}


def parity_config(golden: pathlib.Path, variant: str) -> ConfigDict:
    """What the converter infers from the tensors, with the original's behaviour wherever a key gives it."""
    config = ca_fsis.model_config(shapes_of(golden, variant))
    model = config.model
    model.clip_to_padding = True
    model.shifted_mask_references = True
    model.all_gt_positive = True
    model.detections.legacy_pasting = True
    if model.architecture == "c4":
        model.box_head.norm = "batch"
    return config


def load_rule(golden: pathlib.Path) -> ModuleType:
    """The module that makes every tensor from its name and shape."""
    spec = importlib.util.spec_from_file_location("golden_weights_rule", existing(golden, "weights_rule.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(golden: pathlib.Path, variant: str, config: ConfigDict) -> tuple[nnx.GraphDef, nnx.State]:
    """The detector of `config.model` with the golden weights: a missing, extra or misshapen tensor is an error."""
    rule = load_rule(golden)
    values = {}
    for name, shape in shapes_of(golden, variant).items():
        if not ca_fsis.is_unused(name):
            ours, value = converted(name, rule.make(name, shape))
            values[ours] = value
    graph, state = nnx.split(empty(config))
    flat: dict[Path, Any] = dict(nnx.to_flat_state(state))
    assert {"/".join(map(str, path)): flat[path].shape for path in flat} == {
        name: value.shape for name, value in values.items()
    }
    filled = [
        (path, variable.replace(jnp.asarray(values["/".join(map(str, path))]))) for path, variable in flat.items()
    ]
    return graph, jax.block_until_ready(nnx.from_flat_state(filled))


def converted(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Our flat name and layout of a PyTorch tensor that is used."""
    ours = ca_fsis.to_ours(name, value)
    assert ours is not None
    return ours


def graph_of(config: ConfigDict) -> nnx.GraphDef:
    """The structure of the detector of `config.model`, to merge with the state of one that differs in settings only."""
    return nnx.graphdef(empty(config))


def empty(config: ConfigDict) -> Detector:
    """The detector of `config.model` without values."""
    return nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0)))


@contextlib.contextmanager
def misread_maps() -> Iterator[None]:
    """Within this the heads of an L1 model pool from maps whose memory is read in the wrong order.

    So were the golden vectors of V3 made: PyTorch gave the output of the 1x1 convolution the layout (h, w, C), and the
    CPU's RoIAlign took its memory for (C, h, w). The gradient came back in the right order. The project itself, whose
    kernel for GPUs asks for contiguous memory, has no such fault.
    """
    straight = L1Match.__call__

    def misread(self: L1Match, *arguments: Any) -> Match:
        match = straight(self, *arguments)
        batch, height, width, channels = match.target.shape
        wrong = match.target.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)
        return dataclasses.replace(match, target=match.target + jax.lax.stop_gradient(wrong - match.target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L1Match, "__call__", misread)
        yield


def check_map(
    figures: Figures, stage: str, variant: str, ours: Any, expected: Arrays, key: str, tolerance: float
) -> None:
    """Compare (1, h, w, C) with a golden (1, C, h, w), of which large ones are stored in part."""
    height, width = expected[f"{key}__shape"][2:]
    full = np.asarray(ours, np.float64).transpose(0, 3, 1, 2)[:, :, :height, :width]
    assert full.shape == tuple(expected[f"{key}__shape"])
    scale = float(expected[f"{key}__stat"][2]) if f"{key}__stat" in expected else float(np.abs(full).max())
    if f"{key}__stat" in expected:
        statistics = np.array([full.mean(), full.std(ddof=1), np.abs(full).max()])
        figures.check(stage, variant, largest(statistics, expected[f"{key}__stat"][:3]) / scale, tolerance)
        norm = float(expected[f"{key}__stat"][3])
        figures.check(stage, variant, relative(np.linalg.norm(full), norm), tolerance)
    part = full
    if full.shape != expected[key].shape:
        part = full[:, ::8] if height * width <= 400 else full[:, ::8, ::2, ::2]
    figures.check(stage, variant, largest(part, expected[key]) / scale, tolerance)


def pairing(ours: np.ndarray, theirs: np.ndarray, scores: np.ndarray, tie: float = 1e-5) -> np.ndarray:
    """For each golden box (R, 4) the row of ours that is the same one.

    Both are in the same order, but for entries whose scores (R,) differ by less than `tie`.
    """
    assert len(ours) == len(theirs), f"{len(ours)} boxes, expected {len(theirs)}"
    free = set(range(len(ours)))
    rows = np.empty(len(ours), int)
    for row in range(len(theirs)):
        near = [other for other in free if abs(float(scores[other]) - float(scores[row])) < tie]
        distances = [float(np.abs(ours[other] - theirs[row]).max()) + 1e-6 * (other != row) for other in near]
        assert near, f"no box of ours is left for golden box {row}"
        rows[row] = near[int(np.argmin(distances))]
        free.remove(int(rows[row]))
    return rows
