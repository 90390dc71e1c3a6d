"""The training loop, to be read from top to bottom."""

import contextlib
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.batch import Batch
from fsis_jax.checkpoints import config_file
from fsis_jax.checkpoints.learnt import NOTHING, UNKNOWN, Learnt, learnt_of
from fsis_jax.checkpoints.runs import Checkpoints, has_checkpoint
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.config_check import check_config
from fsis_jax.data.from_config import Splits, open_splits, training_batches
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.protocol import validate
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.models.detector import Detector
from fsis_jax.preprocess.records import Source
from fsis_jax.training import hosts
from fsis_jax.training.debug import debug_run
from fsis_jax.training.initialise import initialise_from
from fsis_jax.training.metrics import MetricWriter
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.progress import Progress
from fsis_jax.training.schedule import learning_rate, total_steps
from fsis_jax.training.step import merged_model, new_state
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
        with hosts.first_alone() if config.data.synthetic else contextlib.nullcontext():
            splits = open_splits(config)
        # An update takes the gradients of `accumulate` batches.
        steps = total_steps(config) * config.optimizer.accumulate
        rate = learning_rate(config)
        resuming = bool(hosts.told(has_checkpoint(workdir)))
        if from_step is not None and not resuming:
            raise FsisError(f"{workdir}: no checkpoint, so none of step {from_step}: leave --step out to train anew")
        if not config.init_from and not resuming:
            _check_scratch(config)
        model = nnx.jit(lambda: Detector(config.model, rngs=nnx.Rngs(config.seed)))()  # one compilation, which is kept
        graph, state, per_device_step = new_state(config, model)
        parallel = DataParallel(per_device_step, config.parallel, batch_size=config.training.batch_size)
        learnt = NOTHING
        if config.init_from and not resuming:
            state, learnt = initialise_from(config.init_from, state, config)
        names = [splits.train.categories[category] for category in splits.seen]
        learnt = learnt.and_then(names, splits.train.annotations)
        batches = stack.enter_context(training_batches(config, splits, steps, rows=parallel.rows))
        checkpoints = None
        if config.training.save or resuming:
            opened = Checkpoints(workdir, read_only=not config.training.save)
            checkpoints = stack.enter_context(contextlib.closing(opened))
        start = _first_step(checkpoints, from_step) if checkpoints else None
        to_validate = False
        if checkpoints is None or start is None:
            start = 0
        else:
            state = checkpoints.restore(start, state)
            meta = checkpoints.meta(start)
            learnt = _learnt_before(meta).and_more(learnt)
            # A converted checkpoint has no data state: the data start where a run of this config would be.
            batches.set_state(meta["data_state"] or {**batches.get_state(), "step": start})
            lacks_validation = bool(meta["data_state"]) and not meta["validation"]
            to_validate = bool(hosts.told(lacks_validation)) and _validates(config, start, steps)
            _logger.info("going on from step %d of %s", start, workdir)
            if start >= steps:
                _logger.info("config.training.steps is %d: no step is left to take", config.training.steps)
        first = jax.process_index() == 0
        if first:
            _note_config(config, workdir)
        _logger.info(
            "%d device(s)%s: %s; %d training and %d validation images; %d steps",
            jax.device_count(),
            f" of {jax.process_count()} processes" if jax.process_count() > 1 else "",
            jax.devices()[0].device_kind,
            len(splits.train),
            len(splits.validation),
            steps,
        )

        state = parallel.put_state(state)
        writer = None
        if first:
            writer = stack.enter_context(contextlib.closing(MetricWriter(workdir, first_step=start)))
            writer.describe("config", json.dumps(config_file.plain_config(config), indent=1))
        progress = stack.enter_context(
            contextlib.closing(Progress(steps, first=start, canvases=config.data.train_canvases, shown=first))
        )
        stopping = stack.enter_context(Termination())

        def validate_step(step: int, host_state: TrainState) -> None:
            """By process 0, while others wait. SIGTERM leaves it for the next start, in all."""
            with contextlib.suppress(SystemExit), stopping.interruptible(), progress.paused():
                if writer:
                    segmenter = Segmenter(merged_model(graph, host_state), config)
                    overlays = workdir / "overlays" / f"{step:06d}"
                    validation = _validate(segmenter, splits, config, overlays)
                    writer.show(step, overlays)
                    writer.write(step, {f"validation/{name}": value for name, value in validation.items()})
                    kind = "mask" if config.model.mask_head.kind != "none" else "box"
                    progress.say(
                        f"step {step}: validation {kind} AP50 {validation[f'{kind}_ap50']:.3f}, "
                        f"F1 {validation['f1']:.3f} at score {validation['min_score']:.2f}"
                    )
                    if checkpoints and config.training.save:
                        checkpoints.record_validation(step, validation)
            hosts.wait(f"validation of step {step}")
            if hosts.told(stopping.asked):
                raise SystemExit(STATUS)

        if to_validate:
            validate_step(start, jax.device_get(parallel.one(state)))
        pending: tuple[int, Any, Batch] | None = None
        for step in range(start + 1, steps + 1):
            batch = next(batches)
            with progress.stepping(batch.images.shape[1:3]):
                state, metrics = parallel.step(state, parallel.put_batch(batch))
            if pending is not None:
                _check_finite(*pending, splits.train)  # One step late, so that the device is never waited for.
            pending = (step, parallel.one(metrics), batch)
            progress.update()
            if step % config.training.log_every == 0 or step == steps:
                values = _check_finite(*pending, splits.train)
                values["images_per_second"] = config.training.batch_size * progress.steps_per_second(step)
                values["learning_rate"] = float(rate((step - 1) // config.optimizer.accumulate))
                if writer:
                    writer.write(step, values)
                progress.show_loss(values["loss/total"])
            due = step % config.training.checkpoint_every == 0 or step == steps
            asked = parallel.agreed(stopping.asked)
            if due or asked:
                _check_finite(*pending, splits.train)
                host_state = jax.device_get(parallel.one(state))
                if checkpoints and config.training.save:
                    checkpoints.save(host_state, config=config, data_state=batches.get_state(), learnt=learnt.plain())
                if asked:
                    _logger.warning("stopped by SIGTERM after step %d: the same command goes on", step)
                    raise SystemExit(STATUS)
                if _validates(config, step, steps):
                    validate_step(step, host_state)
        return jax.device_get(parallel.one(state))


def _first_step(checkpoints: Checkpoints, step: int | None) -> int | None:
    """The step to go on from, which process 0 finds out; None: there is none."""
    found = None
    if jax.process_index() == 0:
        if step is not None:
            checkpoints.go_back_to(step)
        found = checkpoints.latest_sound()
    agreed = int(hosts.told(-1 if found is None else found))
    return None if agreed < 0 else agreed


def _learnt_before(meta: dict[str, Any]) -> Learnt:
    """What the steps up to a checkpoint learnt from; one of a run that did not say is known to be not all."""
    if meta["data_state"] is None and meta.get("partial"):
        return NOTHING
    return learnt_of(meta.get("learnt")) or UNKNOWN


def _check_scratch(config: ConfigDict) -> None:
    """Raise FsisError where a run that starts from random parameters would keep some of them for ever."""
    if config.model.backbone.norm == "frozen":
        raise FsisError(
            "config.model.backbone.norm is 'frozen' and config.init_from is empty: frozen batch norm needs "
            "pretrained weights; give --config.init_from=CHECKPOINT or train from scratch with "
            "--config.model.backbone.norm=group --config.model.backbone.freeze_at=0"
        )
    for key, frozen, remedy in (
        ("training.freeze_backbone", config.training.freeze_backbone, "false"),
        ("model.backbone.freeze_at", config.model.backbone.freeze_at, "0"),
    ):
        if frozen:
            raise FsisError(
                f"config.{key} is {frozen} and config.init_from is empty: random stages would never be trained; give "
                f"--config.init_from=CHECKPOINT or --config.{key}={remedy}"
            )


def _validates(config: ConfigDict, step: int, steps: int) -> bool:
    every = config.training.checkpoint_every * config.training.validate_every
    return step % every == 0 or step == steps


def _validate(segmenter: Segmenter, splits: Splits, config: ConfigDict, overlays: pathlib.Path) -> dict[str, float]:
    return validate(
        segmenter,
        splits.validation,
        splits.train,
        splits.seen,
        shots=config.data.shots,
        seed=config.seed,
        overlays=overlays,
        overlay_count=config.training.overlays,
    )


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


def _note_config(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Keep the config beside the checkpoints; tell what differs from the one that the run began with."""
    path = workdir / config_file.NAME
    if path.exists():
        before = _flatten(json.loads(path.read_text()))
        for key, value in _flatten(config_file.plain_config(config)).items():
            if before.get(key) != value:
                _logger.warning("config.%s is now %r, was %r when the run began", key, value, before.get(key))
    else:
        config_file.write_config(config, workdir)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
