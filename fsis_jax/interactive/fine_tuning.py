"""`configs/few_images.py` on what was corrected in a session, in a process of its own, and the new model in use."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from fsis_jax.checkpoints.config_file import NAME, write_config
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.neighbours import box_ious
from fsis_jax.inference.training_data import suited_steps
from fsis_jax.interactive.command import short_path
from fsis_jax.interactive.exporting import corrected_images, write_corrected
from fsis_jax.interactive.session import FINE_TUNED, Session
from fsis_jax.interactive.task import Task
from fsis_jax.pretrained import default_weights
from fsis_jax.recipes import few_images_config

_POLL = 0.3
"""Seconds between two looks at how far the training is."""
_PATIENCE = 60
"""Seconds for a training to end that was asked to, which ends its step first."""
_SAME = 0.5
"""IoU of the boxes of a cell that was found and of one that is there."""


def fine_tune(session: Session) -> Task:
    """Begin to train the model on the images that were corrected, which then are segmented again with the new one.

    Raises:
        FsisError: nothing was corrected yet, no example is shown, or something else is at work. As the task's error:
            there is no cell to learn from, or the training fails.
    """
    corrected, shown = corrected_images(session), session.shown()

    def work(task: Task) -> str:
        truth = {path: result.counted(session.filters).without_overlaps() for path, result in corrected.items()}
        before = {path: result.found.select(result.filtered(session.filters)) for path, result in corrected.items()}
        folder, images, _ = write_corrected(session, task, corrected)
        steps = suited_steps(images)
        run = _unused(session.output)
        config = few_images_config(session.segmenter.config, session.checkpoint or default_weights())
        config.data.root = os.path.abspath(folder)
        config.training.steps = steps
        config.training.checkpoint_every = -(-steps // 3)
        config.training.log_every = 1
        task.name, task.unit = f"fine-tuning on {images} picture{'s' * (images > 1)}", "step"
        task.advance(0, steps)
        write_config(config, run)
        with _training(run) as process:
            while process.poll() is None:
                task.advance(_steps_taken(run), steps)
                time.sleep(_POLL)
        if process.returncode:
            raise FsisError(f"the training failed: {_last_line(run / 'train.log')} ({run / 'train.log'})")
        task.name, task.unit = "the corrected images with the new model", "part"
        task.advance(0, 0)
        session.use_model(str(run))
        session.segment_again(task, {path: result.part for path, result in corrected.items()}, shown)
        told = []
        for path, cells in truth.items():
            found = session.segmented(path)
            after = found.found.select(found.filtered(session.filters))
            scores = f"{agreement(before[path], cells):.2f} -> {agreement(after, cells):.2f}"
            told.append(f"{os.path.basename(path)} {scores}")
        return (
            f"{short_path(str(run))} is the model now. Agreement with what you corrected, from which it learnt (F1, "
            f"before -> after): {', '.join(told)}"
        )

    return session.begin("fine-tuning", work)


def agreement(found: Instances, cells: Instances) -> float:
    """F1 of what was found against the cells that are there, by their boxes; 1 where both are none."""
    free = np.ones(len(cells), bool)
    for box in found.boxes.tolist():  # the best scores first
        overlaps = box_ious(box, cells.boxes) * free
        if len(cells) and overlaps.max() >= _SAME:
            free[int(np.argmax(overlaps))] = False
    hits = int(len(cells) - free.sum())
    return 2 * hits / (len(found) + len(cells)) if len(found) or len(cells) else 1.0


def _unused(output: pathlib.Path) -> pathlib.Path:
    """The folder of the next run."""
    run, number = output / FINE_TUNED, 1
    while run.exists():
        number += 1
        run = output / f"{FINE_TUNED}-{number}"
    run.mkdir(parents=True)
    return run


@contextlib.contextmanager
def _training(run: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which ends with the block; a run that did not come to its end is removed, unless it failed."""
    command = [sys.executable, "-m", "fsis_jax", "train", "--config", str(run / NAME), "--workdir", str(run)]
    with open(run / "train.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    except BaseException:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(run, ignore_errors=True)
        raise


def _steps_taken(run: pathlib.Path) -> int:
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, IndexError, ValueError):  # not there yet, or half a line
        return 0


def _last_line(log: pathlib.Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
