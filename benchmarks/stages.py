"""Time and arithmetic of the stages of one training step and of one inference.

    python -m benchmarks.stages [--config configs/cells_cpu.py] [--config.training.batch_size=8 ...]

The batch is noise with random boxes and the parameters are untrained: with static shapes that changes nothing but the
rounds of non-maximum suppression. "gradient" rows are forward and backward together. GFLOP are those that the
compiler counts in the compiled program, convolutions and matrix products mostly; gathers count nothing. The first of
the config's canvases is used, and one image at inference.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, logging
from flax import nnx
from ml_collections import ConfigDict, config_flags

from fsis_jax import ops
from fsis_jax.batch import Batch
from fsis_jax.config import check_config
from fsis_jax.models.detector import Detector, Matched, Pyramid
from fsis_jax.models.layers import Training
from fsis_jax.models.normalise import normalise
from fsis_jax.models.objective import sampling_settings
from fsis_jax.models.targets import assign_roles, roi_targets, rpn_targets
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.step import new_state

REPEATS = 5
CELL_SIDE = 28
"""Pixels of a random ground-truth box."""

_CONFIG = config_flags.DEFINE_config_file("config", "configs/cells_cpu.py", "A file of configs/.")


def random_batch(config: ConfigDict, canvas: tuple[int, int], batch_size: int) -> Batch:
    """Noise, covered with `max_instances` boxes an image."""
    rng = np.random.default_rng(config.seed)
    transform = config.data.transform
    rows, side, cells = transform.max_instances, transform.reference_size, transform.mask_size
    corners = rng.uniform(0, np.array(canvas[::-1]) - CELL_SIDE, (batch_size, rows, 2))
    return Batch(
        images=rng.integers(0, 256, (batch_size, *canvas, 3), np.uint8),
        image_sizes=np.full((batch_size, 2), canvas, np.int32),
        references=rng.integers(0, 256, (batch_size, config.data.shots, side, side, 3), np.uint8),
        contrast_references=np.zeros((batch_size, 0, side, side, 3), np.uint8),
        contrast_classes=np.zeros(batch_size, np.int32),
        reference_present=np.ones(batch_size, bool),
        gt_boxes=np.concatenate([corners, corners + CELL_SIDE], -1).astype(np.float32),
        gt_valid=np.ones((batch_size, rows), bool),
        gt_classes=np.ones((batch_size, rows), np.int32),
        gt_matches=rng.random((batch_size, rows)) < 0.5,
        gt_ignore=np.zeros((batch_size, rows), bool),
        gt_masks=np.full((batch_size, rows, cells, cells), 255, np.uint8),
        image_ids=np.arange(batch_size, dtype=np.int32),
        sample_ids=np.arange(batch_size, dtype=np.int32),
    )


def measure(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Compile, run and print one row; returns the result."""
    compiled = jax.jit(function).lower(*arguments).compile()
    result = jax.block_until_ready(compiled(*arguments))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        best = min(best, time.perf_counter() - start)
    gflop = (compiled.cost_analysis() or {}).get("flops", 0.0) / 1e9
    print(f"{name:36s} {best * 1e3:10.1f} {gflop:10.3f} {gflop / best:10.1f}", flush=True)
    return result


def _gradient(function: Callable[..., Any], learnt: int) -> Callable[..., Any]:
    """The gradient of the sum of squares of all outputs with respect to the first `learnt` arguments."""

    def loss(*arguments: Any) -> jax.Array:
        return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(function(*arguments))), jnp.float32(0))

    return jax.grad(loss, argnums=tuple(range(learnt)))


