"""One image by fsis_jax and by other projects, each in a process of its own: cold and warm, network and the rest apart.

    python -m benchmarks.peers                                      what is installed here
    python -m benchmarks.peers --python /path/to/other/bin/python   the others in an environment of theirs
    python -m benchmarks.peers --original DIR --original-config DIR/configs/FILE.yaml

StarDist and InstanSeg come with `pip install -e ".[peers]"`; the original is the PyTorch project, a checkout that
`--original` names. See `peer.py` for what each does. All are started in turn (A B A B), and a time is the least of
several, so that a ratio of one run is worth more than a time.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import Row
from benchmarks.report import Report, table

ROOT = pathlib.Path(__file__).resolve().parents[1]
PITCH = 27
"""Pixels from the centre of a drawn cell to that of the next."""
OURS, ORIGINAL, OTHERS = "fsis_jax", "original", ("stardist", "instanseg")


def drawn_cells(side: int) -> dict[str, Any]:
    """A square image uint8 full of bright ellipses, their labels int32, and boxes (3, 4) around three of them."""
    rng = np.random.default_rng(0)
    image, labels = rng.normal(40, 6, (side, side)), np.zeros((side, side), np.int32)
    count = side // PITCH
    boxes = []
    for number in range(count**2):
        centre = (np.array(divmod(number, count)) + 0.5) * PITCH + rng.uniform(-1, 1, 2)
        radii = rng.uniform(8, 12, 2)
        top, left = np.floor(centre - PITCH / 2).astype(int).clip(0)
        part = slice(top, top + PITCH + 1), slice(left, left + PITCH + 1)
        y, x = np.mgrid[part[0], part[1]]
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        inside = inside[: side - top, : side - left]
        image[part][inside] += rng.uniform(90, 130)
        labels[part][inside] = number + 1
        boxes.append([*(centre - radii)[::-1], *(centre + radii)[::-1]])
    shown = cv2.GaussianBlur(image, (0, 0), 1).clip(0, 255).astype(np.uint8)
    return {"image": shown, "labels": labels, "boxes": np.array(boxes[:: len(boxes) // 3 + 1])}


def measured(python: str, name: str, task: pathlib.Path, options: list[str]) -> dict[str, Any]:
    """What a process of its own tells of one contender.

    Raises:
        subprocess.CalledProcessError: it failed, and has told why.
    """
    command = [python, "-m", "benchmarks.peer", name, str(task), *options]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**told, "start": told["first"] - start}


def row(name: str, runs: list[dict[str, Any]]) -> Row:
    """The least of several runs of a contender."""
    least = {key: min(run[key] for run in runs) for key in ("start", "network", "rest", "peak")}
    together = least["network"] + least["rest"]
    return {
        "who": name,
        "weights": runs[0]["weights"],
        "cells": runs[0]["cells"],
        "start to first result s": least["start"],
        "network ms": least["network"] * 1e3,
        "the rest ms": least["rest"] * 1e3,
        "together ms": together * 1e3,
        "peak MB": least["peak"],
    }


def compared(rows: list[Row]) -> list[Row]:
    """With the ratios of the first row, ours, to each."""
    ours = rows[0]
    for name, column in (("our start / theirs", "start to first result s"), ("our time / theirs", "together ms")):
        rows = [{**each, name: ours[column] / each[column]} for each in rows]
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save the table; 1 if a contender failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels of the image")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--weights", default="cells-base", help="ours")
    parser.add_argument("--python", default=sys.executable, help="that of the others")
    parser.add_argument("--only", default=",".join(OTHERS), help="which others, besides the original")
    parser.add_argument("--original", type=pathlib.Path, help="checkout of the PyTorch project")
    parser.add_argument("--original-config", type=pathlib.Path, help="YAML file of its network")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    contenders = {OURS: (sys.executable, ["--weights", options.weights])}
    contenders |= {name: (options.python, []) for name in filter(None, options.only.split(","))}
    if options.original is not None:
        theirs = ["--original", str(options.original), "--config", str(options.original_config)]
        contenders[ORIGINAL] = (options.python, theirs)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    failed = set()
    with tempfile.TemporaryDirectory() as folder:
        task = pathlib.Path(folder, "task.npz")
        np.savez(task, **drawn_cells(options.side))
        for _ in range(options.rounds):
            for name, (python, more) in contenders.items():
                if name in failed:
                    continue
                try:
                    runs[name].append(measured(python, name, task, more))
                except subprocess.CalledProcessError as error:
                    print(f"{name}: ended with status {error.returncode}; it is left out", file=sys.stderr)
                    failed.add(name)
    if OURS in failed:
        return 1
    report = Report(options.out, "peers", quick=False)
    rows = compared([row(name, runs[name]) for name in contenders if name not in failed])
    report.add(f"An image of {options.side}x{options.side}, the least of {options.rounds} processes.\n\n{table(rows)}")
    print(f"saved as {report.path}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
