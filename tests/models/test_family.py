"""Every body, head and option of the PyTorch project: built from config values, trained a step, run on an image.

docs/family.md is the list: a case has the values of all rows of its tables that name it. Nothing here is compiled as a
whole: op by op, a case finds most of what it needs compiled for those before it, and in the cache of an earlier run.
"""

import ast
import dataclasses
import functools
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from tiny_detector import blobs, tiny_batch, tiny_detector

from fsis_jax.batch import Batch
from fsis_jax.config import base_config
from fsis_jax.config_check import check_config
from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.sources import read_source
from fsis_jax.models.build import build_backbone
from fsis_jax.models.detection import Detections, View, detect
from fsis_jax.models.detector import Detector
from fsis_jax.models.normalise import normalise
from fsis_jax.models.objective import training_losses
from fsis_jax.recipes import c4_config
from fsis_jax.training.optimizer import trainable

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/family.md"
GOLDEN = {
    "V1_fpn_full": "fpn-50",
    "V2_c4_full": "c4-50",
    "V3_fpn_l1": "fpn-50-l1",
    "V4_fpn_norel": "fpn-50-blind",
    "V5_fpn_deform": "fpn-50-deformable",
}
"""Published architectures -> cases that are the same."""
NEEDLESS = {("matching", name, "bias") for name in ("reference_out", "target_out")}
"""Biases ahead of batch statistics, which take them away again."""

TINY: dict[str, Any] = {
    "backbone.width": 8,
    # 36 channels make group-norm groups of two, so that a bias in front of the norm matters.
    "fpn.channels": 36,
    "rpn.anchor_sizes": (8, 16, 32, 64, 128),
    "rpn.straddle": -1.0,
    # All anchors, so that every level is surely among them.
    "rpn.samples": 4096,
    **{f"rpn.{split}_{when}_nms": 16 for split in ("train", "test") for when in ("pre", "post")},
    # Rois of every level; and as many in training as at test, with features of one size: less to compile.
    "box_head.canonical_size": 32.0,
    "box_head.canonical_level": 3,
    "box_head.samples": 16,
    "box_head.positive_fraction": 0.5,
    "box_head.hidden": 24,
    "box_head.convs": 2,
    "box_head.conv_channels": 36,
    "mask_head.channels": 36,
    "mask_head.pooled": 7,
    "keypoint_head.channels": 36,
    "keypoint_head.convs": 2,
    "keypoint_head.keypoints": 5,
    "keypoint_head.pooled": 7,
    "detections.max_instances": 8,
    # Whatever random weights say.
    "detections.score_threshold": 0.0,
    "detections.decayed_score_threshold": 0.0,
}
"""Of `config.model`, ahead of a case's own values."""


class Row:
    """A line of a table of docs/family.md."""

    def __init__(self, line: str) -> None:
        self.name, here, tests = line.strip("| \n").split(" | ")
        pairs = re.findall(r"`([a-z_0-9.]+) = ([^`]+)`", here)
        self.values = {key: ast.literal_eval(value) for key, value in pairs}
        self.tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)", tests)
        self.cases = re.findall(r"\[([\w-]+)\]", tests)


ROWS = [Row(line) for line in PAGE.read_text().splitlines() if re.match(r"\| (?!---|name in)", line)]
CASES: dict[str, list[Row]] = {}
for _row in ROWS:
    for _case in _row.cases:
        CASES.setdefault(_case, []).append(_row)


def config_of(case: str, **tiny: Any) -> ConfigDict:
    """What the rows of a case say, which must agree."""
    values: dict[str, Any] = {}
    for row in CASES[case]:
        assert {key: values.get(key, value) for key, value in row.values.items()} == row.values, (case, row.name)
        values |= row.values
    assert "model.architecture" in values, f"docs/family.md names {case} in no row of a body"
    config = c4_config() if values["model.architecture"] == "c4" else base_config()
    config.update_from_flattened_dict({f"model.{key}": value for key, value in tiny.items()} | values)
    check_config(config)
    return config


