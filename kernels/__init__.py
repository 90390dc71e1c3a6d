"""Optional Pallas GPU kernels, installed as `fsis_jax.kernels`; `fsis_jax.ops.dispatch` says when they run."""
