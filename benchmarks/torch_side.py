"""PyTorch as the other contender; only the parts that compare with it need it."""

import functools
import importlib
from typing import Any

import jax

from benchmarks.measure import Wait, threads


@functools.cache
def import_torch() -> Any:
    """The module, with as many threads as JAX has, and TF32 as JAX uses it."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads())
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    return torch


def import_torchvision() -> Any:
    """The module, untyped as torch is."""
    return importlib.import_module("torchvision")


def on_device(value: Any) -> Any:
    """A tensor or module on the kind of device that JAX uses."""
    return value.to("cpu" if jax.default_backend() == "cpu" else "cuda")


def waiting(torch: Any) -> Wait:
    """A function that waits for the result of either."""

    def wait(result: Any) -> None:
        jax.block_until_ready(result)
        if jax.default_backend() == "gpu":
            torch.cuda.synchronize()

    return wait
