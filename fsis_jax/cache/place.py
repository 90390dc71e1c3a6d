"""The folder of JAX's compilation cache, where none is chosen. JAX is not imported here."""

import os

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
"""Environment variable that chooses another folder; JAX reads it."""


def default_compile_cache() -> str:
    """The folder that `fsis` gives to JAX."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "fsis_jax", "xla")
