"""The detector in training: every loss term, and a gradient for every parameter, mask head included."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_detector import QUICK_COMPILE, tiny_batch, tiny_config, tiny_detector

from fsis_jax.batch import Batch
from fsis_jax.models.detector import Detector

TERMS = {"rpn_class", "rpn_box", "box_class", "box_regression", "mask"}

Losses = tuple[dict[str, jax.Array], dict[str, jax.Array], dict[tuple[Any, ...], np.ndarray]]


@pytest.fixture(scope="module", params=["compare", pytest.param("concat", marks=pytest.mark.slow)])
def losses(request: pytest.FixtureRequest) -> Callable[[Batch], Losses]:
    """batch -> loss terms, counts, and the gradient of their sum by path."""
    config = tiny_config()
    config.model.box_head.relation = request.param
    config.model.rpn.samples = 4096  # all anchors, so that every level is surely among them
    graph, params = nnx.split(tiny_detector(config))

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def run(params: nnx.State, batch: Batch) -> tuple[nnx.State, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
        def loss(params: nnx.State) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
            terms, counts = nnx.merge(graph, params).losses(batch, jax.random.key(0))
            return sum(terms.values(), jnp.float32(0)), (terms, counts)

        return jax.grad(loss, has_aux=True)(params)

    def losses(batch: Batch) -> Losses:
        gradients, (terms, counts) = run(params, batch)
        return terms, counts, {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(gradients)}

    return losses


def test_every_parameter_learns(losses: Callable[[Batch], Losses]) -> None:
    terms, counts, gradients = losses(tiny_batch())
    assert set(terms) == TERMS
    assert all(np.isfinite(term) and term > 0 for term in terms.values())
    assert counts["positive_rois"] >= 4  # at least the instances themselves
    without = [path for path, gradient in gradients.items() if not np.abs(gradient).max() > 1e-6]
    assert not without
    assert any(path[0] == "mask_head" for path in gradients)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.slow
def test_contrast_with_the_same_category_is_the_class_loss(losses: Callable[[Batch], Losses]) -> None:
    """The contrast term does what the class loss does, with its own references and labels."""
    batch = tiny_batch()
    same = dataclasses.replace(batch, contrast_references=batch.references, contrast_classes=np.ones(2, np.int32))
    terms, _, _ = losses(same)
    assert set(terms) == TERMS | {"contrast"}
    np.testing.assert_allclose(terms["contrast"], terms["box_class"], rtol=1e-5)
    other, _, _ = losses(dataclasses.replace(same, contrast_classes=np.full(2, 2, np.int32)))
    assert abs(other["contrast"] - other["box_class"]) > 1e-4


def test_references_of_an_absent_category(losses: Callable[[Batch], Losses]) -> None:
    """Nothing to regress, no mask to learn; the classes are still learnt (all background)."""
    batch = tiny_batch()
    matches = np.zeros_like(batch.gt_matches)
    terms, counts, gradients = losses(
        dataclasses.replace(batch, reference_present=np.zeros(2, bool), gt_matches=matches)
    )
    assert counts["positive_rois"] == 0
    assert terms["box_class"] > 0
    assert terms["box_regression"] == terms["mask"] == terms["rpn_box"] == 0
    for path, gradient in gradients.items():
        if path[0] == "mask_head" or path[:2] == ("box_head", "box_out"):
            assert not gradient.any(), path


def test_an_image_without_instances(losses: Callable[[Batch], Losses]) -> None:
    batch = tiny_batch()
    nothing = np.zeros_like(batch.gt_valid)
    terms, counts, gradients = losses(dataclasses.replace(batch, gt_valid=nothing, gt_boxes=batch.gt_boxes * 0))
    assert counts["positive_rois"] == 0
    assert all(np.isfinite(term) for term in terms.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_samples_follow_the_episode_and_not_its_place(losses: Callable[[Batch], Losses]) -> None:
    """The same two episodes in the other order: the same terms."""
    batch = tiny_batch()
    swapped = jax.tree.map(lambda x: x[::-1].copy(), batch)
    ours, theirs = losses(batch)[0], losses(swapped)[0]
    for name in TERMS:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("backbone", "norm", "batch", "norm is 'batch'"),
        ("backbone", "depth", 19, "depth is 19"),
        ("fpn", "norm", "batch", "fpn norm is 'batch'"),
        ("fpn", "coarsest", 7, "coarsest pyramid level is 7"),
        ("co_attention", "norm", "none", "co-attention norm is 'none'"),
        ("box_head", "relation", "sum", "relation is 'sum'"),
    ],
)
def test_bad_settings(section: str, key: str, value: Any, message: str) -> None:
    config = tiny_config()
    config.model[section][key] = value
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0)))
