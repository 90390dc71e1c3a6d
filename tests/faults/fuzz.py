"""Reads damaged files of one seed, one after the other, and tells what became of each: a child of campaign.py.

python tests/faults/fuzz.py FOLDER SEED FIRST LAST

Number n of a seed is the same damage whenever it is made. A line of JSON before each (what is tried) and after it.
"""

import contextlib
import json
import logging
import pathlib
import shutil
import signal
import sys
import time
import traceback

import numpy as np
import readers

from fsis_jax.errors import FsisError

SECONDS, MEGABYTES = 10.0, 1024.0
"""A reader that takes more has failed."""


class Hang(BaseException):
    """A reader does not come to an end."""


def _alarm(*_: object) -> None:
    raise Hang


def _peak(reset: bool = False) -> float:
    """Megabytes that the process held at most since the last reset."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def tried(kind: readers.Kind, folder: pathlib.Path, rng: np.random.Generator) -> tuple[str, str]:
    """What became of one damaged file, of "read", "refused", "failed"; and what is told."""
    sound = kind.files[rng.integers(len(kind.files))] if kind.files else kind.path
    inside = sound.relative_to(kind.path) if kind.files else pathlib.Path()
    before = sound.read_bytes()
    changed = kind.damage(before, rng)
    target = folder / "tried" / kind.path.name
    if kind.files:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(kind.path, target)
    (target / inside).write_bytes(changed)
    start = time.process_time()
    _peak(reset=True)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)  # of the clock, on a machine that others use too
    try:
        kind.read(target)
        outcome, told = "read", ""
    except FsisError as error:
        outcome, told = "refused", str(error)
        if "\n" in told or not told.strip():
            outcome = "failed"
    except Hang:
        outcome, told = "failed", "hang: " + "".join(traceback.format_stack(limit=3))
    except Exception:
        outcome, told = "failed", traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.process_time() - start > SECONDS:
        outcome, told = "failed", f"{time.process_time() - start:.0f} s: {told}"
    if _peak() > MEGABYTES:
        outcome, told = "failed", f"{_peak():.0f} MB: {told}"
    return outcome, told


def main(folder: pathlib.Path, seed: int, first: int, last: int) -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _alarm)
    (folder / "tried").mkdir(parents=True)
    made = folder / "sound"
    made.mkdir(parents=True)
    kinds = list(readers.kinds(made))
    for kind in kinds:
        with contextlib.suppress(FsisError):  # of weights, which lack arrays
            kind.read(kind.path)  # so that what that imports is there
    for number in range(first, last):
        rng = np.random.default_rng((seed, number))
        kind = kinds[number % len(kinds)]
        print(json.dumps([number, kind.name, kind.path.name]), flush=True)
        print(json.dumps(tried(kind, folder, rng)), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5]))
