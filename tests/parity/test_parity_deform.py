"""The PyTorch project's layer of learned offsets (quirk Q14: their layout), and its gradient."""

import functools
import pathlib

import jax
import jax.numpy as jnp
from differences import relative
from golden_files import load
from parity_table import Figures

from fsis_jax import ops

TOLERANCE = 2e-5


def test_deformable_layer(golden: pathlib.Path, figures: Figures) -> None:
    """Offsets from a 3x3 convolution of the map itself; the gradient of the sum of squares of what is read."""
    vectors = load(golden, "ops.npz")
    features = jnp.asarray(vectors["deform/x"].transpose(0, 2, 3, 1))
    kernel = jnp.asarray(vectors["deform/w"].transpose(2, 3, 1, 0))
    sample = jax.vmap(functools.partial(ops.sample_at_offsets, layout="interleaved"))

    @jax.jit
    def layer(features: jax.Array, kernel: jax.Array) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        offsets = jax.lax.conv_general_dilated(features, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return sample(features, offsets)

    found, pull = jax.vjp(layer, features, kernel)
    figures.check(
        "learned offsets, relative", "", relative(found, vectors["deform/out"].transpose(0, 2, 3, 1)), TOLERANCE
    )
    of_features, of_kernel = pull(2 * found)
    for ours, theirs in (
        (of_features, vectors["deform/grad_x_of_sumsq"].transpose(0, 2, 3, 1)),
        (of_kernel, vectors["deform/grad_w_of_sumsq"].transpose(2, 3, 1, 0)),
    ):
        figures.check("gradient of learned offsets, relative", "", relative(ours, theirs), TOLERANCE)
