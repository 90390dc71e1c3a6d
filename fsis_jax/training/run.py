"""A training run, opened where it stopped: all that its loop goes on with."""

import contextlib
import dataclasses
import json
import logging
import pathlib
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.checkpoints import config_file
from fsis_jax.checkpoints.learnt import NOTHING, UNKNOWN, Learnt, learnt_of
from fsis_jax.checkpoints.runs import Checkpoints, has_checkpoint
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.data.from_config import Splits, open_splits, training_batches
from fsis_jax.data.pipeline import BatchIterator
from fsis_jax.errors import FsisError
from fsis_jax.models.detector import Detector
from fsis_jax.training import hosts
from fsis_jax.training.initialise import initialise_from
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.schedule import total_steps
from fsis_jax.training.step import new_state

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a loop needs; closed with the stack that it was opened on."""

    config: ConfigDict
    workdir: pathlib.Path
    splits: Splits
    batches: BatchIterator
    graph: nnx.GraphDef
    parallel: DataParallel
    checkpoints: Checkpoints | None
    """None where nothing is saved."""
    learnt: Learnt
    start: int
    steps: int
    """The last; `config.optimizer.accumulate` of them make an update."""
    lacks_validation: bool
    """The checkpoint that it goes on from was written, but not validated."""

    @property
    def saves(self) -> Checkpoints | None:
        """Where the run's steps are saved, if they are."""
        return self.checkpoints if self.config.training.save else None


def open_run(
    config: ConfigDict, workdir: pathlib.Path, from_step: int | None, stack: contextlib.ExitStack
) -> tuple[Run, TrainState]:
    """The run of a config in `workdir`, at its last sound checkpoint or `from_step`, else at step 0.

    Returns:
        The run, and its state after step `start`: apart, since a step takes the memory of the state that it is given,
        and who else holds that keeps it.

    Raises:
        FsisError: bad data, a checkpoint of another architecture or of other data, no sound one, none of `from_step`.
    """
    with hosts.first_alone() if config.data.synthetic else contextlib.nullcontext():
        splits = open_splits(config)
    # An update takes the gradients of `accumulate` batches.
    steps = total_steps(config) * config.optimizer.accumulate
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
    lacks_validation = False
    if checkpoints and start is not None:
        state = checkpoints.restore(start, state)
        meta = checkpoints.meta(start)
        before = _learnt_before(meta)
        if meta["data_state"] and before.annotations and learnt.annotations[-1] not in before.annotations:
            raise FsisError(
                f"{workdir}: the training images, their annotations or the fold are not those that this run began "
                "with: go on with the same, or give another --workdir"
            )
        learnt = before.and_more(learnt)
        # A converted checkpoint has no data state: the data start where a run of this config would be.
        batches.set_state(meta["data_state"] or {**batches.get_state(), "step": start})
        lacks_validation = bool(hosts.told(bool(meta["data_state"]) and not meta["validation"]))
        _logger.info("going on from step %d of %s", start, workdir)
        if start >= steps:
            _logger.info("config.training.steps is %d: no step is left to take", config.training.steps)
    if jax.process_index() == 0:
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
    run = Run(
        config=config,
        workdir=workdir,
        splits=splits,
        batches=batches,
        graph=graph,
        parallel=parallel,
        checkpoints=checkpoints,
        learnt=learnt,
        start=start or 0,
        steps=steps,
        lacks_validation=lacks_validation,
    )
    return run, state


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
