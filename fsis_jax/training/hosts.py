"""A training in several processes, on one host or many: how they meet, agree and part.

All run the same program, each on its own devices, in JAX's multi-controller way: what one of them computes with arrays
of all, all must. Process 0 writes files and logs and validates; `parallel.py` has what belongs to the step.
"""

import atexit
import contextlib
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from fsis_jax import __version__
from fsis_jax.checkpoints.config_file import plain_config
from fsis_jax.errors import FsisError
from fsis_jax.training import lost_process
from fsis_jax.training.lost_process import HEARTBEAT_SECONDS, REMEDY, WAIT_SECONDS

Tree = TypeVar("Tree")

_LOST = re.compile("gloo|nccl|barrier|heartbeat|unavailable", re.IGNORECASE)
"""In JAX's errors, where another process did not answer."""
_MOST = 200
"""Characters of an error of JAX that are told."""
_WEEK_MS = 7 * 24 * 3600 * 1000

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def joined(config: ConfigDict) -> Iterator[ConfigDict]:
    """Be one of the processes of `config.distributed` from here on; "": alone, or as JAX was set up before.

    A process that leaves the block by an exception ends without waiting for the others, which then lose it.

    Yields:
        The config without `distributed`, which is of this start and not of the run.

    Raises:
        FsisError: the processes did not meet, have other configs, or one was lost within the block.
    """
    _meet(config.distributed)
    if not jax.distributed.is_initialized():
        yield config
        return
    config = config.copy_and_resolve_references()
    config.distributed = ""
    if jax.process_index():
        logging.getLogger("fsis_jax").setLevel(logging.ERROR)
    try:
        _check_devices()
        _check_same(config)
        yield config
    except SystemExit:
        raise  # all leave at the same step
    except BaseException as error:
        atexit.register(os._exit, 130 if isinstance(error, KeyboardInterrupt) else 2)  # before JAX waits
        if isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(str(error)):
            raise FsisError(f"another process of the training was lost ({_reason(error)}): {REMEDY}") from error
        raise


def told(tree: Tree) -> Tree:
    """What process 0 has, a tree of numbers and arrays of the same shapes in all; they wait for one another here."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def wait(name: str) -> None:
    """Until all processes wait by this name, which none may do twice. On CPUs `told` gives up after half an hour."""
    ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=_WEEK_MS)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Process 0 is through with the block before another enters it: for files that are made where there are none."""
    if jax.process_index():
        wait("process 0 goes first")
    yield
    if not jax.process_index():
        wait("process 0 goes first")


def _check_devices() -> None:
    """Raise FsisError if processes have different numbers of devices."""
    processes, local, everywhere = jax.process_count(), jax.local_device_count(), jax.device_count()
    if processes * local != everywhere:
        raise FsisError(
            f"process {jax.process_index()} has {local} of the {everywhere} devices of {processes} processes: give all "
            "the same number"
        )


def _meet(distributed: str) -> None:
    if not distributed or jax.distributed.is_initialized():
        return
    _lead_stderr_through(lost_process.__file__, distributed)
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours (`stopping.py`)
    given: dict[str, Any] = {}
    if distributed != "auto":
        address, number, process = distributed.split(",")
        given = {"coordinator_address": address, "num_processes": int(number), "process_id": int(process)}
    _logger.info("waiting for the other processes, up to %d s", WAIT_SECONDS)
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=WAIT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        hint = "" if given else "; without srun, mpirun of Open MPI 4 or a Kubernetes job give ADDRESS:PORT,NUMBER,ID"
        raise FsisError(f"config.distributed is {distributed!r}: {_reason(error)}{hint}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_MOST]


def _lead_stderr_through(program: str, *arguments: str) -> None:
    """From here on what is written to the standard error, by whatever library, passes a Python program first."""
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, reader, 0)]
    os.posix_spawn(sys.executable, [sys.executable, program, *arguments], os.environ, file_actions=actions)
    os.dup2(writer, 2)
    os.close(reader)
    os.close(writer)


def _check_same(config: ConfigDict) -> None:
    """Raise FsisError in a process whose config or version is not that of process 0."""
    config = config.copy_and_resolve_references()
    config.data.root = config.init_from = ""  # hosts may have files by other names
    text = __version__ + json.dumps(plain_config(config), sort_keys=True)
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if not np.array_equal(told(digest), digest):
        raise FsisError(
            f"process {jax.process_index()} has another config or version of fsis_jax than process 0: give all the same"
        )
