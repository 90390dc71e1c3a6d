"""The detector in training: every loss term, and a gradient for every parameter, mask head included."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from tiny_detector import QUICK_COMPILE, tiny_batch, tiny_c4_config, tiny_config, tiny_detector

from fsis_jax.batch import Batch
from fsis_jax.models.detector import Detector
from fsis_jax.models.layers import BatchNorm, BatchStatistic
from fsis_jax.models.objective import trainable_anchors, training_losses

TERMS = {"rpn_class", "rpn_box", "box_class", "box_regression", "mask"}
NEEDLESS = [("matching", name, "bias") for name in ("reference_out", "target_out")]
"""Biases ahead of batch statistics, which take them away again."""

Flat = dict[tuple[Any, ...], np.ndarray]


def with_relation(relation: str) -> ConfigDict:
    config = tiny_config()
    config.model.relation = relation
    return config


def l1() -> ConfigDict:
    config = tiny_config()
    config.model.matching.kind = "l1"
    return config


def no_matching() -> ConfigDict:
    config = with_relation("none")
    config.model.matching.kind = "none"
    return config


def c4_batch() -> ConfigDict:
    """As the original: batch statistics in training; one pooled size for both heads."""
    config = tiny_c4_config()
    model = config.model
    model.matching.norm = model.box_head.norm = "batch"
    model.mask_head.pooled = model.box_head.pooled
    return config


VARIANTS: dict[str, Callable[[], ConfigDict]] = {
    "compare": functools.partial(with_relation, "compare"),
    "concat": functools.partial(with_relation, "concat"),
    "none": functools.partial(with_relation, "none"),
    "l1": l1,
    "no matching": no_matching,
    "c4": tiny_c4_config,
    "c4, batch": c4_batch,
}
SLOW = ("concat", "none", "l1", "no matching", "c4")


@dataclasses.dataclass(frozen=True)
class Losses:
    """One compiled function of a variant."""

    name: str
    run: Callable[..., Any]

    def __call__(self, batch: Batch, *, term: str | None = None) -> tuple[dict[str, Any], dict[str, Any], Flat]:
        """Loss terms, counts, and by path the gradient of the terms' sum, or of one term."""
        names = TERMS | ({"contrast"} if batch.contrast_references.shape[1] else set())
        weights = {name: float(term in (None, name)) for name in names}
        gradients, (terms, counts, _) = self.run(batch, weights)
        return terms, counts, {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(gradients)}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in VARIANTS],
)
def losses(request: pytest.FixtureRequest) -> Losses:
    return compile_losses(request.param, VARIANTS[request.param]())


def compile_losses(name: str, config: ConfigDict) -> Losses:
    config.model.rpn.samples = 4096  # all anchors, so that every level is surely among them
    graph, params, rest = nnx.split(tiny_detector(config), nnx.Param, ...)

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def run(params: nnx.State, rest: nnx.State, batch: Batch, weights: dict[str, jax.Array]) -> Any:
        def loss(params: nnx.State) -> Any:
            model = nnx.merge(graph, params, rest, copy=True)
            terms, counts = training_losses(model, batch, jax.random.key(0))
            total = sum((weights[name] * term for name, term in terms.items()), jnp.float32(0))
            return total, (terms, counts, nnx.state(model, BatchStatistic))

        return jax.grad(loss, has_aux=True)(params)

    return Losses(name, functools.partial(run, params, rest))


def test_every_parameter_learns(losses: Losses) -> None:
    terms, counts, gradients = losses(tiny_batch())
    assert set(terms) == TERMS
    assert all(np.isfinite(term) and term > 0 for term in terms.values())
    assert counts["positive_rois"] >= 4  # at least the instances themselves
    without = [path for path, gradient in gradients.items() if not np.abs(gradient).max() > 1e-6]
    assert [path for path in without if losses.name != "c4, batch" or path not in NEEDLESS] == []
    assert any(path[0] == "mask_head" for path in gradients)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_what_the_mask_loss_teaches(losses: Losses) -> None:
    """The mask head and all that it reads; res5 too, which it shares with the box head (c4). Not the box head's own."""
    _, _, gradients = losses(tiny_batch(), term="mask")
    learns = {path for path, gradient in gradients.items() if np.abs(gradient).max() > 1e-7}
    assert {path for path in gradients if path[0] == "mask_head"} <= learns
    shared = {path for path in gradients if path[:3] == ("box_head", "embedding", "blocks")}
    assert bool(shared) == losses.name.startswith("c4")
    assert shared <= learns
    assert not {path for path in learns if path[0] in ("box_head", "rpn")} - shared
    trunk = {"backbone"} if losses.name == "no matching" else {"backbone", "matching"}
    assert trunk == {path[0] for path in learns} & {"backbone", "matching"}


