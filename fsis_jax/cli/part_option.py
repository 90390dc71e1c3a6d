"""`--part`: which part of how many, as given or as the scheduler of a cluster says."""

import argparse
import os
import re

_INDEX = {
    "SLURM": "SLURM_ARRAY_TASK_ID",
    "OpenPBS": "PBS_ARRAY_INDEX",
    "Torque": "PBS_ARRAYID",
    "LSF": "LSB_JOBINDEX",
    "Grid Engine": "SGE_TASK_ID",
}
"""Variable of each scheduler that has the number of a task in its array."""
_RANGES = {
    "SLURM": ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"),
    "LSF": ("", "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"),
    "Grid Engine": ("SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
}
"""Variables of those that say so: first number, last one and step; a first one that is not said is 1."""
MOST = 100_000
"""Parts of a run."""


def part(text: str) -> tuple[int, int]:
    """Number, from 1, and count of "3/16", "auto/16" (the number of the task, which counts from 1) or "auto".

    Raises:
        ArgumentTypeError: none of these, a number out of range, or a scheduler that does not say it.
    """
    given = re.fullmatch(r"(auto|\d{1,6})(?:/(\d{1,6}))?", text.strip(), re.ASCII)
    if given is None or (given[1] != "auto" and given[2] is None):
        raise argparse.ArgumentTypeError(f"{text!r} is not as 3/16, auto/16 or auto")
    number, count = (int(given[1]), int(given[2])) if given[1] != "auto" else _of_task(given[2])
    if not 1 <= number <= count <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: part {number} of {count}: parts count from 1 to at most {MOST}")
    return number, count


def _of_task(count: str | None) -> tuple[int, int]:
    """Which part this task of an array is, of so many, or of as many as the array has tasks."""
    for scheduler, variable in _INDEX.items():
        if not (index := os.environ.get(variable, "")).isdecimal() or (scheduler == "LSF" and index == "0"):
            continue
        if count is not None:
            return int(index), int(count)
        first, last, step = (os.environ.get(name, "") for name in _RANGES.get(scheduler, ("", "", "")))
        if not last.isdecimal():
            raise argparse.ArgumentTypeError(f"{scheduler} does not say how many tasks the array has: give auto/16")
        low, width = int(first or 1), int(step or 1)
        tasks = (int(last) - low) // width + 1
        if (listed := os.environ.get("SLURM_ARRAY_TASK_COUNT", str(tasks))) != str(tasks):
            raise argparse.ArgumentTypeError(f"an array of {listed} tasks with gaps in their numbers: give auto/16")
        return (int(index) - low) // width + 1, tasks
    raise argparse.ArgumentTypeError("auto: not in an array of SLURM, PBS, LSF or Grid Engine: give a number, as 3/16")
