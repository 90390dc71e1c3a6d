"""The one place where an op chooses between XLA and the Pallas kernels of the folder `kernels`.

The choice is made when an op is traced, from the device that runs by default. "auto" takes a kernel on NVIDIA GPUs of
compute capability 9.0 (Hopper) and above, which Mosaic GPU is written for; every other device runs XLA, and a GPU says
so in the log, once per reason. "xla" never takes a kernel. "pallas" takes one wherever one fits the shapes, on any GPU,
and on a CPU in an interpreter, which is for tests: very slow.
"""

import functools
import importlib
import logging
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax

Backend = Literal["auto", "xla", "pallas"]
"""An argument of the ops that have a kernel, and static: a setting in this module would be read when a caller is first
compiled, and changing it later would have no effect. The detector passes the config's `model.ops`."""

BACKENDS: tuple[Backend, ...] = ("auto", "xla", "pallas")

LEAST_CAPABILITY = 9.0
"""Hopper."""


class Kernels(NamedTuple):
    """A module of kernels, and how they run."""

    module: ModuleType
    interpret: bool


def choose(backend: Backend, name: str, *features: Any) -> Kernels | None:
    """The kernels `fsis_jax.kernels.<name>` if they are to run, else None.

    Args:
      backend: see above.
      name: of the module.
      features: what the module's `supported` takes.

    Raises:
      ValueError: `backend` is none of those above.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; use one of: {', '.join(BACKENDS)}")
    device = default_device()
    if backend == "xla" or (backend == "auto" and not _capable(device)):
        return None
    try:
        module = importlib.import_module(f"fsis_jax.kernels.{name}")
    except ImportError as error:
        _log_once(f"no Pallas kernels for {name} here ({error}); XLA runs it")
        return None
    if not module.supported(*features):
        _log_once(f"no Pallas kernel for {name} of {', '.join(map(str, features))}; XLA runs it")
        return None
    return Kernels(module, interpret=device.platform == "cpu")


def default_device() -> jax.Device:
    """The device that runs what is traced now, unless its inputs were put elsewhere."""
    config: Any = jax.config
    default = config.jax_default_device
    if isinstance(default, jax.Device):
        return default
    return jax.devices(default)[0] if default else jax.devices()[0]


def _capable(device: jax.Device) -> bool:
    if device.platform not in ("gpu", "cuda"):
        return False
    try:
        capable = float(device.compute_capability) >= LEAST_CAPABILITY
    except (AttributeError, ValueError):  # of an AMD GPU it is a name
        capable = False
    if not capable:
        _log_once(
            f"{device.device_kind}: the Pallas kernels need an NVIDIA GPU of compute capability {LEAST_CAPABILITY} "
            "or more; XLA runs their ops"
        )
    return capable


@functools.cache
def _log_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