def training_stages(config: ConfigDict, model: Detector) -> None:
    """Rows of a training step on one device."""
    batch = jax.device_put(random_batch(config, config.data.train_canvases[0], config.training.batch_size))
    sizes = jnp.asarray(batch.image_sizes)
    extent = model.extent(sizes)
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = states

    def stage(name: str, function: Callable[..., Any], *features: Any, data: tuple[Any, ...] = ()) -> Any:
        """Rows for function(model, *features, *data) and its gradient, which does not reach the data."""

        def call(params: nnx.State, *arguments: Any) -> Any:
            return function(nnx.merge(graph, params, rest), *arguments)

        result = measure(name, call, params, *features, *data)
        measure(f"{name}, gradient", _gradient(call, 1 + len(features)), params, *features, *data)
        return result

    images, crops = normalise(batch.images, sizes), normalise(batch.references)
    pyramid: Pyramid = stage("pyramid", lambda model, x: model.pyramid(x, extent), data=(images,))
    references: Pyramid = stage("references", Detector.encode_references, data=(crops,))
    matched: Matched = stage(
        "co-attention, RPN", functools.partial(Detector.match, extent=extent, training=Training()), pyramid, references
    )
    proposals = measure("proposals", lambda m, p: model.proposals(m, p, extent, sizes, train=True), matched, pyramid)

    roles = assign_roles(batch.gt_boxes, batch.gt_valid, batch.gt_matches, batch.gt_ignore, all_positive=False)
    keys = jax.random.split(jax.random.key(config.seed), len(sizes))
    anchors = jnp.concatenate(list(model.anchors(pyramid).values()))
    inside = jnp.ones(len(anchors), bool)
    settings, weights = sampling_settings(config.model, "rpn"), tuple(config.model.box_head.box_weights)
    measure("RPN targets", jax.vmap(lambda key, role: rpn_targets(key, anchors, inside, role, settings)), keys, roles)
    settings = sampling_settings(config.model, "box_head")
    targets = jax.vmap(lambda key, boxes, valid, role: roi_targets(key, boxes, valid, role, settings, weights))
    rois = measure("roi targets", targets, keys, proposals.boxes, proposals.valid, roles).rois
    stage("box head", _box_head, matched, data=(rois,))
    positives = int(settings.samples * settings.positive_fraction)
    stage("mask head", _mask_head, matched, data=(rois[:, :positives],))

    _, train_state, per_device_step = new_state(config, model)
    parallel = DataParallel(
        per_device_step, "shard_map", batch_size=config.training.batch_size, devices=jax.local_devices()[:1]
    )
    # Inside `measure` the state is not donated, so that the step can be run again on the same one.
    measure("whole step", parallel.step, parallel.put_state(train_state), parallel.put_batch(batch))


def _box_head(model: Detector, matched: Matched, rois: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.classify(model.pool(matched, rois, model.config.box_head.pooled))


def _mask_head(model: Detector, matched: Matched, rois: jax.Array) -> jax.Array:
    return model.segment(model.pool(matched, rois, model.config.mask_head.pooled))


def inference_stages(config: ConfigDict, model: Detector) -> None:
    """Rows of segmenting one image."""
    batch = random_batch(config, config.data.test_canvases[0], 1)
    sizes = jnp.asarray(batch.image_sizes)
    extent = model.extent(sizes)
    images, crops = normalise(batch.images, sizes), normalise(batch.references)
    graph, state = nnx.split(model)

    def stage(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return measure(name, lambda s, *a: function(nnx.merge(graph, s), *a), state, *arguments)

    references: Pyramid = stage("references (once)", Detector.encode_references, crops)
    pyramid: Pyramid = stage("pyramid", lambda model, x: model.pyramid(x, extent), images)
    matched: Matched = stage("co-attention, RPN", functools.partial(Detector.match, extent=extent), pyramid, references)
    proposals = measure("proposals", lambda m, p: model.proposals(m, p, extent, sizes, train=False), matched, pyramid)
    logits, _ = stage("box head", _box_head, matched, proposals.boxes)
    settings = config.model.detections
    suppress = functools.partial(
        ops.soft_nms,
        method=settings.nms_method,
        iou_threshold=settings.nms_threshold,
        score_threshold=settings.decayed_score_threshold,
        max_outputs=settings.max_instances,
    )
    scores = jax.nn.softmax(logits)[..., 1]
    kept, _, _ = measure("soft-NMS", jax.vmap(suppress), proposals.boxes, scores, proposals.valid)
    stage("mask head", _mask_head, matched, jnp.take_along_axis(proposals.boxes, kept[..., None], 1))
    stage("whole detection", Detector.detect, images, sizes, references)


def main(_: list[str]) -> None:
    """Print both tables."""
    logging.set_verbosity(logging.WARNING)
    config: ConfigDict = _CONFIG.value
    check_config(config)
    model = Detector(config.model, rngs=nnx.Rngs(config.seed))
    heading = f"{'ms':>10s} {'GFLOP':>10s} {'GFLOP/s':>10s}"
    print(f"{jax.device_count()} device(s): {jax.devices()[0].device_kind}; best of {REPEATS} runs")
    title = f"training, {config.training.batch_size} of {config.data.train_canvases[0]}"
    print(f"{title:36s} {heading}")
    training_stages(config, model)
    title = f"inference, 1 of {config.data.test_canvases[0]}"
    print(f"\n{title:36s} {heading}")
    inference_stages(config, model)


if __name__ == "__main__":
    app.run(main)
