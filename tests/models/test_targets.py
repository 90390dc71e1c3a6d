"""Roles of instances: positive, of another category, ignored; and what anchors and rois become by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax import ops
from fsis_jax.models import targets
from fsis_jax.models.targets import Roles, SamplingSettings, assign_roles

rpn_targets = jax.jit(targets.rpn_targets, static_argnames="settings")
roi_targets = jax.jit(targets.roi_targets, static_argnames=("settings", "box_weights"))

SQUARES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32)
"""Four instances: of the references' category, of another one, a crowd, and a row of padding."""
SHIFTED = SQUARES + np.array([1, 0, 1, 0], np.float32)
VALID = np.array([True, True, True, False])
MATCHES = np.array([True, False, True, True])
IGNORE = np.array([False, False, True, False])

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
ALL = SamplingSettings(positive_iou=0.5, negative_iou=0.5, samples=64, positive_fraction=0.5, offset=0)


def roles(*, all_positive: bool = False) -> Roles:
    arrays = (jnp.asarray(x) for x in (SQUARES, VALID, MATCHES, IGNORE))
    return assign_roles(*arrays, all_positive=all_positive)


@pytest.mark.parametrize("all_positive", [False, True])
def test_roles(all_positive: bool) -> None:
    found = roles(all_positive=all_positive)
    np.testing.assert_array_equal(found.positive, [True, all_positive, False, False])
    np.testing.assert_array_equal(found.other, [False, not all_positive, False, False])
    np.testing.assert_array_equal(found.ignore, [False, False, True, False])


@pytest.mark.parametrize("all_positive", [False, True])
def test_anchors(all_positive: bool) -> None:
    """One anchor a little off each square, one on bare ground, one outside the image."""
    anchors = np.concatenate([SHIFTED, [[0, 30, 10, 40]], [[0, 60, 10, 70]]]).astype(np.float32)
    inside = np.array([True] * 5 + [False])
    labels, targets = rpn_targets(jax.random.key(0), anchors, inside, roles(all_positive=all_positive), settings=ALL)
    other = ops.POSITIVE if all_positive else ops.IGNORE
    # Where only padding lies there is nothing: background.
    expected = [ops.POSITIVE, other, ops.IGNORE, ops.NEGATIVE, ops.NEGATIVE, ops.IGNORE]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(targets[0], [-0.1, 0, 0, 0], atol=1e-6)


def test_every_instance_has_an_anchor() -> None:
    """The best anchor of an instance is positive however little it overlaps; one beside it stays background."""
    anchors = np.array([[6, 0, 16, 10], [9, 0, 19, 10], [0, 30, 10, 40]], np.float32)
    labels, _ = rpn_targets(jax.random.key(0), anchors, np.ones(3, bool), roles(), settings=ALL)
    np.testing.assert_array_equal(labels, [ops.POSITIVE, ops.NEGATIVE, ops.NEGATIVE])


def test_anchor_sampling() -> None:
    settings = SamplingSettings(positive_iou=0.5, negative_iou=0.5, samples=8, positive_fraction=0.5, offset=0)
    x = np.arange(40.0)
    anchors = np.stack([x, x * 0, x + 10, x * 0 + 10], -1).astype(np.float32)
    one = Roles(*(jnp.asarray(a) for a in (SQUARES[:1], VALID[:1], IGNORE[:1], IGNORE[:1])))
    labels, _ = rpn_targets(jax.random.key(0), anchors, np.ones(40, bool), one, settings=settings)
    assert (np.asarray(labels) == ops.POSITIVE).sum() == 4  # anchors 0 to 3 overlap by more than a half
    assert (np.asarray(labels) == ops.NEGATIVE).sum() == 4
    again, _ = rpn_targets(jax.random.key(0), anchors, np.ones(40, bool), one, settings=settings)
    np.testing.assert_array_equal(labels, again)
    different, _ = rpn_targets(jax.random.key(1), anchors, np.ones(40, bool), one, settings=settings)
    assert (np.asarray(labels) != different).any()


def as_dict(found: object) -> dict[tuple[float, ...], int]:
    """{roi: label} of the valid ones."""
    return {
        tuple(np.asarray(roi).tolist()): int(label)
        for roi, label, valid in zip(found.rois, found.labels, found.valid, strict=True)
        if valid
    }


@pytest.mark.parametrize("all_positive", [False, True])
def test_rois(all_positive: bool) -> None:
    """An instance of another category is background for the box head; a crowd is neither."""
    proposals = np.concatenate([SHIFTED, [[0, 30, 10, 40]], [[0, 60, 10, 70]]]).astype(np.float32)
    valid = np.array([True] * 5 + [False])
    found = roi_targets(
        jax.random.key(0), proposals, valid, roles(all_positive=all_positive), settings=ALL, box_weights=WEIGHTS
    )
    positive, other = ops.POSITIVE, ops.POSITIVE if all_positive else ops.NEGATIVE
    expected = {
        (1, 0, 11, 10): positive, (0, 0, 10, 10): positive,  # a proposal, and the instance itself
        (21, 0, 31, 10): other, (20, 0, 30, 10): other,
        (61, 0, 71, 10): ops.NEGATIVE,  # over padding
        (0, 30, 10, 40): ops.NEGATIVE,
    }  # fmt: skip
    assert as_dict(found) == expected
    labels = np.asarray(found.labels)[np.asarray(found.valid)]
    assert (np.diff(labels) <= 0).all()  # positives first
    first = np.asarray(found.rois).tolist().index([1, 0, 11, 10])
    assert found.matched[first] == 0
    np.testing.assert_allclose(found.box_targets[first], [-1, 0, 0, 0], atol=1e-5)  # -0.1, times 10


def test_rois_are_padded_when_few() -> None:
    found = roi_targets(
        jax.random.key(0), np.zeros((2, 4), np.float32), np.zeros(2, bool), roles(), settings=ALL, box_weights=WEIGHTS
    )
    assert found.rois.shape == (64, 4)
    assert found.valid.sum() == 2  # the two usable instances
    assert not np.asarray(found.labels)[~np.asarray(found.valid)].any()
    assert np.isfinite(found.box_targets).all()


def test_no_instances() -> None:
    nothing = Roles(*(jnp.asarray(a) for a in (SQUARES, VALID & False, VALID & False, VALID & False)))
    found = roi_targets(jax.random.key(0), SQUARES, np.ones(4, bool), nothing, settings=ALL, box_weights=WEIGHTS)
    assert set(as_dict(found).values()) == {ops.NEGATIVE}
    labels, targets = rpn_targets(jax.random.key(0), SQUARES, np.ones(4, bool), nothing, settings=ALL)
    np.testing.assert_array_equal(labels, ops.NEGATIVE)
    assert np.isfinite(targets).all()


def test_labels_of_sampled_rois_for_another_category() -> None:
    """Shown the other category, its cell is the positive, and the cell of the first is background."""
    other = assign_roles(
        jnp.asarray(SQUARES), jnp.asarray(VALID), jnp.asarray(~MATCHES), jnp.asarray(IGNORE), all_positive=False
    )
    rois = jnp.asarray(np.concatenate([SHIFTED, [[100, 100, 110, 110]]]).astype(np.float32))
    labels = targets.roi_labels(rois, jnp.array([True, True, False, False, True]), other, ALL)
    np.testing.assert_array_equal(labels, [0, 1, 0, 0, 0])
