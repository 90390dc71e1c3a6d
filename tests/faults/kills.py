"""Training and segmenting that are ended at random moments, and started again until they are done.

What comes out must be, bit for bit, what a run gives that nobody ended.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import orbax.checkpoint as ocp
from outcome import Tally

TESTS = pathlib.Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_MOST_IN_A_RUN = 5
_PATIENCE = 3600
"""Seconds after which a process that should have ended has failed."""


def training(folder: pathlib.Path, data: pathlib.Path, kills: int, end: float, seed: int) -> Tally:
    """Runs of tests/tiny.py, 12 steps with a checkpoint after each third."""
    tally, rng = Tally("training ended (SIGKILL, SIGTERM, Ctrl-C), gone on"), np.random.default_rng(seed)
    command = [str(TESTS.parent / "scripts/train.py"), "--config", str(TESTS / "tiny.py"), f"--config.data.root={data}"]

    def start(workdir: pathlib.Path) -> subprocess.Popen[str]:
        return _started([*command, "--workdir", str(workdir)])

    def steps(workdir: pathlib.Path) -> int:
        metrics = workdir / "metrics.jsonl"
        return metrics.read_text().count('"loss/total"') if metrics.exists() else 0

    whole = folder / "whole"
    _ended(start(whole))
    expected, number = _arrays(whole), 0
    while tally.tried < kills and time.monotonic() < end:
        workdir = folder / f"run{number}"
        number += 1
        count = _ended_and_begun(lambda w=workdir: start(w), lambda w=workdir: steps(w), 12, rng, kills - tally.tried)  # type: ignore[misc]
        found = _arrays(workdir)
        same = found.keys() == expected.keys() and all(np.array_equal(found[name], x) for name, x in expected.items())
        for _ in range(count):
            tally.count("survived" if same else "failed", "other arrays than those of a run that nobody ended")
        shutil.rmtree(workdir)
    return tally


def segmenting(folder: pathlib.Path, run: pathlib.Path, kills: int, end: float, seed: int) -> Tally:
    """An image in tiles and two small ones, with the detector of a run."""
    tally, rng = Tally("segmenting ended, gone on"), np.random.default_rng(seed)
    images, crop = folder / "images", folder / "crop.png"
    images.mkdir(parents=True)
    for name, side in (("a", 60), ("large", 900), ("z", 60)):
        cv2.imwrite(str(images / f"{name}.png"), _discs(side, rng))
    cv2.imwrite(str(crop), _discs(60, rng)[15:45, 15:45])
    command = ["-m", "fsis_jax", "segment", str(images), "--references", str(crop), "--checkpoint", str(run)]
    command += ["--min-score", "0", "--tile", "64", "--save", "labels", "table", "geojson", "rois", "coco"]

    def start(output: pathlib.Path) -> subprocess.Popen[str]:
        return _started([*command, "--output", str(output)])

    def size(output: pathlib.Path) -> int:
        journal = output / ".tiles" / "large"
        return (journal.stat().st_size if journal.exists() else 0) + 5000 * (output / "a-table.csv").exists()

    whole = folder / "whole"
    _ended(start(whole))
    expected, most, number = _files(whole), size(whole), 0
    while tally.tried < kills and time.monotonic() < end:
        output = folder / f"out{number}"
        number += 1
        count = _ended_and_begun(lambda o=output: start(o), lambda o=output: size(o), most, rng, kills - tally.tried)  # type: ignore[misc]
        found = _files(output)
        for _ in range(count):
            tally.count("survived" if found == expected else "failed", f"other files: {sorted(found)}")
    return tally


def _ended_and_begun(
    start: Callable[[], subprocess.Popen[str]],
    progress: Callable[[], int],
    most: int,
    rng: np.random.Generator,
    kills: int,
) -> int:
    """End a process again and again when it has come further, then let it finish; how often it was ended."""
    done = 0
    for _ in range(min(kills, _MOST_IN_A_RUN)):
        process, before, begun = start(), progress(), time.monotonic()
        goal = before + rng.uniform(0, most - before) / 2 if before < most else most
        while process.poll() is None and progress() <= goal:
            time.sleep(0.01)
            if time.monotonic() - begun > _PATIENCE:
                break
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            process.send_signal(int(rng.choice(SIGNALS)))
            done += 1
        process.communicate(timeout=_PATIENCE)
    _ended(start())
    return done


def _started(command: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *command], env=environment, stdout=pipe, stderr=pipe, text=True)


def _ended(process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        raise RuntimeError(f"status {process.returncode}: {stderr[-2000:]}")


def _arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint."""
    step = max((path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    with ocp.StandardCheckpointer() as reader:
        stored = {item: reader.restore(step / item) for item in ("model", "optimizer")}
    return {f"{item}/{name}": np.asarray(x) for item, arrays in stored.items() for name, x in arrays.items()}


def _files(output: pathlib.Path) -> dict[str, bytes]:
    """What is left in a folder of results, but for the record, which says when, and the tiles."""
    files = [path for path in output.iterdir() if path.name not in ("images.jsonl", ".tiles")]
    return {path.name: path.read_bytes() if path.is_file() else b"folder" for path in files}


def _discs(side: int, rng: np.random.Generator) -> np.ndarray:
    pixels = rng.integers(0, 60, (side, side), np.uint8)
    for y, x in rng.integers(15, side - 15, (side * side // 1200, 2)).tolist():
        cv2.circle(pixels, (x, y), 9, int(rng.integers(150, 250)), -1)
    return pixels
