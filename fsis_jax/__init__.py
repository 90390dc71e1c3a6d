"""fsis_jax: class-agnostic few-shot instance segmentation of cells, in JAX."""

__version__ = "0.1.0"
