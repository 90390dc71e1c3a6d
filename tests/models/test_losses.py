"""Loss terms by hand on small arrays."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax.models import losses
from fsis_jax.models.losses import smooth_l1

rpn_losses = jax.jit(losses.rpn_losses, static_argnames=("samples_per_image", "axis_name"))
box_losses = jax.jit(losses.box_losses, static_argnames="axis_name")
mask_loss = jax.jit(losses.mask_loss, static_argnames="axis_name")

LOG2 = math.log(2)


def entropy(logit: float, label: int) -> float:
    """Binary cross entropy of one logit."""
    return math.log(1 + math.exp(-logit if label else logit))


def test_smooth_l1() -> None:
    np.testing.assert_allclose(smooth_l1(jnp.array([0.0, 0.5, -0.5, 1.0, -3.0]), 1.0), [0, 0.125, 0.125, 0.5, 2.5])
    # The two branches meet at beta.
    np.testing.assert_allclose(smooth_l1(jnp.array([1 / 9, 1.0]), 1 / 9), [1 / 18, 1 - 1 / 18], rtol=1e-6)


def test_rpn() -> None:
    logits = jnp.array([[0.0, 2.0, -1.0, 9.0], [0.0, 0.0, 3.0, 9.0]])
    labels = jnp.array([[1, 0, 1, -1], [0, 0, 0, -1]])
    deltas = jnp.zeros((2, 4, 4)).at[0, 0].set(jnp.array([1.0, 0.0, 0.0, 0.0])).at[:, 1:].set(50.0)
    targets = deltas.at[0, 0].set(0.0).at[0, 2, 1].add(2.0)
    objectness, box = rpn_losses(logits, deltas, labels, targets, samples_per_image=4, axis_name=None)
    expected = LOG2 + entropy(2.0, 0) + entropy(-1.0, 1) + 2 * LOG2 + entropy(3.0, 0)
    assert float(objectness) == pytest.approx(expected / (4 * 2))
    # Positives of image 0 are off by 1 and by 2; it has 3 samples. Image 1 has no positive.
    assert float(box) == pytest.approx((1 - 1 / 18 + 2 - 1 / 18) / 3 / 2)


def test_rpn_over_what_was_sampled() -> None:
    """Without a pyramid the objectness loss is divided by the samples of all images, here 2 and 1."""
    logits, labels = jnp.array([[0.0, 2.0, 9.0], [-1.0, 9.0, 9.0]]), jnp.array([[1, 0, -1], [1, -1, -1]])
    deltas = jnp.zeros((2, 3, 4)).at[:, 0, 0].set(1.0)
    terms = rpn_losses(logits, deltas, labels, deltas * 0, samples_per_image=None, axis_name=None)
    assert float(terms[0]) == pytest.approx((LOG2 + entropy(2.0, 0) + entropy(-1.0, 1)) / 3)
    assert float(terms[1]) == pytest.approx((1 - 1 / 18) * (1 / 2 + 1) / 2)


LOGITS = jnp.array([[[0.0, 0.0], [1.0, 3.0], [5.0, 5.0]], [[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
LABELS = jnp.array([[1, 0, 0], [1, 1, 0]])
VALID = jnp.array([[True, True, False], [True, True, True]])


def box_terms(present: list[bool]) -> tuple[float, float]:
    deltas = jnp.zeros((2, 3, 4)).at[0, 0, 0].set(3.0).at[1, 0, 1].set(0.5).at[:, 2].set(99.0)
    terms = box_losses(LOGITS, deltas, LABELS, VALID, jnp.zeros((2, 3, 4)), jnp.array(present), axis_name=None)
    return float(terms[0]), float(terms[1])


def test_boxes() -> None:
    classification, regression = box_terms([True, True])
    expected = LOG2 + entropy(2.0, 0) + entropy(-2.0, 1) + entropy(1.0, 1) + LOG2
    assert classification == pytest.approx(expected / 5)  # five valid rois
    assert regression == pytest.approx((2.5 + 0.125) / 5)


def test_boxes_where_the_references_are_absent() -> None:
    """Every roi of image 1 counts as background, none of it is regressed, and it does not dilute the others."""
    classification, regression = box_terms([True, False])
    expected = LOG2 + entropy(2.0, 0) + entropy(-2.0, 0) + entropy(1.0, 0) + LOG2
    assert classification == pytest.approx(expected / 5)
    assert regression == pytest.approx(2.5 / 2)
    assert box_terms([False, False])[1] == 0.0


def test_masks() -> None:
    logits = jnp.zeros((1, 3, 2, 2)).at[0, 1].set(jnp.array([[4.0, -4.0], [4.0, -4.0]])).at[0, 2].set(99.0)
    targets = jnp.zeros((1, 3, 2, 2)).at[0, 1, :, 0].set(1.0)
    found = mask_loss(logits, targets, jnp.array([[True, True, False]]), axis_name=None)
    assert float(found) == pytest.approx((LOG2 + entropy(4.0, 1)) / 2, rel=1e-5)
    none = jnp.zeros((1, 3), bool)
    assert float(mask_loss(logits, targets, none, axis_name=None)) == 0.0
    gradient = jax.grad(lambda x: mask_loss(x, targets, none, axis_name=None))(logits)
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("samples", [4, None])
def test_nothing_sampled_is_no_loss(samples: int | None) -> None:
    labels = jnp.full((1, 4), -1)
    terms = rpn_losses(
        jnp.ones((1, 4)), jnp.ones((1, 4, 4)), labels, jnp.zeros((1, 4, 4)), samples_per_image=samples, axis_name=None
    )
    assert [float(term) for term in terms] == [0.0, 0.0]
    nothing = jnp.zeros((2, 3), bool)
    terms = box_losses(
        LOGITS, jnp.ones((2, 3, 4)), LABELS, nothing, jnp.zeros((2, 3, 4)), jnp.ones(2, bool), axis_name=None
    )
    assert [float(term) for term in terms] == [0.0, 0.0]


@pytest.mark.parametrize("samples", [4, None])
def test_shares_of_two_devices_add_up(samples: int | None) -> None:
    """One image a device, with different counts of rois."""
    rng = np.random.default_rng(0)
    deltas, targets = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    present = jnp.array([True, False])
    masks = rng.normal(size=(2, 3, 2, 2)).astype(np.float32)
    labels = jnp.array([[1, -1, 0], [0, 1, 1]])

    def shares(arrays: tuple[jax.Array, ...], axis_name: str | None) -> tuple[jax.Array, ...]:
        logits, deltas, targets, box_labels, valid, present, labels, masks = arrays
        rpn = rpn_losses(logits[..., 0], deltas, labels, targets, samples_per_image=samples, axis_name=axis_name)
        box = box_losses(logits, deltas, box_labels, valid, targets, present, axis_name=axis_name)
        return *rpn, *box, mask_loss(masks, jnp.ones_like(masks), valid, axis_name=axis_name)

    def on_device(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return shares(tuple(array[None] for array in arrays), "batch")

    arrays = (LOGITS, deltas, targets, LABELS, VALID, present, labels, masks)
    whole = shares(arrays, None)
    per_device = jax.vmap(on_device, axis_name="batch")(*arrays)
    np.testing.assert_allclose([share.sum() for share in per_device], whole, rtol=1e-5)


def test_class_loss_with_quality() -> None:
    """A positive that is 3/4 good is wanted with that probability; of the negative its quality does not matter."""
    logits = jnp.array([[[0.0, 2.0], [0.0, 1.0]]])
    quality = jnp.array([[0.75, 0.3]])
    found = losses.class_loss(logits, jnp.array([[1, 0]]), jnp.ones((1, 2), bool), quality=quality, axis_name=None)
    expected = 0.75 * entropy(2.0, 1) + 0.25 * entropy(2.0, 0) + entropy(1.0, 0)
    assert float(found) == pytest.approx(expected / 2)
