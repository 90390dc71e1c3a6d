"""`fsis segment --dask`: a cluster to connect to, or one of processes on this machine."""

import argparse
import contextlib
import ipaddress
import logging
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fsis_jax.cli.prepared_run import prepare
from fsis_jax.cli.segmenting_run import segment_prepared
from fsis_jax.errors import FsisError

if TYPE_CHECKING:
    from distributed import Client

_logger = logging.getLogger(__name__)
_PATIENCE = 10.0
"""Seconds in which a scheduler must answer."""
_MOST = 1024
"""Processes on this machine."""
_TRIM = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
"""A setting of Dask, by which workers give the memory of each tile back to the system and get it again, in a tenth of
their time."""


def run_on_dask(options: argparse.Namespace) -> None:
    """`fsis segment --dask`, of its arguments."""
    with connected(options.dask) as client:
        from fsis_jax.inference.dask_tiles import DaskTiles

        run = prepare(options)
        with DaskTiles(run.segmenter, run.references, client) as source:
            segment_prepared(run, options, source)


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator["Client"]:
    """A client of a scheduler: an address, the path of a scheduler file, or "local:N", which ends with the block.

    Raises:
        FsisError: it does not answer, or Dask is not installed.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise FsisError(f"--dask {scheduler}: Dask is not installed: pip install 'fsis_jax[dask]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # of workers that die, whose tiles others do
    local = re.fullmatch(r"local:(.*)", scheduler)
    with contextlib.ExitStack() as stack:
        try:
            if local is not None:
                if not (re.fullmatch(r"\d{1,4}", local[1], re.ASCII) and 1 <= int(local[1]) <= _MOST):
                    raise FsisError(f"--dask {scheduler}: give from 1 to {_MOST} processes, as local:4")
                with dask.config.set({_TRIM: None}):  # not set
                    cluster = LocalCluster(
                        n_workers=int(local[1]),
                        threads_per_worker=1,
                        host="127.0.0.1",
                        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                        memory_limit=0,
                        silence_logs=logging.CRITICAL,
                    )
                client = Client(stack.enter_context(cluster))
            elif os.path.exists(scheduler):
                client = Client(scheduler_file=scheduler, timeout=_PATIENCE)
            elif not re.search(r":\d+/?$", scheduler, re.ASCII):
                raise FsisError(f"--dask {scheduler}: no such scheduler file, nor an address as tls://login1:8786")
            else:
                _warn_of_plain(scheduler)
                client = Client(scheduler, timeout=_PATIENCE)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise FsisError(f"--dask {scheduler}: the scheduler does not answer ({why}): check its address") from error
        yield stack.enter_context(client)


def _warn_of_plain(address: str) -> None:
    """Say what an address without encryption means, but for one on this machine."""
    if address.startswith(("tls:", "wss:", "inproc:")):
        return
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost":
        _logger.warning(
            f"--dask {address}: not encrypted, and whoever reaches that port can run programs on the workers: on a "
            "network that others use give a tls:// address"
        )
