import jax
import numpy as np
import pytest

from fsis_jax import ops


@pytest.fixture(scope="module")
def vectors(golden):
    with np.load(golden / "ops.npz") as archive:
        return {name: archive[name] for name in archive.files if name.startswith("anchors/")}


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


@pytest.mark.parametrize("level", range(2, 7))
def test_fpn_golden(vectors, level):
    ratios = (0.2, 0.5, 1.0, 2.0, 5.0)
    cell = ops.cell_anchors(32.0 * 2 ** (level - 2), ratios, stride=2**level, offset=1)
    np.testing.assert_allclose(cell, vectors[f"anchors/fpn_P{level}"], atol=1e-4)


@pytest.mark.parametrize("name", ["c4", "default"])
def test_many_sizes_golden(vectors, name):
    cell = ops.cell_anchors((32, 64, 128, 256, 512), (0.5, 1.0, 2.0), stride=16, offset=1)
    np.testing.assert_allclose(cell, vectors[f"anchors/{name}"], atol=1e-4)


def test_field_golden(vectors):
    size = int(vectors["anchors/field_P6_size"])
    field = vectors["anchors/field_P6"]
    grid = jax.jit(lambda: ops.grid_anchors(vectors["anchors/fpn_P6"], (size, size), 64))()
    np.testing.assert_allclose(grid, field, atol=1e-3)
