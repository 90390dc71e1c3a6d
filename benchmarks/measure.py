"""How everything here is measured: times, compiled programs, memory, how long the device was busy.

A time is the least of several after a warm-up: a machine is disturbed, never sped up. Contenders take turns, so that a
disturbance hits all of them.
"""

import contextlib
import ctypes
import gc
import glob
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

Row = dict[str, Any]
"""One row of a table: column -> value. Keys carry the units."""

PATIENCE = 2.0
"""Seconds a turn, all contenders together, that are worth repeating more than once."""

Wait = Callable[[Any], Any]
"""Returns once a result is there."""


def best_times(
    contenders: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    calls: int = 1,
    warm_up: bool = True,
    wait: Wait = jax.block_until_ready,
) -> dict[str, float]:
    """Seconds of one call of each contender, the least of `repeats` turns.

    Args:
        repeats: turns; two must do where they are slow (PATIENCE).
        calls: in a row before a turn waits; more than 1 hides the launch of short programs on a GPU, as in real use.
        warm_up: call each once before.
    """
    best = dict.fromkeys(contenders, float("inf"))
    if warm_up:
        for call in contenders.values():
            wait(call())
    begin = time.perf_counter()
    for turn in range(repeats):
        if turn > 1 and time.perf_counter() - begin > PATIENCE * repeats:
            break
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                result = call()
            wait(result)
            best[name] = min(best[name], (time.perf_counter() - start) / calls)
    return best


class Compiled(NamedTuple):
    """A compiled program, and what the compiler says of it."""

    call: Callable[..., Any]
    seconds: float
    """That compiling took, tracing included."""
    gflop: float
    """Convolutions and matrix products mostly, in their plain forms; a loop's body counts once."""
    moved: float
    """Megabytes read and written by all its operations, those that stay in cache included."""
    temporary: float
    """Megabytes beside arguments and results."""


def compiled(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """`function`, a jitted one or not, compiled for these arguments."""
    jitted: Any = function if hasattr(function, "lower") else jax.jit(function)
    start = time.perf_counter()
    traced = jitted.trace(*arguments)
    program = traced.lower().compile()
    seconds = time.perf_counter() - start
    # As another platform would be given it: the forms that the ops have for CPUs alone do less, or hide it in loops.
    plain = traced.lower(lowering_platforms=("cuda",)).cost_analysis() or {}
    costs = program.cost_analysis() or {}
    memory = program.memory_analysis()
    return Compiled(
        program,
        seconds,
        gflop=plain.get("flops", 0.0) / 1e9,
        moved=costs.get("bytes accessed", 0.0) / 1e6,
        temporary=getattr(memory, "temp_size_in_bytes", 0) / 1e6,
    )


class Busy:
    """Filled when `traced` ends."""

    seconds = 0.0
    """During which the device computed something."""


@contextlib.contextmanager
def traced() -> Iterator[Busy]:
    """Profile the block: how long was the device busy in it? On CPU the device is XLA's threads."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    busy = Busy()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            yield busy
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        busy.seconds = _union(_device_events(jax.profiler.ProfileData.from_file(path)))


def _device_events(profile: Any) -> Iterator[tuple[float, float]]:
    """Start and end in ns of everything that ran on a GPU's streams or, without one, in XLA's CPU threads."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    prefix = "Stream" if devices else "tf_XLA"
    for plane in devices or planes:
        for line in plane.lines:
            if line.name.startswith(prefix):
                for event in line.events:
                    yield event.start_ns, event.start_ns + event.duration_ns


def _union(intervals: Iterator[tuple[float, float]]) -> float:
    """Seconds that the intervals (ns) cover together."""
    total, covered = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return total / 1e9


def reset_peak() -> None:
    """Start the peak of `host_peak` anew, where the system can (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def host_peak() -> float:
    """Most memory (MB) that this process held since `reset_peak`, or ever."""
    return _status("VmHWM")


def host_now() -> float:
    """Memory (MB) that this process needs; the most that it ever held where the system does not tell."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    return _status("VmRSS")


def _status(name: str) -> float:
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def device_peak() -> float | None:
    """Most memory (MB) that arrays took on the device since the program's start; None on CPU: it is the host's."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] / 1e6 if statistics else None


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