def batch_for(config: ConfigDict) -> Batch:
    """One image, with a reference of its size; or an image alone, all of whose instances count."""
    batch = jax.tree.map(jnp.asarray, tiny_batch(1))
    if not config.model.classes:
        return dataclasses.replace(batch, references=jnp.asarray(blobs(10, 64, 64))[None, None])
    boxes, points = batch.gt_boxes[..., None, :], np.linspace(0.2, 0.8, config.model.keypoint_head.keypoints)
    places = boxes[..., :2] + points[:, None] * (boxes[..., 2:] - boxes[..., :2])  # along the diagonals
    return dataclasses.replace(
        batch,
        references=batch.references[:, :0],
        gt_matches=batch.gt_valid,
        gt_keypoints=jnp.concatenate([places, jnp.full_like(places[..., :1], 2)], -1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    config = config_of(case, **TINY)
    heads = {name for name in ("mask", "keypoint") if config.model[f"{name}_head"].kind != "none"}
    batch = batch_for(config)
    graph, params, rest = nnx.split(tiny_detector(config), trainable(config), ...)

    def loss(params: nnx.State) -> Any:
        terms, _ = training_losses(nnx.merge(graph, params, rest, copy=True), batch, jax.random.key(0))
        return sum(terms.values(), jnp.float32(0)), terms

    gradients, terms = jax.grad(loss, has_aux=True)(params)
    assert set(terms) == {"rpn_class", "rpn_box", "box_class", "box_regression"} | heads
    assert all(np.isfinite(term) and term > 0 for term in terms.values()), terms
    largest = {path: float(jnp.abs(value[...]).max()) for path, value in nnx.to_flat_state(gradients)}
    assert all(np.isfinite(value) for value in largest.values())
    batch_norm = config.model.matching.kind == "co_attention" and config.model.matching.norm == "batch"
    assert {path for path, value in largest.items() if not value > 1e-6} <= (NEEDLESS if batch_norm else set())
    frozen = 5 if config.training.freeze_backbone else max(config.model.backbone.freeze_at, 1)
    last = 4 if config.model.architecture == "c4" else 5
    assert {path[2] + 2 for path in largest if path[:2] == ("backbone", "stages")} == set(range(frozen + 1, last + 1))
    assert {path[0] for path in largest} >= {"rpn", "box_head"} | {f"{name}_head" for name in heads}

    found = appearance(nnx.merge(graph, params, rest), batch)
    assert found.valid.any()
    assert (found.masks is not None, found.keypoints is not None) == ("mask" in heads, "keypoint" in heads)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert set(np.unique(found.classes)) <= set(range(1, 1 + max(len(config.model.classes), 1)))


def appearance(model: Detector, batch: Batch) -> Detections:
    references = model.encode_references(normalise(batch.references)) if batch.references.shape[1] else {}
    return detect(model, [View(normalise(batch.images, batch.image_sizes), batch.image_sizes)], references)


# -- names ---------------------------------------------------------------------------------------------------------


def shapes_of(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Flat name -> shape."""
    _, state = nnx.split(module)
    return {"/".join(map(str, path)): variable.shape for path, variable in nnx.to_flat_state(state)}


@pytest.mark.parametrize("variant", GOLDEN)
def test_arrays_of_the_published_architectures(variant: str, golden: pathlib.Path) -> None:
    """Those that the manifest names, no others; tests/conversion/test_ca_fsis.py has their order and layouts."""
    path = golden / variant / "manifest.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    listed = {name: tuple(shape) for name, shape in json.loads(path.read_text())["state_dict"]}
    config = config_of(GOLDEN[variant])
    ours = shapes_of(nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0))))
    assert {ca_fsis.our_name(name) for name in listed} - {None} == set(ours)
    for name, shape in listed.items():
        found = ca_fsis.our_name(name)
        assert found is None or ca_fsis.their_shape(found, ours[found]) == shape, name


BACKBONES = {(c.depth, c.groups, c.group_width) for c in (config_of(case).model.backbone for case in CASES)}


@pytest.mark.parametrize(("depth", "groups", "group_width"), sorted(BACKBONES))
def test_backbones_have_torchvisions_names(depth: int, groups: int, group_width: int) -> None:
    """At full width: no tensor is missing, none left over, and a file of them is recognised as what it is."""
    tensors = torchvision_resnet(depth, groups, group_width or 64)
    source = read_source(tensors, "auto", pathlib.Path("resnet.pth"))
    assert source.unknown == []
    read = source.config.model.backbone
    assert (read.depth, read.groups, read.group_width) == (depth, groups, group_width)
    backbone = nnx.eval_shape(lambda: build_backbone(source.config.model, rngs=nnx.Rngs(0)))
    ours = {f"backbone/{name}": shape for name, shape in shapes_of(backbone).items()}
    names = {ca_fsis.our_name(name): value.shape for name, value in source.tensors.items()}
    names.pop(None, None)  # tensors that nobody reads
    assert {name: ca_fsis.their_shape(name, shape) for name, shape in ours.items()} == names
    levels = nnx.eval_shape(lambda net, images: net(images, None), backbone, jnp.zeros((1, 64, 96, 3)))
    assert {level: x.shape for level, x in levels.items()} == {
        1: (1, 32, 48, 64),  # the stem, before it is pooled
        **{level: (1, 64 // 2**level, 96 // 2**level, 64 * 2**level) for level in (2, 3, 4, 5)},
    }


def torchvision_resnet(depth: int, groups: int, group_width: int) -> dict[str, np.ndarray]:
    """torchvision's names, with zeros (that take no memory) for tensors."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    tensors: dict[str, np.ndarray] = {}

    def add(layer: str, norm: str, *shape: int) -> None:
        tensors[f"{layer}.weight"] = np.broadcast_to(np.float32(0), shape)
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{name}"] = np.broadcast_to(np.float32(0), shape[:1])
        tensors[f"{norm}.num_batches_tracked"] = np.zeros((), np.int64)

    add("conv1", "bn1", 64, 3, 7, 7)
    inputs = 64
    for stage, count in enumerate(blocks, start=1):
        inner, outputs = groups * group_width * 2 ** (stage - 1), 128 * 2**stage
        for block in range(count):
            name = f"layer{stage}.{block}"
            add(f"{name}.conv1", f"{name}.bn1", inner, inputs, 1, 1)
            add(f"{name}.conv2", f"{name}.bn2", inner, inner // groups, 3, 3)
            add(f"{name}.conv3", f"{name}.bn3", outputs, inner, 1, 1)
            if block == 0:
                add(f"{name}.downsample.0", f"{name}.downsample.1", outputs, inputs, 1, 1)
            inputs = outputs
    tensors["fc.weight"], tensors["fc.bias"] = np.zeros((10, inputs), np.float32), np.zeros(10, np.float32)
    return tensors


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_tests_of_the_page_exist() -> None:
    assert [row.name for row in ROWS if not row.tests] == []
    for path, name in {test for row in ROWS for test in row.tests}:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), (path, name)


def test_the_values_of_the_page_are_those_of_keys() -> None:
    """A value has the type of its default; a row without one says what it is in words."""
    known = base_config()
    for row in ROWS:
        for key, value in row.values.items():
            default = functools.reduce(lambda part, name: part[name], key.split("."), known)
            assert type(value) is type(default), (row.name, key)
    cells = PAGE.read_text().split("|")
    assert len([cell for cell in cells if cell.strip() == "-"]) == sum(not row.values for row in ROWS)
