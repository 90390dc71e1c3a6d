"""Where results are kept from one process to the next, and all that a kept result depends on but its own arguments."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import sys
from typing import Any

import jax
import jaxlib

import fsis_jax
from fsis_jax.cache.place import default_compile_cache
from fsis_jax.cache.private_folder import PrivateFolder

_SOURCES = ("models", "ops", "batch.py", "inference/programs.py")
"""Of fsis_jax: what programs are made of."""
_ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NPROC")
"""Variables that XLA reads: its flags, and the number of its threads."""
_HARMLESS = ("cache", "log", "debug", "dump", "traceback", "pprint")
"""Parts of names of JAX's settings on which no program depends."""


def folder() -> PrivateFolder | None:
    """Where results are kept: beside JAX's compilation cache; None where that is off, or no folder."""
    config: Any = jax.config
    place = config.jax_compilation_cache_dir or default_compile_cache()
    if not config.jax_enable_compilation_cache or "://" in place:
        return None
    return PrivateFolder(pathlib.Path(place) / "fsis_jax")


def of_code() -> str:
    """What shapes depend on: our code, and the libraries that it is traced by."""
    return _json(
        sources=_sources(),
        python=sys.version,
        fsis_jax=fsis_jax.__version__,
        jax=jax.__version__,
        flax=_flax(),
    )


def of_device(device: jax.Device) -> str:
    """What compiled programs depend on besides: the compiler, its settings, the device and the processor."""
    config: Any = jax.config
    return _json(
        jaxlib=jaxlib.__version__,
        settings={
            name: repr(getattr(config, name, value))
            for name, value in config.values.items()
            if not any(part in name for part in _HARMLESS)
        },
        environment={name: os.environ.get(name) for name in _ENVIRONMENT},
        device=[device.platform, device.device_kind, device.id, device.client.platform_version],
        devices=jax.local_device_count(),
        threads=_threads(),
        processor=_processor(),
    )


def of_rounding(device: jax.Device) -> dict[str, Any]:
    """What the last bits of results depend on besides the programs, each under a name for people."""
    told: dict[str, Any] = {
        "version of jaxlib": jaxlib.__version__,
        "device": f"{device.platform} {device.device_kind}",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    if device.platform == "cpu":
        processor = _processor()
        lines = processor.split("\n")
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        told["processor"] = f"{model} {hashlib.sha256(processor.encode()).hexdigest()[:8]}".strip()
        told["number of threads"] = _threads()
    return told


def _json(**told: Any) -> str:
    return json.dumps(told, sort_keys=True)


def _threads() -> int:
    """Of the processors those that this process may use, by which XLA parts its work."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _processor() -> str:
    """Its name and its features: machine code of another one may fail."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return " ".join(told)
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    return "\n".join([*told, *(line for line in lines if line.partition(":")[0].strip() in wanted)])


@functools.cache
def _sources() -> str:
    """A digest of the files whose code is in the programs."""
    found = hashlib.sha256()
    roots = [pathlib.Path(fsis_jax.__file__).parent / name for name in _SOURCES]
    kernels = importlib.util.find_spec("fsis_jax.kernels")
    if kernels is not None:
        roots += [pathlib.Path(place) for place in kernels.submodule_search_locations or ()]
    for root in roots:
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            content = path.read_bytes()
            found.update(f"{root.name} {path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()


@functools.cache
def _flax() -> str:
    """Its version, without importing it."""
    return importlib.metadata.version("flax")
