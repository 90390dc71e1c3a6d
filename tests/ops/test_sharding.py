"""The functions with a loop inside keep their types under `jax.shard_map`, which one device suffices to check."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from fsis_jax import ops


def nms(features, boxes, scores):
    return ops.nms(boxes, scores, jnp.ones(20, bool), iou_threshold=0.5, max_outputs=10)


def soft_nms(features, boxes, scores):
    return ops.soft_nms(boxes, scores, jnp.ones(20, bool), max_outputs=10)


def assign(features, boxes, scores):
    """Anchors are the same on every device, the instances are not."""
    anchors = jnp.tile(jnp.array([[0.0, 0.0, 20.0, 20.0]]), (30, 1)) + jnp.arange(30.0)[:, None]
    return ops.assign(anchors, boxes, scores > 0.3, positive_iou=0.7, negative_iou=0.3, force_best=True)


def roi_align_gradient(features, boxes, scores):
    def loss(features):
        fixed = ops.roi_align(features, boxes, spatial_scale=0.25, output_size=3)
        adaptive = ops.roi_align(features, boxes, spatial_scale=0.25, output_size=3, sampling_ratio=0)
        return (fixed * adaptive).sum()

    return jax.grad(loss)(features)


def convolution_gradient(features, boxes, scores):
    """The map has more positions than one block of the kernel's gradient."""
    x = jnp.tile(features[:1, :1], (50, 50, 1))[None] * jnp.linspace(-1.0, 1.0, 50)[:, None]
    kernel = jnp.linspace(-0.5, 1.0, 54).reshape(3, 3, 3, 2)  # the same on every device
    return jax.grad(lambda kernel: jnp.mean(ops.conv2d(x, kernel) ** 2))(kernel)


@pytest.mark.parametrize("function", [nms, soft_nms, assign, roi_align_gradient, convolution_gradient])
def test_under_shard_map(function):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (2, 20, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 30, low.shape)], axis=-1).astype(np.float32)
    features, scores = rng.random((2, 8, 8, 3)).astype(np.float32), rng.random((2, 20)).astype(np.float32)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    batched, axis = jax.jit(jax.vmap(function)), PartitionSpec("batch")
    sharded = jax.jit(jax.shard_map(batched, mesh=mesh, in_specs=axis, out_specs=axis))
    expected, found = batched(features, boxes, scores), sharded(features, boxes, scores)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
