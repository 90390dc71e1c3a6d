"""JAX's interpreter of Mosaic GPU kernels, which simulates a GPU's memories and threads on a CPU."""

import importlib
from typing import Any

import pytest

PLACES = ("jax.experimental.pallas.mosaic_gpu", "jax._src.pallas.mosaic_gpu.interpret.params")
"""JAX 0.11 has it in public; in 0.10 it is private."""


@pytest.fixture
def mosaic_interpreter() -> Any:
    """Parameters that a kernel takes as `interpret`."""
    for place in PLACES:
        try:
            return importlib.import_module(place).InterpretGPUParams()
        except (ImportError, AttributeError):
            continue
    return pytest.skip(
        f"this JAX has no interpreter of Mosaic GPU kernels where others have it: {' and '.join(PLACES)}"
    )