def test_running_statistics_move(losses: Losses) -> None:
    """Those of the matching and of res5, where there are any."""
    _, (_, _, statistics) = losses.run(tiny_batch(), dict.fromkeys(TERMS, 1.0))
    before = dict(nnx.to_flat_state(nnx.state(tiny_detector(VARIANTS[losses.name]()), BatchStatistic)))
    assert {path[0] for path in before} == ({"matching", "box_head"} if losses.name == "c4, batch" else set())
    for path, after in nnx.to_flat_state(statistics):
        assert not np.array_equal(after[...], before[path][...]), path


@pytest.mark.slow
def test_remat_changes_no_number() -> None:
    """Losses, gradients and running statistics stay; blocks are computed again."""
    checkpoints, results = [], []
    for remat in (False, True):
        config = c4_batch()
        config.model.remat = remat
        run = compile_losses("c4, batch", config).run
        weights = dict.fromkeys(TERMS, 1.0)
        results.append(run(tiny_batch(), weights))
        checkpoints.append(str(run.func.trace(*run.args, tiny_batch(), weights).jaxpr).count("remat2["))
    assert checkpoints[0] == 0
    assert checkpoints[1] >= 8  # blocks of a ResNet-18, res5 on rois and on references among them
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)


@pytest.mark.slow
def test_bfloat16_computes_nearly_the_same() -> None:
    """Losses and gradients stay float32. The RPN's losses are nearly those of float32; the heads' depend on which rois
    are drawn, which rounding changes."""
    results = []
    for dtype in ("float32", "bfloat16"):
        config = tiny_config()
        config.model.compute_dtype = dtype
        results.append(compile_losses(dtype, config)(tiny_batch()))
    (expected, _, _), (terms, _, gradients) = results
    for name in ("rpn_class", "rpn_box"):
        np.testing.assert_allclose(terms[name], expected[name], rtol=0.05, err_msg=name)
    assert all(term.dtype == jnp.float32 and 0 < term < np.inf for term in terms.values())
    assert all(gradient.dtype == np.float32 for gradient in gradients.values())
    assert [path for path, gradient in gradients.items() if not 1e-6 < np.abs(gradient).max() < np.inf] == []


@pytest.mark.parametrize(("pooled", "times"), [(7, 2), (14, 4)])
def test_res5_runs_once_for_both_heads_where_they_pool_alike(
    monkeypatch: pytest.MonkeyPatch, pooled: int, times: int
) -> None:
    """On rois and on references, so that its statistics move twice (as the original's); else once more for masks."""
    config = c4_batch()
    config.model.mask_head.pooled = pooled
    calls: collections.Counter[int] = collections.Counter()
    update = BatchNorm._update

    def counted(self: BatchNorm, *arguments: Any) -> Any:
        calls[id(self)] += 1
        return update(self, *arguments)

    monkeypatch.setattr(BatchNorm, "_update", counted)

    def run() -> dict[str, jax.Array]:
        model = Detector(config.model, rngs=nnx.Rngs(0))
        terms, _ = training_losses(model, jax.tree.map(jnp.asarray, tiny_batch()), jax.random.key(0))
        res5 = [id(norm) for _, norm in nnx.iter_graph(model.box_head) if isinstance(norm, BatchNorm)]
        matching = [id(norm) for _, norm in nnx.iter_graph(model.matching) if isinstance(norm, BatchNorm)]
        assert [calls[norm] for norm in res5] == [times] * 3
        assert [calls[norm] for norm in matching] == [1] * 2
        return terms

    assert set(jax.eval_shape(run)) == TERMS


