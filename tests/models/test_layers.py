"""Norms (with masks and over devices), padding of convolutions, and bilinear resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import randomise

from fsis_jax.models.layers import (
    BatchNorm,
    BatchStatistic,
    FrozenBatchNorm,
    FrozenStatistic,
    GroupNorm,
    Training,
    conv,
    make_norm,
    relu,
    resize_bilinear,
)

CHANNELS = 6


def features(seed: int, *shape: int) -> np.ndarray:
    return (3 + 2 * np.random.default_rng(seed).normal(size=(*shape, CHANNELS))).astype(np.float32)


def masked_features() -> tuple[np.ndarray, np.ndarray]:
    """Two images of 3 x 5 and 4 x 2 on a 4 x 5 canvas: features, arbitrary outside, and the mask."""
    mask = np.zeros((2, 4, 5, 1), np.float32)
    mask[0, :3], mask[1, :, :2] = 1, 1
    return features(0, 2, 4, 5), mask


def test_relu_and_its_gradient_are_those_of_jax() -> None:
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf, -jnp.inf, jnp.nan])
    weights = jnp.arange(1.0, len(x) + 1)
    both = [jax.value_and_grad(lambda x, f=f: (f(x) * weights)[:5].sum())(x) for f in (relu, jax.nn.relu)]
    jax.tree.map(np.testing.assert_array_equal, *both)
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    _, tangents = jax.jvp(relu, (x,), (weights,))
    np.testing.assert_array_equal(tangents, jax.jvp(jax.nn.relu, (x,), (weights,))[1])


def test_batch_norm_in_training_over_the_mask() -> None:
    """The formulas of torch.nn.BatchNorm2d on the 15 + 8 positions inside."""
    norm = randomise(BatchNorm(CHANNELS))
    scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    old_mean, old_var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    x, mask = masked_features()
    y = norm(jnp.asarray(x), jnp.asarray(mask), Training())
    inside = x[mask[..., 0] > 0]  # (23, C)
    mean, var = inside.mean(0), inside.var(0)
    expected = np.where(mask > 0, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.9 * old_mean + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 * old_var + 0.1 * var * 23 / 22, rtol=1e-5)


def test_batch_norm_in_use_reads_the_running_statistics() -> None:
    norm = randomise(BatchNorm(CHANNELS))
    before = np.asarray(norm.mean[...])
    x = features(1, 2, 3, 4)
    expected = (x - before) / np.sqrt(np.asarray(norm.var[...]) + 1e-5) * np.asarray(norm.scale[...])
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected + np.asarray(norm.bias[...]), atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], before)


@pytest.mark.parametrize("weights", [None, (3.0, 1.0)])
def test_batch_norm_over_devices_is_that_of_the_whole_batch(weights: tuple[float, ...] | None) -> None:
    """One image a device; the masks give the devices different counts, and so do weights."""
    graph, state = nnx.split(randomise(BatchNorm(CHANNELS)))
    x, mask = masked_features()
    counts = None if weights is None else jnp.array(weights)

    def on_device(x: jax.Array, mask: jax.Array, counts: jax.Array | None) -> tuple[jax.Array, nnx.State]:
        norm = nnx.merge(graph, state, copy=True)
        y = norm(x[None], mask[None], Training("batch", None if counts is None else counts[None]))[0]
        return y, nnx.state(norm)

    y, states = jax.vmap(on_device, axis_name="batch")(jnp.asarray(x), jnp.asarray(mask), counts)
    whole = nnx.merge(graph, state, copy=True)
    expected = whole(jnp.asarray(x), jnp.asarray(mask), Training(weights=counts))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for device in range(2):
        np.testing.assert_allclose(states["mean"][...][device], whole.mean[...], rtol=1e-6)
        np.testing.assert_allclose(states["var"][...][device], whole.var[...], rtol=1e-5)


def test_weights_are_repetitions() -> None:
    """Rows that count 2, 0 and 3 times: the statistics, running ones too, of the batch that repeats them."""
    first, second = randomise(BatchNorm(CHANNELS)), randomise(BatchNorm(CHANNELS))
    x = features(5, 3, 4, 5)
    mask = (np.random.default_rng(6).random((3, 4, 5, 1)) < 0.7).astype(np.float32)
    rows = np.array([0, 0, 2, 2, 2])
    weighted = np.asarray(first(jnp.asarray(x), jnp.asarray(mask), Training(weights=jnp.array([2.0, 0, 3]))))
    repeated = second(jnp.asarray(x[rows]), jnp.asarray(mask[rows]), Training())
    np.testing.assert_allclose(weighted[rows], repeated, atol=1e-5)
    np.testing.assert_allclose(first.mean[...], second.mean[...], rtol=1e-5)
    np.testing.assert_allclose(first.var[...], second.var[...], rtol=1e-5)
    plain = randomise(BatchNorm(CHANNELS))
    plain(jnp.asarray(x), jnp.asarray(mask), Training())
    assert np.abs(plain.mean[...] - first.mean[...]).max() > 1e-3


def test_a_fixed_affine_part_is_not_trained() -> None:
    norm = BatchNorm(CHANNELS, affine=False)
    assert not jax.tree.leaves(nnx.state(norm, nnx.Param))
    assert set(nnx.state(norm, FrozenStatistic)) == {"scale", "bias"}
    assert set(nnx.state(norm, BatchStatistic)) == {"mean", "var"}
    assert set(nnx.state(BatchNorm(CHANNELS), nnx.Param)) == {"scale", "bias"}
    norm = randomise(norm)
    before = jax.tree.map(np.asarray, nnx.state(norm, FrozenStatistic))
    x = features(7, 2, 3, 4)
    y = norm(jnp.asarray(x), None, Training())
    scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(norm, FrozenStatistic))


@pytest.mark.parametrize("kind", ["frozen", "group"])
def test_other_norms_are_the_same_in_training(kind: str) -> None:
    norm = randomise(make_norm(kind, CHANNELS))
    before = jax.tree.map(np.asarray, nnx.state(norm))
    x, mask = masked_features()
    training = Training(weights=jnp.array([5.0, 0.0]))
    np.testing.assert_array_equal(
        norm(jnp.asarray(x), jnp.asarray(mask), training), norm(jnp.asarray(x), jnp.asarray(mask))
    )
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(norm))


def test_norms_by_name() -> None:
    batch = make_norm("batch", CHANNELS)
    assert isinstance(batch, BatchNorm)
    assert not jax.tree.leaves(nnx.state(batch, nnx.Param))
    assert not np.asarray(make_norm("group", CHANNELS, zero_init=True).scale[...]).any()
    with pytest.raises(ValueError, match="norm is 'layer'; it must be 'frozen'"):
        make_norm("layer", CHANNELS)


def test_group_norm_by_its_formula() -> None:
    norm = randomise(GroupNorm(CHANNELS, groups=2))
    x = features(2, 2, 3, 4)
    grouped = x.reshape(2, 12, 2, 3)
    mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    expected = expected * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-4)


def test_group_norm_leaves_padding_out() -> None:
    norm = randomise(GroupNorm(CHANNELS, groups=3))
    x, mask = masked_features()
    y = np.asarray(norm(jnp.asarray(x), jnp.asarray(mask)))
    np.testing.assert_allclose(y[0, :3], norm(jnp.asarray(x[:1, :3]))[0], atol=1e-5)
    np.testing.assert_allclose(y[1, :, :2], norm(jnp.asarray(x[1:, :, :2]))[0], atol=1e-5)
    np.testing.assert_array_equal(y[np.broadcast_to(mask, y.shape) == 0], 0)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (36, 18), (7, 7), (33, 11)])
def test_group_norm_takes_the_largest_possible_number_of_groups(channels: int, groups: int) -> None:
    assert GroupNorm(channels).groups == groups


def test_frozen_batch_norm() -> None:
    norm = randomise(FrozenBatchNorm(CHANNELS))
    x, mask = masked_features()
    scale = np.asarray(norm.scale[...]) / np.sqrt(np.asarray(norm.var[...]) + 1e-5)
    expected = np.where(mask > 0, (x - np.asarray(norm.mean[...])) * scale + np.asarray(norm.bias[...]), 0)
    np.testing.assert_allclose(norm(jnp.asarray(x), jnp.asarray(mask)), expected, atol=1e-5)


def test_norms_compute_in_float32() -> None:
    """In bfloat16, 1000 + noise loses the noise; the statistics must not be lost with it."""
    x = jnp.asarray(1000 + features(3, 1, 8, 8), jnp.bfloat16)
    y = GroupNorm(CHANNELS, groups=1)(x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=0.05)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_padded_on_both_sides(stride: int) -> None:
    """Ones summed over 3 x 3: 4 in the corners, 6 at the edges, 9 inside; stride 2 starts at the first corner, where
    "SAME" padding would start one pixel later."""
    layer = conv(1, 1, 3, stride=stride, rngs=nnx.Rngs(0), kernel_init=jax.nn.initializers.ones)
    y = layer(jnp.ones((1, 4, 4, 1)))[0, :, :, 0]
    full = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])
    np.testing.assert_array_equal(y, full[::stride, ::stride])


def test_grouped_convolution_is_one_for_each_group() -> None:
    layer = conv(6, 4, 3, groups=2, rngs=nnx.Rngs(0))
    assert layer.kernel.shape == (3, 3, 3, 4)
    x = jnp.asarray(features(8, 1, 5, 5))
    halves = []
    for group in range(2):
        alone = conv(3, 2, 3, rngs=nnx.Rngs(0))
        alone.kernel[...] = layer.kernel[..., 2 * group : 2 * group + 2]
        halves.append(alone(x[..., 3 * group : 3 * group + 3]))
    np.testing.assert_allclose(layer(x), jnp.concatenate(halves, -1), atol=1e-5)


def test_bilinear_up_by_hand() -> None:
    """2 -> 4: centres at -0.25 (clamped to 0), 0.25, 0.75 and 1.25 (clamped to 1)."""
    x = jnp.array([[0.0, 4.0], [8.0, 12.0]]).reshape(1, 2, 2, 1)
    row = np.array([0.0, 1.0, 3.0, 4.0])
    expected = row[None, :] + 2 * row[:, None]
    np.testing.assert_allclose(resize_bilinear(x, 4)[0, :, :, 0], expected, atol=1e-6)


def test_bilinear_down_by_hand() -> None:
    """8 -> 2 reads two pixels around 1.5 and 5.5: no smoothing over the others. 5 -> 2: centres at 0.75 and 3.25."""
    x = jnp.arange(8.0).at[0].set(100.0)
    y = resize_bilinear(jnp.broadcast_to(x[:, None, None], (1, 8, 8, 1)), 2)
    np.testing.assert_allclose(y[0, :, 0, 0], [1.5, 5.5], atol=1e-6)
    y = resize_bilinear(jnp.broadcast_to((jnp.arange(5.0) ** 2)[None, None, :, None], (1, 5, 5, 1)), 2)
    np.testing.assert_allclose(y[0, 0, :, 0], [0.75, 10.75], atol=1e-6)


def test_bilinear_to_the_same_size_changes_nothing() -> None:
    x = jnp.asarray(features(4, 2, 7, 7))
    np.testing.assert_allclose(resize_bilinear(x, 7), x, atol=1e-6)


def test_batch_norm_without_a_row_that_counts() -> None:
    """A batch in which no roi counts gives numbers, and moves no running statistic."""
    norm = BatchNorm(3)
    training = Training(weights=jnp.zeros(2))
    found = norm(jnp.ones((2, 4, 4, 3)), None, training)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(norm.mean[...], np.zeros(3))
    np.testing.assert_array_equal(norm.var[...], np.ones(3))
