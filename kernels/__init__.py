"""Optional Pallas GPU kernels, installed as `fsis_jax.kernels`. None are here yet: every op runs as XLA."""
