"""The training loop, to be read from top to bottom."""

import contextlib
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fsis_jax.batch import Batch
from fsis_jax.cache.memory import give_back
from fsis_jax.checkpoints import config_file
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.config_check import check_config
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.protocol import validate
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.preprocess.records import Source
from fsis_jax.training import hosts
from fsis_jax.training.debug import debug_run
from fsis_jax.training.metrics import MetricWriter
from fsis_jax.training.progress import Progress
from fsis_jax.training.run import Run, open_run
from fsis_jax.training.schedule import learning_rate
from fsis_jax.training.step import merged_model
from fsis_jax.training.stopping import STATUS, Termination

_logger = logging.getLogger(__name__)


def train_and_evaluate(config: ConfigDict, workdir: pathlib.Path, *, from_step: int | None = None) -> TrainState:
    """Train as `config` says, or go on where `workdir` stopped.

    SIGTERM finishes the step and saves it. A checkpoint is written before its validation, which is made up for when a
    run goes on from one without. Of several processes (`hosts.py`) all call this with one config, and share `workdir`.

    Writes to `workdir`: config.json, checkpoints/, metrics.jsonl, tensorboard/, overlays/. With `config.debug` a quick
    look (`debug.py`) in a folder beside it.

    Args:
        config: of the run.
        workdir: its folder.
        from_step: that of the checkpoint to go on from; None: the last that is not damaged.

    Returns:
        The final state, on the host.

    Raises:
        FsisError: bad config or data, a checkpoint of another architecture, no sound one, a full disk, a non-finite
            loss, another process that is lost.
        SystemExit: with status 143, after SIGTERM.
    """
    check_config(config)
    with contextlib.ExitStack() as stack:
        config = stack.enter_context(hosts.joined(config))
        if config.debug:
            config, workdir = debug_run(config, workdir)
        run, state = open_run(config, workdir, from_step, stack)
        parallel, batches, rate = run.parallel, run.batches, learning_rate(config)
        state = parallel.put_state(state)
        first = jax.process_index() == 0
        writer = None
        if first:
            writer = stack.enter_context(contextlib.closing(MetricWriter(workdir, first_step=run.start)))
            writer.describe("config", json.dumps(config_file.plain_config(config), indent=1))
        progress = stack.enter_context(
            contextlib.closing(Progress(run.steps, first=run.start, canvases=config.data.train_canvases, shown=first))
        )
        stopping = stack.enter_context(Termination())

        if run.lacks_validation and _validates(run, run.start):
            with _others_wait(run.start, stopping), progress.paused():
                _validate(run, run.start, jax.device_get(parallel.one(state)), writer, progress)
        pending: tuple[int, Any, Batch] | None = None
        for step in range(run.start + 1, run.steps + 1):
            batch = next(batches)
            with progress.stepping(batch.images.shape[1:3]) as compiles:
                state, metrics = parallel.step(state, parallel.put_batch(batch))
            if compiles:
                give_back()
            if pending is not None:
                _check_finite(*pending, run.splits.train)  # One step late, so that the device is never waited for.
            pending = (step, parallel.one(metrics), batch)
            progress.update()
            if step % config.training.log_every == 0 or step == run.steps:
                values = _check_finite(*pending, run.splits.train)
                values["images_per_second"] = config.training.batch_size * progress.steps_per_second(step)
                values["learning_rate"] = float(rate((step - 1) // config.optimizer.accumulate))
                if writer:
                    writer.write(step, values)
                progress.show_loss(values["loss/total"])
            due = step % config.training.checkpoint_every == 0 or step == run.steps
            asked = parallel.agreed(stopping.asked)
            if due or asked:
                _check_finite(*pending, run.splits.train)
                host_state = jax.device_get(parallel.one(state))
                if run.saves:
                    learnt = run.learnt.plain()
                    run.saves.save(host_state, config=config, data_state=batches.get_state(), learnt=learnt)
                if asked:
                    _logger.warning("stopped by SIGTERM after step %d: the same command goes on", step)
                    raise SystemExit(STATUS)
                if _validates(run, step):
                    with _others_wait(step, stopping), progress.paused():
                        _validate(run, step, host_state, writer, progress)
                del host_state  # it would keep the memory that the next step wants
        return jax.device_get(parallel.one(state))


def _validates(run: Run, step: int) -> bool:
    every = run.config.training.checkpoint_every * run.config.training.validate_every
    return step % every == 0 or step == run.steps


@contextlib.contextmanager
def _others_wait(step: int, stopping: Termination) -> Iterator[None]:
    """While process 0 validates. SIGTERM to any leaves it for the next start, in all."""
    with contextlib.suppress(SystemExit), stopping.interruptible():
        yield
    hosts.wait(f"validation of step {step}")
    if hosts.told(stopping.asked):
        raise SystemExit(STATUS)


def _validate(run: Run, step: int, state: TrainState, writer: MetricWriter | None, progress: Progress) -> None:
    """By the process that has the writer: measure, and keep the results with the checkpoint of the step."""
    if writer is None:
        return
    config, splits = run.config, run.splits
    overlays = run.workdir / "overlays" / f"{step:06d}"
    validation = validate(
        Segmenter(merged_model(run.graph, state), config),
        splits.validation,
        splits.train,
        splits.seen,
        shots=config.data.shots,
        seed=config.seed,
        overlays=overlays,
        overlay_count=config.training.overlays,
    )
    writer.show(step, overlays)
    writer.write(step, {f"validation/{name}": value for name, value in validation.items()})
    kind = "mask" if config.model.mask_head.kind != "none" else "box"
    progress.say(
        f"step {step}: validation {kind} AP50 {validation[f'{kind}_ap50']:.3f}, "
        f"F1 {validation['f1']:.3f} at score {validation['min_score']:.2f}"
    )
    if run.saves:
        run.saves.record_validation(step, validation)


def _check_finite(step: int, metrics: dict[str, jax.Array], batch: Batch, images: Source) -> dict[str, float]:
    """The metrics as floats.

    Raises:
        FsisError: if the loss is not finite; names the step, the terms and the images.
    """
    values = {name: float(value) for name, value in metrics.items()}
    if not (np.isfinite(values["loss/total"]) and np.isfinite(values["gradient_norm"])):
        terms = ", ".join(f"{name.removeprefix('loss/')} {value:g}" for name, value in values.items() if "loss" in name)
        names = [images.annotations[target].file_name for target in np.asarray(batch.targets).tolist()]
        raise FsisError(
            f"step {step}: the loss is not finite ({terms}; gradient norm {values['gradient_norm']:g}) on "
            f"{', '.join(names)}; the last checkpoint is kept: look at these images, or lower "
            "config.optimizer.learning_rate and run again"
        )
    return values
