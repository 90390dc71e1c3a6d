"""One slide by one process, by parts and by Dask's workers: what each way costs, and whether the files are the same.

    python -m benchmarks.many --side 12000 --covered 0.2

Processor seconds are of all processes together, which hold beside other work too. Memory is that of each process that
was there for some time: the mean of the second quarter of that time, of the last, and the most.
"""

import argparse
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil

from benchmarks.slide import FIRST_CELL, draw_slide

_OPTIONS = ("--checkpoint", "cells-small", "--save", "labels", "table", "geojson")
_LOOK = 0.5
"""Seconds between two looks at the processes."""
WAYS = ("one", "parts-4", "dask-1", "dask-2", "dask-4", "killed")


def main(arguments: Sequence[str]) -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=12_000)
    parser.add_argument("--covered", type=float, default=0.2)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("benchmarks/results/many"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args(arguments)
    folder: pathlib.Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    slide, references = folder / "slide.ome.tif", folder / "cells.refs"
    if not slide.exists():
        draw_slide(slide, options.side, options.covered)
    box = ",".join(map(str, FIRST_CELL))
    if not references.exists():
        _fsis("references", "--reference", f"{slide}:{box}", "--checkpoint", "cells-small", "-o", references)
    print("| way | processor seconds | seconds | MB of each process | files |\n|---|---|---|---|---|")
    for way in options.ways:
        output = folder / way
        command = ("segment", slide, "--references", references, *_OPTIONS, "--output", output)
        rows = [_fsis(*given, each=each) for given, each in _commands(way, command, output)]
        told = " + ".join(f"{seconds:.0f}" for seconds, _, _ in rows), " + ".join(f"{wall:.0f}" for _, wall, _ in rows)
        memory = "; ".join(text for _, _, text in rows if text)
        print(f"| {way} | {told[0]} | {told[1]} | {memory} | {_digest(output)} |", flush=True)


Each = Callable[[psutil.Process], None]


def _commands(way: str, command: tuple[object, ...], output: pathlib.Path) -> list[tuple[tuple[object, ...], Each]]:
    """Arguments of `fsis`, one after the other, and what is done every now and then beside them."""
    kind, _, count = way.partition("-")
    if kind == "parts":
        parts = [(*command, "--part", f"{number}/{count}") for number in range(1, int(count) + 1)]
        return [(given, _nothing) for given in (*parts, ("merge", output))]
    if kind == "dask":
        return [((*command, "--dask", f"local:{count}"), _nothing)]
    if kind == "killed":
        return [((*command, "--dask", "local:2"), _killer(output / ".tiles" / "slide"))]
    return [(command, _nothing)]


def _nothing(process: psutil.Process) -> None:
    """No disturbance."""


def _killer(journal: pathlib.Path) -> Each:
    """Kills the worker that holds most memory, twice, when there are results of some more tiles."""
    killed: list[int] = []

    def call(process: psutil.Process) -> None:
        if len(killed) < 2 and journal.exists() and journal.stat().st_size > 200_000 * (len(killed) + 1):
            largest = max(process.children(recursive=True), key=lambda child: child.memory_info().rss)
            if largest.pid not in killed:
                largest.send_signal(signal.SIGKILL)
                killed.append(largest.pid)

    return call


def _fsis(*arguments: object, each: Each = _nothing) -> tuple[float, float, str]:
    """Run the command: processor seconds with those of its children, seconds, and the memory of each process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "fsis_jax", *map(str, arguments)], stdout=subprocess.DEVNULL)
    held: dict[int, list[int]] = {}
    root = psutil.Process(process.pid)
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        try:
            for member in (root, *root.children(recursive=True)):
                held.setdefault(member.pid, []).append(member.memory_info().rss)
            each(root)
        except psutil.NoSuchProcess:
            pass
        time.sleep(_LOOK)
    if status:
        raise SystemExit(f"fsis {' '.join(map(str, arguments))}: status {os.waitstatus_to_exitcode(status)}")
    wall = time.perf_counter() - start
    memory = ", ".join(_course(sizes) for sizes in held.values() if len(sizes) * _LOOK > 20 and max(sizes) > 2e8)
    return usage.ru_utime + usage.ru_stime, wall, memory


def _course(sizes: Sequence[int]) -> str:
    """The mean of the second quarter of what a process held, of the last, and the most, in megabytes."""
    quarter = len(sizes) // 4
    parts = sizes[quarter : 2 * quarter], sizes[-quarter:]
    second, last = (sum(part) / len(part) / 1e6 for part in parts)
    return f"{second:.0f} to {last:.0f}, at most {max(sizes) / 1e6:.0f}"


def _digest(output: pathlib.Path) -> str:
    """The same for the same files."""
    state = hashlib.sha256()
    for file in sorted(file for file in output.iterdir() if file.suffix in (".tif", ".csv", ".geojson")):
        state.update(file.name.encode() + file.read_bytes())
    return state.hexdigest()[:12]


if __name__ == "__main__":
    main(sys.argv[1:])
