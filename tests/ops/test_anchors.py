import numpy as np

from fsis_jax import ops


def test_cell_by_hand():
    cell = ops.cell_anchors([8, 16], [1.0, 4.0], stride=4)  # ratio 4: half as wide, twice as high
    np.testing.assert_allclose(cell, [[-2, -2, 6, 6], [-6, -6, 10, 10], [0, -6, 4, 10], [-2, -14, 6, 18]])
    assert cell.dtype == np.float32


def test_grid_is_ordered_y_x_anchor():
    cell = ops.cell_anchors([8, 16], [1.0], stride=4)
    grid = np.asarray(ops.grid_anchors(cell, (2, 3), 4)).reshape(2, 3, 2, 4)
    np.testing.assert_allclose(grid[1, 2, 0], [6, 2, 14, 10])
    centres = (grid[..., :2] + grid[..., 2:]) / 2
    np.testing.assert_allclose(centres[0, :, 0, 0], [2, 6, 10])  # x of the cells' centres
    np.testing.assert_allclose(centres[:, 0, 1, 1], [2, 6])
