"""RoIAlign and its gradient against the PyTorch project's compiled kernels."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from differences import relative
from golden_files import load
from parity_table import Figures

from fsis_jax import ops


def test_roi_align(golden: pathlib.Path, figures: Figures) -> None:
    """Rois of two images, some of them outside, empty or smaller than a feature pixel; 0 samples means adaptive."""
    vectors = load(golden, "ops.npz")
    features = jnp.asarray(vectors["roialign/feat"].transpose(0, 2, 3, 1))
    image, rois = vectors["roialign/rois"][:, 0].astype(int), vectors["roialign/rois"][:, 1:]
    scale = float(vectors["roialign/spatial_scale"])
    for name in vectors.starting("roialign/out_"):
        side, samples = map(int, re.findall(r"\d+", name))

        @jax.jit
        def pooled(features: jax.Array, side: int = side, samples: int = samples) -> jax.Array:
            def of_one(image: jax.Array) -> jax.Array:
                return ops.roi_align(
                    image, rois, spatial_scale=scale, output_size=side, sampling_ratio=samples, aligned=False
                )

            return jax.vmap(of_one)(features)[image, np.arange(len(rois))]

        found, pull = jax.vjp(pooled, features)
        expected = vectors[name].transpose(0, 2, 3, 1)
        figures.check("RoIAlign, relative", "", relative(found, expected), 2e-5)
        cotangent, gradient = name.replace("/out_", "/cot_"), name.replace("/out_", "/grad_")
        if gradient in vectors:
            (ours,) = pull(jnp.asarray(vectors[cotangent].transpose(0, 2, 3, 1)))
            error = relative(ours, vectors[gradient].transpose(0, 2, 3, 1))
            figures.check("gradient of RoIAlign, relative", "", error, 2e-5)
