"""Checkpoints: parameters, optimiser, the data iterator's state and the config, by orbax, in `workdir/checkpoints`.

A step folder has three items: `model` (what segmentation and fine-tuning need), `optimizer`, and `meta` (the
config, the data state, and the score threshold found on the validation images). Arrays are stored under flat names
(`flat.py`). Saving is asynchronous and atomic; the last and the best stay.

A checkpoint converted from other weights may be partial (`meta` says so: a backbone alone), which serves to start
training from; one without `optimizer` starts with a fresh one.
"""

import contextlib
import errno
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from fsis_jax.checkpoints.config_file import config_of, plain_config
from fsis_jax.checkpoints.flat import (
    Arrays,
    check_same,
    filled,
    flat_arrays,
    flat_model,
    flat_optimizer,
    with_model,
    with_optimizer,
)
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.checkpoints.weights import Trained, structure
from fsis_jax.config_check import check_config
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import write_failure

Items = Mapping[str, Mapping[str, jax.Array | np.ndarray]]
"""Item of a step folder -> flat name -> array."""

CHECKPOINTS = "checkpoints"
OVERHEAD_BYTES = 1 << 20
"""Upper limit of what a checkpoint takes besides its arrays."""
TEMPORARY_SUFFIX = ".orbax-checkpoint-tmp"
_RES5 = "backbone/stages/3/"
_RES5_OF_HEADS = ("box_head/embedding/blocks/", "mask_head/trunk/blocks/")
"""The last stage in a whole backbone, and where the architecture "c4" has it, once or twice."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        workdir: the run's folder.
        read_only: open to restore only; the folder must exist.
    """

    def __init__(self, workdir: pathlib.Path, *, read_only: bool = False) -> None:
        # What Orbax logs it also raises, except warnings about saves without metrics, which are intended.
        logging.getLogger("absl").addFilter(_not_orbax)
        self.folder = workdir.absolute() / CHECKPOINTS
        self._read_only = read_only
        if read_only and not self.folder.is_dir():
            raise FsisError(f"{workdir}: no folder {CHECKPOINTS!r} in it; give the folder of a training run")
        keep_best = checkpoint_managers.BestN(n=1, get_metric_fn=_ap50, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(1), keep_best]),
            best_fn=_ap50,
            read_only=read_only,
            create=not read_only,
        )
        self._remove_incomplete()
        with _disk_errors(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(
        self, state: TrainState, *, config: ConfigDict, data_state: Any, validation: dict[str, float] | None
    ) -> None:
        """Start to save; `validation` ("mask_ap50" or "box_ap50", "min_score") makes it a candidate for the best."""
        items = {"model": flat_model(state), "optimizer": flat_optimizer(state)}
        self.save_items(int(state.step), items, config=config, data_state=data_state, validation=validation)

    def save_items(
        self,
        step: int,
        items: Items,
        *,
        config: ConfigDict,
        data_state: Any = None,
        validation: dict[str, float] | None = None,
        partial: bool = False,
    ) -> None:
        """Start to save a step folder with these items beside `meta`; `partial`: "model" is not a whole one."""
        meta = {"config": plain_config(config), "data_state": data_state, "validation": validation, "partial": partial}
        arguments = {name: ocp.args.StandardSave(dict(arrays)) for name, arrays in items.items()}
        self.wait()
        with _disk_errors(self.folder):
            # Found out now, since the threads that write would each report a full disk in many lines of their own.
            needed = sum(x.nbytes for arrays in items.values() for x in arrays.values()) + OVERHEAD_BYTES
            if shutil.disk_usage(self.folder).free < needed:
                reason = f"{os.strerror(errno.ENOSPC)}: a checkpoint takes {needed / 1e6:.1f} MB"
                raise OSError(errno.ENOSPC, reason)
            composite = ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(meta))
            self._manager.save(step, args=composite, metrics=validation)

    def wait(self) -> None:
        """Until what was started is on disk."""
        with _disk_errors(self.folder):
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """The last complete step, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best validation mask AP50; the last one if none was validated."""
        best = self._manager.best_step()
        return self.latest() if best is None else best

    def meta(self, step: int) -> dict[str, Any]:
        """The config (as plain JSON), the data state and the validation results of a step."""
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def restore_model(self, step: int, like: nnx.State) -> nnx.State:
        """`like`, the whole state of a detector (shapes are enough), with the arrays of a step.

        Raises:
            FsisError: if names or shapes differ, that is, if the checkpoint is of another architecture, or partial.
        """
        self.check_whole(step)
        return filled(like, self._restore(step, "model", flat_arrays(like)))

    def initialise(self, step: int, state: TrainState) -> TrainState:
        """`state` with the model of a step, to fine-tune; raises as `restore_model` does.

        Of a partial one, what is there: at least the backbone, with all statistics of its norms. Its last stage
        also starts the heads of the architecture "c4", and learned offsets stay as they are in `state`.
        """
        if not self.meta(step).get("partial", False):
            return with_model(state, self._restore(step, "model", flat_model(state)))
        path = self.folder / str(step) / "model"
        stored = self.arrays(step, "model")
        wanted = flat_model(state)
        found = {name: _stored_name(name, stored) for name in wanted}
        needed = {
            source: wanted[name]
            for name, source in found.items()
            if source in stored or (source.startswith("backbone/") and "/offsets" not in source)
        }
        check_same(needed, stored, path)
        taken = {name: jax.numpy.asarray(stored[source]) for name, source in found.items() if source in stored}
        return with_model(state, wanted | taken)

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state of a step, to go on with; raises as `restore_model` does.

        A converted model without an optimiser starts with that of `like`.
        """
        self.check_whole(step)
        state = with_model(like, self._restore(step, "model", flat_model(like)))
        if not (self.folder / str(step) / "optimizer").exists():
            return state
        return with_optimizer(state, self._restore(step, "optimizer", flat_optimizer(like)))

    def arrays(self, step: int, item: str) -> dict[str, np.ndarray]:
        """All arrays of an item by their flat names; empty if the step does not have it."""
        path = self.folder / str(step) / item
        if not path.exists():
            return {}
        handler = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        names = dict(ocp.StandardCheckpointer().metadata(path).item_metadata)
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        return dict(handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy)))

    def close(self) -> None:
        """Wait for pending saves and let go of the folder."""
        try:
            with _disk_errors(self.folder):
                self._manager.close()
        finally:
            self._remove_incomplete()

    def _remove_incomplete(self) -> None:
        """Remove what a killed process or a full disk left of a checkpoint that was never complete."""
        if not self._read_only:
            for path in self.folder.glob(f"*{TEMPORARY_SUFFIX}*"):
                shutil.rmtree(path, ignore_errors=True)

    def check_whole(self, step: int) -> None:
        """Raise FsisError for a partial checkpoint."""
        if self.meta(step).get("partial", False):
            folder = self.folder.parent
            raise FsisError(
                f"{folder}: holds weights to start from (a backbone), not a trained detector; train one by "
                f"`fsis train --config FILE --config.init_from={folder} --workdir NEW`"
            )

    def _restore(self, step: int, item: str, like: Arrays) -> Arrays:
        path = self.folder / str(step) / item
        handler = ocp.StandardCheckpointer()
        check_same(like, dict(handler.metadata(path).item_metadata), path)
        return handler.restore(path, jax.tree.map(ocp.utils.to_shape_dtype_struct, like))


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether a run has a complete checkpoint; unlike `Checkpoints`, makes no folder."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*"))


def open_run(path: pathlib.Path) -> tuple[Checkpoints, int]:
    """The checkpoints and the step meant by `path`: a workdir (its best step) or one of its step folders.

    Raises:
        FsisError: if nothing is there.
    """
    path = path.absolute()
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        workdir, step = path.parent.parent, int(path.name)
    else:
        workdir, step = path, None
    if not workdir.is_dir():
        raise FsisError(f"{path}: no such folder; give the folder of a training run")
    checkpoints = Checkpoints(workdir, read_only=True)
    step = checkpoints.best() if step is None else step
    if step is None or not (checkpoints.folder / str(step)).is_dir():
        raise FsisError(
            f"{path}: no complete checkpoint; train first, by `fsis train --config FILE --workdir {workdir}`"
        )
    return checkpoints, step


def load_run(path: pathlib.Path) -> Trained:
    """The detector of a run's folder (its best step) or of one of its step folders.

    Raises:
        FsisError: nothing is there, or the checkpoint is partial, its config cannot work, or its arrays do not fit it.
    """
    checkpoints, step = open_run(path)
    with contextlib.closing(checkpoints):
        meta = checkpoints.meta(step)
        config = config_of(meta)
        check_config(config, path)
        graph, like = structure(config)
        return Trained(nnx.merge(graph, checkpoints.restore_model(step, like)), config, dict(meta["validation"] or {}))


def _stored_name(name: str, stored: Mapping[str, Any]) -> str:
    """The name under which a partial checkpoint has the array `name` of a model."""
    for head in _RES5_OF_HEADS:
        if name.startswith(head) and name not in stored:
            return _RES5 + name.removeprefix(head)
    return name


def _ap50(metrics: dict[str, float]) -> float:
    """AP50 of masks, or of boxes where the model has no masks."""
    return metrics.get("mask_ap50", metrics.get("box_ap50", 0.0))


@contextlib.contextmanager
def _disk_errors(folder: pathlib.Path) -> Iterator[None]:
    """A full disk surfaces as OSError, or as another type from the storage library's threads."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError):
            if "No space left" not in str(error):
                raise
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise FsisError(
            f"{write_failure(folder, error)}, then run the same command again: checkpoints already there are intact"
        ) from error


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
