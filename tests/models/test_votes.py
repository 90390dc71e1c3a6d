"""Dense votes: what they learn, what they propose, and what they tell of a roi."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tiny_detector import tiny_batch, tiny_config, tiny_detector

from fsis_jax.models.objective import training_losses
from fsis_jax.models.targets import Roles
from fsis_jax.models.votes import CHANNELS, VoteHead, Votes, pooled_cell, pooled_votes, propose_votes, vote_losses

SIZE = (16, 16)
"""Of the votes; the image has 32 x 32 pixels."""
FAR = 8.0
"""A logit that is nearly sure."""
RODS = np.array([[4, 4, 24, 10], [4, 10, 24, 16]], np.float32)
"""Two cells that touch, x1 y1 x2 y2."""


def right_votes(boxes: np.ndarray = RODS) -> Votes:
    """Every position of a box votes for it; the others, for a box of their own pixels, not at all."""
    y, x = (np.mgrid[:16, :16] + 0.5) * 2
    cell, voted = np.full(SIZE, -FAR), np.stack([x - 1, y - 1, x + 1, y + 1], -1)
    for box in boxes:
        inside = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
        cell[inside], voted[inside] = FAR, box
    return Votes(*(jnp.asarray(part[None], jnp.float32) for part in (cell, cell, voted)), inside=None)


def roles(positive: list[bool], other: list[bool] | None = None, ignore: list[bool] | None = None) -> Roles:
    none = [False] * len(positive)
    rows = (jnp.asarray([row or none]) for row in (positive, other, ignore))
    return Roles(jnp.asarray(RODS[None]), *rows)


MASKS = jnp.full((1, 2, 8, 8), 255, jnp.uint8)
losses = jax.jit(functools.partial(vote_losses, axis_name=None))


def test_right_votes_cost_nothing_and_wrong_ones_something():
    told = losses(right_votes(), roles([True, True]), MASKS)
    assert all(float(term) < 1e-3 for term in told.values()), told
    # For the box of both together, IoU 1/2, of one rod's positions: half of the instances lose log 2.
    both = right_votes().boxes.at[0, 5:8, 2:12].set(jnp.array([4.0, 4, 24, 16]))
    wrong = losses(Votes(right_votes().cell, right_votes().quality, both, None), roles([True, True]), MASKS)
    np.testing.assert_allclose(wrong["vote_box"], np.log(2) / 2, rtol=1e-5)
    # Their quality is 1/2 and FAR was said: 30 of 256 positions lose FAR / 2.
    np.testing.assert_allclose(wrong["vote_quality"], 30 * FAR / 2 / 256, rtol=0.01)


def test_another_category_votes_but_is_neither_cell_nor_background():
    votes = right_votes()
    of_all = losses(votes, roles([True, False], other=[False, True]), MASKS)
    assert all(float(term) < 1e-3 for term in of_all.values())
    silent = Votes(votes.cell.at[0, 5:8].set(-FAR), votes.quality, votes.boxes, None)
    assert float(losses(silent, roles([True, False], other=[False, True]), MASKS)["vote_cell"]) < 1e-3
    assert float(losses(silent, roles([True, True]), MASKS)["vote_cell"]) > 0.5
    ignored = losses(silent, roles([True, False], ignore=[False, True]), MASKS)
    assert float(ignored["vote_cell"]) < 1e-3


def test_cells_that_touch_are_proposed_each_once():
    sizes = jnp.array([[32, 32]])
    found = propose_votes(right_votes(), sizes, pre_nms=64, post_nms=8, nms_threshold=0.5, min_size=3.0)
    kept = np.asarray(found.boxes[0][found.valid[0]])
    assert found.boxes.shape == (1, 8, 4)
    np.testing.assert_array_equal(kept[np.lexsort(kept.T)], RODS)
    beyond = right_votes(np.array([[20, 20, 40, 30]], np.float32))
    clipped = propose_votes(beyond, sizes, pre_nms=64, post_nms=8, nms_threshold=0.5, min_size=3.0)
    np.testing.assert_array_equal(clipped.boxes[0, 0], [20, 20, 32, 30])


def test_what_is_outside_the_image_is_not_proposed():
    votes = right_votes()
    inside = jnp.zeros((1, *SIZE), bool).at[:, :5].set(True)
    votes = Votes(votes.cell, votes.quality, votes.boxes, inside)
    found = propose_votes(votes, jnp.array([[10, 32]]), pre_nms=64, post_nms=8, nms_threshold=0.5, min_size=3.0)
    np.testing.assert_array_equal(found.boxes[0][found.valid[0]], RODS[:1])


def test_pooled_votes_by_hand():
    """A roi over both rods: on each half its votes end at the middle, and agree with half of it."""
    pooled = np.asarray(pooled_votes(right_votes(), jnp.array([[[4.0, 4, 24, 16]]]), 4)[0, 0])
    assert pooled.shape == (4, 4, CHANNELS)
    for row, beyond in ((0, [0, 0, 0, -0.5]), (3, [0, -0.5, 0, 0])):
        np.testing.assert_allclose(pooled[row, 1:3], np.array([[1, 1, *beyond, 0.5]] * 2), atol=0.01)
    alone = np.asarray(pooled_votes(right_votes(), jnp.array([[RODS[0]]]), 4)[0, 0])
    np.testing.assert_allclose(alone[1, 1:3], [[1, 1, 0, 0, 0, 0, 1]] * 2, atol=0.01)
    empty = np.asarray(pooled_votes(right_votes(), jnp.array([[[4.0, 20, 24, 30]]]), 4)[0, 0])
    np.testing.assert_allclose(empty, 0, atol=0.01)


def test_how_much_of_a_roi_the_votes_say_is_cell_by_hand():
    rois = jnp.array([[[4.0, 4, 24, 16], [4, 10, 24, 22], [4, 20, 24, 30]]])  # both rods, one and as much beside, none
    cell = np.asarray(pooled_cell(right_votes(), rois, 6)[0])
    assert cell.shape == (3, 6, 6)
    np.testing.assert_allclose(cell[:, :, 1:5].mean((1, 2)), [1, 0.5, 0], atol=0.02)
    np.testing.assert_allclose(cell[1, :2, 1:5], 1, atol=0.02)


def test_the_head_learns_two_rods_that_touch(quick_compile):
    head = VoteHead(4, 8, channels=8, dtype=jnp.float32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    fine, coarse = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((1, 16, 16, 4), (1, 8, 8, 8)))
    graph, params = nnx.split(head)
    optimizer = optax.adam(0.02)
    told = roles([True, True])

    @jax.jit
    def step(params, state):
        def loss(params):
            return sum(vote_losses(nnx.merge(graph, params)(fine, coarse, None), told, MASKS, axis_name=None).values())

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, values = optimizer.init(params), []
    for _ in range(120):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.25 * values[0], values[::20]


def test_a_detector_with_votes_trains_all_of_them(quick_compile):
    config = tiny_config()
    config.model.votes.kind = "dense"
    config.model.votes.channels = 8
    config.model.box_head.quality_scores = True
    model = tiny_detector(config)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    batch = tiny_batch()

    @jax.jit
    def gradient(params):
        def loss(params):
            terms, _ = training_losses(nnx.merge(graph, params, rest, copy=True), batch, jax.random.key(0))
            return sum(terms.values()), terms

        return jax.grad(loss, has_aux=True)(params)

    gradients, terms = gradient(params)
    assert {"vote_cell", "vote_quality", "vote_box"} <= set(terms)
    assert all(np.isfinite(float(term)) for term in terms.values())
    sizes = {"/".join(map(str, path)): float(jnp.abs(leaf[...]).max()) for path, leaf in nnx.to_flat_state(gradients)}
    still = [name for name, size in sizes.items() if size == 0 and ("vote" in name)]
    assert not still, still
