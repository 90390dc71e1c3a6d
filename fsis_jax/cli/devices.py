"""What JAX's errors say of the machine: a device that cannot be started, or that has too little memory."""

import os

import jax

from fsis_jax.errors import FsisError

_MOST = 300
"""Characters of an error of JAX that are told."""


def device_failure(error: Exception) -> FsisError | None:
    """The one-line error, if it was a device that failed and not the program.

    JAX starts its devices with the first computation. Where it cannot, it raises a RuntimeError, or an AssertionError
    without a word; so it is asked again.
    """
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return FsisError(
            f"the device has too little memory{_reason(error)}: end other programs that use it, or set "
            "JAX_PLATFORMS=cpu"
        )
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as failure:
        asked = os.environ.get("JAX_PLATFORMS")
        what = f"the device that JAX_PLATFORMS={asked} asks for" if asked else "any device"
        return FsisError(
            f"JAX cannot start {what}{_reason(failure)}: unset JAX_PLATFORMS or set it to cpu, or install the "
            "driver and the JAX of that device"
        )
    return None


def _reason(error: Exception) -> str:
    """What an error says, in brackets; nothing if it says nothing."""
    text = " ".join(str(error).split())[:_MOST]
    return f" ({text})" if text else ""
