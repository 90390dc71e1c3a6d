"""The keypoint head layer by layer, its targets and loss by hand, and decoding against Detectron's way to do it."""

import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models import keypoint_head
from fsis_jax.models.keypoint_head import KeypointHead, decode_keypoints, keypoint_targets

keypoint_loss = jax.jit(keypoint_head.keypoint_loss, static_argnames="axis_name")


def head(dtype: str = "float32") -> KeypointHead:
    return randomise(
        nnx.eval_shape(lambda: KeypointHead(3, keypoints=2, channels=4, convs=2, dtype=dtype, rngs=nnx.Rngs(0)))
    )


def conv3x3(layer: nnx.Conv, x: np.ndarray) -> np.ndarray:
    """(N, s, s, c) with the layer's 3x3 kernel, zero-padded, and ReLU."""
    kernel, side = np.asarray(layer.kernel[...]), x.shape[1]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [(padded[:, i : i + side, j : j + side], kernel[i, j]) for i in range(3) for j in range(3)]
    return np.maximum(sum(window @ weights for window, weights in windows) + np.asarray(layer.bias[...]), 0)


def transposed(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """PyTorch's ConvTranspose2d(kernel 4, stride 2, padding 1): (N, s, s, c) with (c, o, 4, 4) -> (N, 2s, 2s, o)."""
    number, side = x.shape[:2]
    full = np.zeros((number, 2 * side + 2, 2 * side + 2, kernel.shape[1]))
    for i in range(side):
        for j in range(side):
            full[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("nc,coyx->nyxo", x[:, i, j], kernel)
    return full[:, 1:-1, 1:-1]


def test_layers() -> None:
    """The last one is Detectron's bilinear kernel, as a transposed convolution of each heat map."""
    model, rng = head(), np.random.default_rng(0)
    rois = rng.normal(size=(2, 3, 5, 5, 3)).astype(np.float32)
    found = jax.jit(model)(rois)
    x = rois.reshape(6, 5, 5, 3)
    for layer in model.convs:
        x = conv3x3(layer, x)
    # The rule for weights: PyTorch's (in, out, rows, columns) is this with its axes in the order (3, 2, 0, 1).
    x = transposed(x, np.asarray(model.out.kernel[...]).transpose(3, 2, 0, 1)) + np.asarray(model.out.bias[...])
    bilinear = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    x = transposed(x, np.einsum("co,yx->coyx", np.eye(2), bilinear))
    assert found.shape == (2, 3, 20, 20, 2)
    np.testing.assert_allclose(found, x.reshape(found.shape), atol=1e-4)


def test_logits_are_float32_and_start_near_0() -> None:
    rois = np.ones((1, 2, 4, 4, 3), np.float32)
    assert head("bfloat16")(jnp.asarray(rois, jnp.bfloat16)).dtype == jnp.float32
    fresh = KeypointHead(3, keypoints=2, channels=4, convs=1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert np.abs(fresh(rois)).max() < 0.1


def targets(keypoints: list, rois: list, matched: list, offset: int = 0, size: int = 4) -> tuple[list, list]:
    arrays = (jnp.asarray(keypoints, jnp.float32), jnp.asarray(rois, jnp.float32), jnp.asarray(matched))
    cells, weights = jax.jit(keypoint_targets, static_argnames=("size", "offset"))(*arrays, size=size, offset=offset)
    assert (cells.dtype, weights.dtype) == (jnp.int32, bool)
    return cells.tolist(), weights.tolist()


def test_targets_by_hand() -> None:
    """A roi of 8 x 16 pixels with 4 x 4 cells of 2 x 4."""
    points = [[10, 20, 2], [13.9, 27.9, 1], [14, 28, 2], [18, 36, 2], [18.1, 30, 2], [12, 30, 0]]
    cells, weights = targets([[[0, 0, 2]] * 6, points], [[10, 20, 18, 36]], [1])
    assert weights == [[True, True, True, True, False, False]]
    assert cells == [[0, 4 * 1 + 1, 4 * 2 + 2, 15, 0, 0]]


def test_targets_of_degenerate_rois_and_of_the_matched_instance() -> None:
    keypoints = [[[3, 3, 2]], [[9, 1, 2]]]
    cells, weights = targets(keypoints, [[0, 0, 4, 4], [8, 0, 12, 4], [3, 3, 3, 3], [0, 0, 0, 0]], [0, 1, 0, 0])
    assert weights == [[True], [True], [False], [False]]
    assert cells == [[15], [5], [0], [0]]


def test_targets_of_the_legacy_convention() -> None:
    """There the middle of pixel 3 is 3, not 3.5: a keypoint on it lies in cell 3 of a roi that starts at 0."""
    assert targets([[[3.5, 0.5, 2]]], [[0, 0, 4, 4]], [0], offset=1) == ([[3]], [[True]])
    assert targets([[[3.4, 0.5, 2]]], [[0, 0, 4, 4]], [0], offset=1) == ([[2]], [[True]])


def test_loss_by_hand() -> None:
    logits = jnp.zeros((1, 3, 2, 2, 2)).at[0, 0, 1, 0, 0].set(math.log(5)).at[0, 1:].set(7 * jnp.eye(2)[..., None])
    cells = jnp.array([[[2, 1], [0, 0], [0, 0]]])
    weights = jnp.array([[[True, True], [False, True], [True, True]]])
    found = keypoint_loss(logits, cells, weights, jnp.array([[True, True, False]]), axis_name=None)
    third = -7 + math.log(2 * math.exp(7) + 2)
    assert float(found) == pytest.approx((-math.log(5 / 8) + math.log(4) + third) / 3, rel=1e-5)


def test_nothing_to_learn_is_no_loss() -> None:
    logits, cells = jnp.ones((1, 2, 2, 2, 3)), jnp.zeros((1, 2, 3), jnp.int32)
    nothing, everything = jnp.zeros((1, 2, 3), bool), jnp.ones((1, 2), bool)

    def loss(logits: jax.Array) -> jax.Array:
        return keypoint_loss(logits, cells, nothing, everything, axis_name=None)

    value, gradient = jax.value_and_grad(loss)(logits)
    assert float(value) == 0.0
    assert not np.asarray(gradient).any()


def test_shares_of_two_devices_add_up() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    arrays = (
        logits,
        rng.integers(0, 16, (2, 3, 2)),
        rng.random((2, 3, 2)) < 0.6,
        np.array([[1, 1, 0], [1, 0, 0]], bool),
    )

    def on_device(*arrays: jax.Array) -> jax.Array:
        return keypoint_loss(*(array[None] for array in arrays), axis_name="batch")

    shares = jax.vmap(on_device, axis_name="batch")(*arrays)
    assert float(shares.sum()) == pytest.approx(float(keypoint_loss(*arrays, axis_name=None)), rel=1e-5)


def resized(logits: np.ndarray, roi: np.ndarray) -> np.ndarray:
    """Detectron's heatmaps_to_keypoints for one roi: (P, 2)."""
    x1, y1, x2, y2 = roi
    width, height = max(x2 - x1, 1), max(y2 - y1, 1)
    columns, rows = math.ceil(width), math.ceil(height)
    points = []
    for k in range(logits.shape[-1]):
        surface = cv2.resize(np.ascontiguousarray(logits[..., k]), (columns, rows), interpolation=cv2.INTER_CUBIC)
        y, x = divmod(int(surface.argmax()), columns)
        points.append((x1 + (x + 0.5) * width / columns, y1 + (y + 0.5) * height / rows))
    return np.array(points)


def test_decoding_agrees_with_resizing_to_the_roi() -> None:
    """Smooth peaks of random places, some near the border, in rois larger and smaller than the map."""
    rng = np.random.default_rng(1)
    side = 28
    rois = np.array([[10, 20, 150, 180.5], [3.3, 4, 33, 90], [0, 0, 13, 21], [50, 50, 400, 300]], np.float32)
    centres = rng.uniform(0, side, (4, 9, 2))
    y, x = np.mgrid[:side, :side] + 0.5
    far = (x - centres[..., 0, None, None]) ** 2 + (y - centres[..., 1, None, None]) ** 2
    logits = 9 * np.exp(-far / 12) + 0.05 * rng.normal(size=far.shape)
    logits = logits.transpose(0, 2, 3, 1).astype(np.float32)
    found = np.asarray(jax.jit(decode_keypoints)(logits, rois))
    for roi, maps, points in zip(rois, logits, found, strict=True):
        sides = roi[2:] - roi[:2]
        allowed = np.where(sides < side, 1.0, 0.5) + sides / side / 16 + 1e-3
        assert (np.abs(points[:, :2] - resized(maps, roi)) <= allowed).all()
        assert (points[:, :2] >= roi[:2]).all()
        assert (points[:, :2] <= roi[2:]).all()
    np.testing.assert_allclose(
        found[..., 2], np.exp(logits).max((1, 2)) / np.exp(logits).sum((1, 2)), rtol=1e-4
    )  # the probability of the highest cell


def test_decoding_by_hand() -> None:
    """One cell of four high in a roi of 8 x 16 from (10, 20): its middle; and between two equal cells, half-way."""
    one = np.full((1, 4, 4, 2), -20, np.float32)
    one[0, 2, 1, 0] = 20
    one[0, 1, 1:3, 1] = 20
    found = np.asarray(decode_keypoints(one, np.array([[10, 20, 18, 36]], np.float32)))
    np.testing.assert_allclose(found[0], [[13, 30, 1], [14, 26, 0.5]], atol=1e-5)
    legacy = np.asarray(decode_keypoints(one, np.array([[10, 20, 18, 36]], np.float32), offset=1))
    np.testing.assert_allclose(legacy[..., :2], found[..., :2] + 0.5)


def test_decoding_finds_what_the_targets_say() -> None:
    rng = np.random.default_rng(2)
    rois = np.array([[5, 7, 61, 119], [0, 0, 30, 20]], np.float32)
    points = rois[:, None, :2] + rng.random((2, 6, 2)) * (rois[:, None, 2:] - rois[:, None, :2])
    keypoints = np.concatenate([points, np.full((2, 6, 1), 2)], -1).astype(np.float32)
    for offset in (0, 1):
        cells, weights = keypoint_targets(keypoints, rois, np.arange(2), size=56, offset=offset)
        maps = 9.0 * np.swapaxes(np.eye(56 * 56, dtype=np.float32)[cells], 1, 2).reshape(2, 56, 56, 6)
        found = np.asarray(decode_keypoints(maps, rois, offset=offset))[..., :2]
        half_cell = (rois[:, None, 2:] - rois[:, None, :2]) / 112 + 1e-4
        assert (np.abs(found - points) <= half_cell)[np.asarray(weights)].all()
