import jax
import jax.numpy as jnp
import numpy as np

from fsis_jax import ops


def test_targets_by_hand():
    """The left half of a 4 x 4 box is covered. The roi is twice as wide: its cells are centred at x = 1, 3, 5, 7."""
    masks = jnp.zeros((1, 4, 4), jnp.uint8).at[0, :, :2].set(255)
    boxes, matched = jnp.array([[0.0, 0, 4, 4]]), jnp.array([0])
    wide = ops.roi_mask_targets(masks, boxes, jnp.array([[0.0, 0, 8, 4]]), matched, size=4)
    np.testing.assert_array_equal(wide[0], [[1, 0, 0, 0]] * 4)
    same = ops.roi_mask_targets(masks, boxes, boxes, matched, size=4)
    np.testing.assert_array_equal(same[0], [[1, 1, 0, 0]] * 4)
    high = ops.roi_mask_targets(masks, boxes, jnp.array([[0.0, -4, 4, 4]]), matched, size=4)
    np.testing.assert_array_equal(high[0], [[0] * 4, [0] * 4, [1, 1, 0, 0], [1, 1, 0, 0]])


def test_targets_of_an_inclusive_box():
    """Pixels 2..3 in both directions: 2 x 2 pixels, on which a roi from 0 to 4 sees the lower right quarter."""
    masks, boxes = jnp.ones((1, 4, 4), bool), jnp.array([[2.0, 2, 3, 3]])
    found = ops.roi_mask_targets(masks, boxes, jnp.array([[0.0, 0, 4, 4]]), jnp.array([0]), size=4, offset=1)
    np.testing.assert_array_equal(found[0], np.kron([[0, 0], [0, 1]], np.ones((2, 2))))


def test_targets_take_every_dtype_and_the_matched_instance():
    rng = np.random.default_rng(0)
    masks = (rng.random((3, 8, 8)) > 0.5).astype(np.uint8)
    boxes = jnp.asarray([[0.0, 0, 8, 8], [4, 4, 12, 12], [2, 2, 10, 10]])
    matched = jnp.array([2, 0, 1, 2])
    byte, boolean, real = (
        ops.roi_mask_targets(m, boxes, boxes[matched], matched, size=8)
        for m in (masks * np.uint8(255), masks.astype(bool), masks.astype(np.float32))
    )
    np.testing.assert_array_equal(byte, masks[np.asarray(matched)])
    np.testing.assert_array_equal(byte, boolean)
    np.testing.assert_array_equal(byte, real)


def test_owner_map_by_hand():
    """Positions look at x, y = 1, 3, 5, 7. The second instance covers its right half only, and there more of it."""
    masks = jnp.zeros((3, 4, 4), jnp.uint8).at[0].set(140).at[1, :, 2:].set(255).at[2].set(255)
    boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 8, 4], [4, 6, 8, 8]])
    found = ops.owner_map(masks, boxes, jnp.ones(3, bool), size=(4, 4), stride=2)
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 0, 1, 1], [-1] * 4, [-1, -1, 2, 2]])
    padded = ops.owner_map(masks, boxes, jnp.array([True, True, False]), size=(4, 4), stride=2)
    np.testing.assert_array_equal(padded[3], [-1] * 4)
    assert (ops.owner_map(masks[:0], boxes[:0], jnp.zeros(0, bool), size=(2, 3), stride=4) == -1).all()


def test_paste_by_hand():
    """The box covers the centres of columns 1 and 2 and of rows 1, 2 and 3."""
    pasted = ops.paste_masks(jnp.ones((1, 28, 28)), jnp.array([[1.0, 1.0, 3.0, 4.0]]), size=(5, 6))
    expected = np.zeros((5, 6), bool)
    expected[1:4, 1:3] = True
    np.testing.assert_array_equal(pasted[0], expected)
    assert pasted.dtype == bool
    inclusive = ops.paste_masks(jnp.ones((1, 28, 28)), jnp.array([[1.0, 1.0, 2.0, 3.0]]), size=(5, 6), offset=1)
    np.testing.assert_array_equal(inclusive[0], expected)


