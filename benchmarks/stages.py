"""Time and arithmetic of the stages of one inference and of one training step.

The batch is noise with random boxes and the weights are random: with static shapes that changes nothing but the rounds
of suppression. The first of the config's canvases is used, and one image at inference.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.cases import Case, detector, random_batch
from benchmarks.matmul import peak
from benchmarks.measure import Row, best_times, compiled
from fsis_jax import ops
from fsis_jax.batch import Batch
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.models.arrays import Pyramid, View
from fsis_jax.models.detection import detect
from fsis_jax.models.detector import Detector, Matched
from fsis_jax.models.layers import Training
from fsis_jax.models.normalise import normalise
from fsis_jax.models.objective import sampling_settings
from fsis_jax.models.targets import assign_roles, roi_targets, rpn_targets
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.step import new_state


class _Rows(list[Row]):
    """The rows so far, and how to make one."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._case = case

    def measure(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Compile and time a stage; returns its result."""
        program = compiled(function, *arguments)
        result = jax.block_until_ready(program.call(*arguments))
        call = functools.partial(program.call, *arguments)
        seconds = best_times({name: call}, self._case.repeats, warm_up=False)[name]
        rate = program.gflop / seconds
        self.append(
            {
                "stage": name,
                "ms": seconds * 1e3,
                "GFLOP": program.gflop,
                "GFLOP/s": rate,
                "% of peak": 100 * rate / peak(self._case.config.model.compute_dtype),
                "MB moved": program.moved,
                "MB temporary": program.temporary,
                "compile s": program.seconds,
            }
        )
        return result


def _gradient(function: Callable[..., Any], learnt: int) -> Callable[..., Any]:
    """The gradient of the sum of squares of all outputs with respect to the first `learnt` arguments."""

    def loss(*arguments: Any) -> jax.Array:
        return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(function(*arguments))), jnp.float32(0))

    return jax.grad(loss, argnums=tuple(range(learnt)), allow_int=True)  # some features hold sizes of maps


def training_rows(case: Case) -> list[Row]:
    """One training step on one device. "gradient" rows are forward and backward together; --quick: the step alone."""
    config, rows, model = case.config, _Rows(case), detector(case.config)
    if not case.quick:
        _training_stages(rows, case, model)
    rows.measure(f"whole step, batch {config.training.batch_size}", *_step(case, model))
    return rows


def training_step(case: Case, model: Detector) -> Callable[[], Any]:
    """A call that runs a whole step, on one device, always from the same state."""
    function, *arguments = _step(case, model)
    return functools.partial(compiled(function, *arguments).call, *arguments)


def _step(case: Case, model: Detector) -> tuple[Callable[..., Any], TrainState, Batch]:
    """A jitted step, a state and a batch."""
    config = case.config
    size = config.training.batch_size
    _, state, per_device_step = new_state(config, model)
    device = jax.local_devices()[:1]
    parallel = DataParallel(per_device_step, "shard_map", batch_size=size, devices=device, donate=False)
    batch = parallel.put_batch(random_batch(config, config.data.train_canvases[0], size))
    return parallel.step, parallel.put_state(state), batch


def _training_stages(rows: _Rows, case: Case, model: Detector) -> None:
    config = case.config
    batch = jax.device_put(random_batch(config, config.data.train_canvases[0], config.training.batch_size))
    sizes = jnp.asarray(batch.image_sizes)
    extent = model.extent(sizes)
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = states

    def stage(name: str, function: Callable[..., Any], *features: Any, data: tuple[Any, ...] = ()) -> Any:
        """Rows for function(model, *features, *data) and its gradient, which does not reach the data."""

        def call(params: nnx.State, *arguments: Any) -> Any:
            # Copies: the running statistics change within the trace of the gradient.
            return function(nnx.merge(graph, params, rest, copy=True), *arguments)

        result = rows.measure(name, call, params, *features, *data)
        rows.measure(f"{name}, gradient", _gradient(call, 1 + len(features)), params, *features, *data)
        return result

    images, shown = normalise(batch.images, sizes), normalise(batch.references)
    pyramid: Pyramid = stage("pyramid", lambda model, x: model.pyramid(x, extent), data=(images,))
    references: Pyramid = stage("references", Detector.encode_references, data=(shown,))
    matched: Matched = stage(
        "co-attention, RPN", functools.partial(Detector.match, extent=extent, training=Training()), pyramid, references
    )
    proposals = rows.measure(
        "proposals", lambda m, p: model.proposals(m, p, extent, sizes, train=True), matched, pyramid
    )

    roles = assign_roles(batch.gt_boxes, batch.gt_valid, batch.gt_matches, batch.gt_ignore, all_positive=False)
    keys = jax.random.split(jax.random.key(config.seed), len(sizes))
    anchors = jnp.concatenate(list(model.anchors(pyramid).values()))
    inside = jnp.ones(len(anchors), bool)
    settings, weights = sampling_settings(config.model, "rpn"), tuple(config.model.box_head.box_weights)
    rows.measure(
        "RPN targets", jax.vmap(lambda key, role: rpn_targets(key, anchors, inside, role, settings)), keys, roles
    )
    settings = sampling_settings(config.model, "box_head")
    targets = jax.vmap(lambda key, boxes, valid, role: roi_targets(key, boxes, valid, role, settings, weights))
    rois = rows.measure("roi targets", targets, keys, proposals.boxes, proposals.valid, roles).rois
    stage("box head", _box_head, matched, data=(rois,))
    positives = ops.most_positives(settings.samples, settings.positive_fraction)
    stage("mask head", _mask_head, matched, data=(rois[:, :positives],))


def _box_head(model: Detector, matched: Matched, rois: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.classify(model.pool(matched, rois, model.config.box_head.pooled))


def _mask_head(model: Detector, matched: Matched, rois: jax.Array) -> jax.Array:
    assert model.mask_head is not None
    return model.masks_of(model.mask_head(model.pool(matched, rois, model.config.mask_head.pooled)))


def _predict_masks(model: Detector, matched: Matched, rois: jax.Array) -> jax.Array:
    assert model.mask_head is not None
    return model.mask_head.predict(model.pool(matched, rois, model.config.mask_head.pooled))


def inference_rows(case: Case) -> list[Row]:
    """Segmenting one image. Both heads include their RoIAlign; "whole detection" is one program with all but the
    references."""
    config, rows, model = case.config, _Rows(case), detector(case.config)
    batch = random_batch(config, config.data.test_canvases[0], 1)
    sizes = jnp.asarray(batch.image_sizes)
    extent = model.extent(sizes)
    images, shown = normalise(batch.images, sizes), normalise(batch.references)
    graph, state = nnx.split(model)

    def call(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda state, *arguments: function(nnx.merge(graph, state), *arguments)

    def stage(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return rows.measure(name, call(function), state, *arguments)

    references: Pyramid = stage("references (once)", Detector.encode_references, shown)
    pyramid: Pyramid = stage("pyramid", lambda model, x: model.pyramid(x, extent), images)
    matched: Matched = stage("co-attention, RPN", functools.partial(Detector.match, extent=extent), pyramid, references)
    proposals = rows.measure(
        "proposals", lambda m, p: model.proposals(m, p, extent, sizes, train=False), matched, pyramid
    )
    logits, _ = stage("box head", _box_head, matched, proposals.boxes)
    settings = config.model.detections
    suppress = functools.partial(
        ops.soft_nms,
        method=settings.nms_method,
        iou_threshold=settings.nms_threshold,
        score_threshold=0.0,
        max_outputs=settings.max_instances,
    )
    scores = jax.nn.softmax(logits)[..., 1]
    kept, _, _ = rows.measure("soft-NMS", jax.vmap(suppress), proposals.boxes, scores, proposals.valid)
    rois = jnp.take_along_axis(proposals.boxes, kept[..., None], 1)
    stage("mask head", _predict_masks, matched, rois)
    stage("whole detection", detect, [View(images, sizes)], references)
    return rows
