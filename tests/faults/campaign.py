"""Kills, damage and strangers' files: what is lost, and what is told wrong. Prints a table.

python tests/faults/campaign.py [--minutes 60] [--seed 1] [--training 60] [--segmenting 40] [--flips 200]
    [--mutations 10000]

Every part ends when it has its number or its share of the minutes. The same seed gives the same damage (moments of
kills differ). Status 1 if anything failed.
"""

import argparse
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from typing import TextIO

import checkpoint_damage
import kills
from outcome import Tally, table

from fsis_jax.synthetic.generate import generate

FAULTS = pathlib.Path(__file__).resolve().parent

_SILENCE, _START = 120, 900
"""Seconds without a line of a child, and to its first one: it hangs where Python cannot end it."""
_PER_CHILD = 500


def main(arguments: list[str]) -> int:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--training", type=int, default=60, metavar="KILLS")
    parser.add_argument("--segmenting", type=int, default=40, metavar="KILLS")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--mutations", type=int, default=10_000)
    options = parser.parse_args(arguments)
    # Of the processes that are started: they compile the same programs.
    cache = pathlib.Path(tempfile.gettempdir()) / "fsis_jax_faults_cache"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    share, seed, tallies = options.minutes * 60 / 4, options.seed, []
    with tempfile.TemporaryDirectory(prefix="fsis-faults-") as place:
        folder = pathlib.Path(place)
        tallies += mutated(folder / "fuzz", options.mutations, time.monotonic() + share, seed)
        if options.training or options.segmenting or options.flips:
            generate(folder / "data", images_per_category=4, two_category_images=8, sides=(64, 96))
            end = time.monotonic() + share
            tallies.append(kills.training(folder / "training", folder / "data", options.training, end, seed))
            run = folder / "training" / "whole"
            end = time.monotonic() + share
            tallies += checkpoint_damage.damaged(run, folder, options.flips, end, seed)
            end = time.monotonic() + share
            tallies.append(kills.segmenting(folder / "segmenting", run, options.segmenting, end, seed))
    print(table(tallies))
    return int(any(tally.failed for tally in tallies))


def mutated(folder: pathlib.Path, count: int, end: float, seed: int) -> list[Tally]:
    """Damaged files of every kind, in children; a child that dies or hangs has failed, and another one goes on."""
    tallies: dict[str, Tally] = {}
    number = 0
    while number < count and time.monotonic() < end:
        last = min(number + _PER_CHILD, count)
        command = [sys.executable, str(FAULTS / "fuzz.py"), str(folder / str(number)), *map(str, (seed, number, last))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        errors: queue.Queue[str | None] = queue.Queue()
        pipes = ((child.stdout, lines), (child.stderr, errors))
        readers = [threading.Thread(target=_forward, args=pipe, daemon=True) for pipe in pipes]
        for reader in readers:
            reader.start()
        trying, first = None, True
        while True:
            try:
                line = lines.get(timeout=_START if first else _SILENCE)
            except queue.Empty:
                line = None
            if line is None:
                break
            content, first = json.loads(line), False
            if trying is None:
                trying = content
                tallies.setdefault(trying[1], Tally(f"damaged {trying[1]}"))
            else:
                outcome = {"read": "survived"}.get(content[0], content[0])
                tallies[trying[1]].count(outcome, f"{trying[2]}, number {trying[0]}: {content[1][-1500:]}")
                number, trying = trying[0] + 1, None
            if time.monotonic() > end:
                break
        child.kill()
        child.wait()
        for reader in readers:
            reader.join()
        if trying is not None and time.monotonic() <= end:
            tallies[trying[1]].count("failed", f"{trying[2]}, number {trying[0]}: the process died or hangs")
            number = trying[0] + 1
        elif number == last - _PER_CHILD and trying is None:
            told = "".join(filter(None, errors.queue))
            raise RuntimeError(f"{' '.join(command)} tells nothing: {told[-1000:]}")
    return list(tallies.values())


def _forward(stream: TextIO, lines: "queue.Queue[str | None]") -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