def test_paste_threshold_and_interpolation_by_hand():
    """Two cells, 0 and 1, over four pixels: the probabilities are 0, 0.25, 0.75, 1."""
    mask, box = jnp.array([[[0.0, 1.0], [0.0, 1.0]]]), jnp.array([[0.0, 0.0, 4.0, 1.0]])
    for threshold, expected in ((0.2, [0, 1, 1, 1]), (0.5, [0, 0, 1, 1]), (0.8, [0, 0, 0, 1])):
        np.testing.assert_array_equal(ops.paste_masks(mask, box, size=(1, 4), threshold=threshold)[0, 0], expected)


def disc(size, centre, radius):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return (y - centre[1]) ** 2 + (x - centre[0]) ** 2 <= radius**2


def test_targets_then_paste_give_the_cell_back():
    """More instances than are pasted at a time; vmapped over two images."""
    rng = np.random.default_rng(1)
    centres, radii = rng.uniform(20, 80, (2, 11, 2)), rng.uniform(8, 20, (2, 11))
    boxes = np.concatenate([centres - radii[..., None], centres + radii[..., None]], -1).astype(np.float32)
    masks = np.broadcast_to(disc((56, 56), (28, 28), 28) * np.uint8(255), (2, 11, 56, 56))
    rois = boxes + rng.uniform(-3, 3, boxes.shape).astype(np.float32)
    matched = np.broadcast_to(np.arange(11), (2, 11))

    @jax.jit
    @jax.vmap
    def there_and_back(masks, boxes, rois, matched):
        targets = ops.roi_mask_targets(masks, boxes, rois, matched, size=28)
        return ops.paste_masks(targets, rois, size=(100, 110))

    pasted = np.asarray(there_and_back(masks, boxes, rois, matched))
    assert pasted.shape == (2, 11, 100, 110)
    for image, instance in np.ndindex(2, 11):
        x1, y1, x2, y2 = rois[image, instance]
        y, x = np.mgrid[:100, :110] + 0.5
        seen = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)  # a roi that is too small cuts the cell
        expected = disc((100, 110), centres[image, instance], radii[image, instance]) & seen
        found = pasted[image, instance]
        assert (found & expected).sum() / (found | expected).sum() > 0.93


def test_boxes_of_masks_by_hand():
    """Two pixels, in row 1 at column 2 and in row 3 at column 4; all of the image; one pixel in a corner; nothing."""
    masks = jnp.zeros((4, 5, 6), bool).at[0, 1, 2].set(True).at[0, 3, 4].set(True).at[1].set(True).at[2, 4, 5].set(True)
    expected = np.array([[2, 1, 5, 4], [0, 0, 6, 5], [5, 4, 6, 5], [0, 0, 0, 0]])
    np.testing.assert_array_equal(ops.masks_to_boxes(masks), expected)
    inclusive = ops.masks_to_boxes(masks, offset=1)
    np.testing.assert_array_equal(inclusive, expected - [0, 0, 1, 1])
    for offset in (0, 1):
        areas = ops.area(ops.masks_to_boxes(masks, offset=offset), offset=offset)
        np.testing.assert_array_equal(areas, [9, 30, 1, 0])


def test_boxes_of_masks_of_any_type_and_number():
    masks = np.random.default_rng(0).random((2, 3, 9, 7)) < 0.05
    rows = [[np.flatnonzero(mask.any(1)) for mask in image] for image in masks]
    columns = [[np.flatnonzero(mask.any(0)) for mask in image] for image in masks]
    expected = [
        [[x[0], y[0], x[-1] + 1, y[-1] + 1] if len(x) else [0] * 4 for x, y in zip(*image, strict=True)]
        for image in zip(columns, rows, strict=True)
    ]
    for values in (masks, masks * np.uint8(255), masks * np.float32(0.1)):
        found = jax.jit(jax.vmap(ops.masks_to_boxes))(values)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)
    assert ops.masks_to_boxes(jnp.zeros((0, 4, 4), bool)).shape == (0, 4)
