"""The limits of the stretch are those of the whole image, however it is read."""

import numpy as np
import pytest

from fsis_jax.io import intensity as levels
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.intensity import Stretch, find_stretch

DTYPES = ["u1", "u2", ">u2", "u4", "i2", "i4", "i8", "f2", "f4", ">f4", "f8", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(61, 47), (40, 30, 3), (40, 30, 4), (1, 1), (2, 3, 1)])
@pytest.mark.parametrize("band", [1, 500, 1 << 20])
def test_limits_by_bands_are_numpys_percentiles(monkeypatch, dtype, shape, band):
    monkeypatch.setattr(levels, "_BAND", band)
    values = np.random.default_rng(1).gamma(2.0, 30.0, shape) - (25 if np.dtype(dtype).kind in "if" else 0)
    image = np.clip(values, None, 255).astype(dtype)
    colours = (image[..., :3] if image.ndim == 3 else image).astype(float)
    low, high = np.percentile(colours, (1.0, 99.8))
    if high <= low:
        low, high = colours.min(), colours.max()
    stretch = find_stretch(image)
    assert stretch.low == pytest.approx(low, rel=1e-14, abs=0)
    assert stretch.high == pytest.approx(high, rel=1e-14, abs=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_parts_are_stretched_as_the_whole(dtype):
    image = (np.random.default_rng(2).random((30, 40, 3)) * 200).astype(dtype)
    whole = to_rgb8(image, stretch=True)
    np.testing.assert_array_equal(to_rgb8(image[5:9, 7:20], stretch=find_stretch(image)), whole[5:9, 7:20])


def test_values_that_are_not_finite_do_not_count():
    image = np.array([[np.nan, 0.0, 1.0], [np.inf, 0.5, -np.inf]], np.float32)
    assert find_stretch(image, (0, 100)) == Stretch(0.0, 1.0)
    assert find_stretch(np.full((3, 3), np.nan)) == Stretch(0.0, 0.0)
    assert Stretch(0.0, 0.0)(image).max() == 0