@pytest.mark.slow
def test_contrast_with_the_same_category_is_the_class_loss(losses: Losses) -> None:
    """The contrast term does what the class loss does, with its own references and labels.

    The same in training: batch statistics depend on the rois and on the references alone.
    """
    batch = tiny_batch()
    same = dataclasses.replace(batch, contrast_references=batch.references, contrast_classes=np.ones(2, np.int32))
    terms, _, _ = losses(same)
    assert set(terms) == TERMS | {"contrast"}
    np.testing.assert_allclose(terms["contrast"], terms["box_class"], rtol=1e-5)
    other, _, _ = losses(dataclasses.replace(same, contrast_classes=np.full(2, 2, np.int32)))
    assert abs(other["contrast"] - other["box_class"]) > 1e-4


def test_references_of_an_absent_category(losses: Losses) -> None:
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


def test_an_image_without_instances(losses: Losses) -> None:
    batch = tiny_batch()
    nothing = np.zeros_like(batch.gt_valid)
    terms, counts, gradients = losses(dataclasses.replace(batch, gt_valid=nothing, gt_boxes=batch.gt_boxes * 0))
    assert counts["positive_rois"] == 0
    assert all(np.isfinite(term) for term in terms.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_samples_follow_the_episode_and_not_its_place(losses: Losses) -> None:
    """The same two episodes in the other order: the same terms.

    Place in a batch changes rounding, and that may change which boxes are proposed and drawn. So may parameters that
    are a rounding apart, and the terms must be those of some of these.
    """
    batch = tiny_batch()
    theirs = losses(jax.tree.map(lambda x: x[::-1].copy(), batch))[0]
    params, rest = losses.run.args
    rng = np.random.default_rng(0)

    def nudged(x: jax.Array) -> jax.Array:
        return x * (1 + 2.0**-23 * rng.choice([-1, 1], x.shape)).astype(np.float32)

    near = [params, *(jax.tree.map(nudged, params) for _ in range(7))]
    ours = [losses.run.func(each, rest, batch, dict.fromkeys(TERMS, 1.0))[1][0] for each in near]
    same = [all(np.isclose(terms[name], theirs[name], rtol=1e-3) for name in TERMS) for terms in ours]
    assert any(same), (theirs, ours)


def test_anchors_that_are_trained() -> None:
    """Inside one image or the other, reaching out of it by 4 pixels, centred beyond it."""
    anchors = jnp.array([[0.0, 0, 20, 10], [-4, 0, 20, 10], [20, 5, 34, 15], [30, 30, 50, 50]])
    sizes = jnp.array([[20, 30], [64, 64]])
    everything = [[True, True, True, False], [True] * 4]
    np.testing.assert_array_equal(trainable_anchors(anchors, sizes, -1), everything)
    np.testing.assert_array_equal(trainable_anchors(anchors, sizes, 5), everything)
    np.testing.assert_array_equal(
        trainable_anchors(anchors, sizes, 0), [[True, False, False, False], [True, False, True, True]]
    )


@pytest.mark.parametrize(
    ("architecture", "key", "value", "message"),
    [
        ("fpn", "backbone.norm", "layer", "norm is 'layer'; it must be 'frozen'"),
        ("fpn", "backbone.depth", 19, "depth is 19"),
        ("fpn", "backbone.deformable", "split", "choose a depth of 50 or more"),
        ("fpn", "backbone.groups", 2, "choose a depth of 50 or more"),
        ("fpn", "fpn.norm", "batch", "fpn norm is 'batch'"),
        ("fpn", "fpn.coarsest", 7, "coarsest pyramid level is 7"),
        ("fpn", "matching.norm", "none", "co-attention norm is 'none'"),
        ("c4", "box_head.norm", "layer", "norm is 'layer'; it must be 'frozen'"),
    ],
)
def test_bad_settings(architecture: str, key: str, value: Any, message: str) -> None:
    config = tiny_config() if architecture == "fpn" else tiny_c4_config()
    config.model.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0)))
