"""Checkpoints: parameters, optimiser, the data iterator's state and the config, by orbax, in `workdir/checkpoints`.

A step folder has three items: `model` (what segmentation and fine-tuning need), `optimizer`, and `meta` (the
config and the data state), the digests of their files (`soundness.py`), and, once the step is validated, the results
with the score threshold. Arrays are stored under flat names (`flat.py`). Saving is asynchronous and atomic; the last
two and the best stay. A damaged step is named, and the newest sound one taken in its place.

A checkpoint converted from other weights may be partial (`meta` says so: a backbone alone), which serves to start
training from; one without `optimizer` starts with a fresh one.
"""

import contextlib
import errno
import json
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from fsis_jax.checkpoints.architecture import Architecture
from fsis_jax.checkpoints.config_file import config_of, plain_config
from fsis_jax.checkpoints.flat import (
    Arrays,
    check_same,
    flat_model,
    flat_optimizer,
    with_model,
    with_optimizer,
)
from fsis_jax.checkpoints.learnt import learnt_of
from fsis_jax.checkpoints.soundness import VALIDATION, damage, read_meta, with_digest, write_sums
from fsis_jax.checkpoints.storage import damaged_arrays, described, disk_errors, not_orbax
from fsis_jax.checkpoints.train_state import TrainState
from fsis_jax.checkpoints.weights import Trained
from fsis_jax.config_check import check_config
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write

_logger = logging.getLogger(__name__)

Items = Mapping[str, Mapping[str, jax.Array | np.ndarray]]
"""Item of a step folder -> flat name -> array."""

CHECKPOINTS = "checkpoints"
OVERHEAD_BYTES = 1 << 20
"""Upper limit of what a checkpoint takes besides its arrays."""
TEMPORARY_SUFFIX = ".orbax-checkpoint-tmp"
ASIDE_SUFFIX = ".aside"
"""Of steps that a run does not go on from: damaged ones, and those after the step that it was told to go back to."""
_WAITS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds between tries to remove what a full disk left."""
_OF_MODEL = ("model",)  # what is read of a run to segment or to start from


class Checkpoints:
    """The checkpoints of one run.

    Args:
        workdir: the run's folder.
        read_only: open to restore only; the folder must exist.
    """

    def __init__(self, workdir: pathlib.Path, *, read_only: bool = False) -> None:
        # What Orbax logs it also raises.
        logging.getLogger("absl").addFilter(not_orbax)
        self.folder = workdir.absolute() / CHECKPOINTS
        self._writes = not read_only and jax.process_index() == 0
        if read_only and not self.folder.is_dir():
            raise FsisError(f"{workdir}: no folder {CHECKPOINTS!r} in it; give the folder of a training run")
        self._remove_incomplete()
        with disk_errors(self.folder):
            if self._writes:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = ocp.AsyncCheckpointer(
                ocp.CompositeCheckpointHandler(),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._before_commit),
            )

    def save(self, state: TrainState, *, config: ConfigDict, **about: Any) -> None:
        """Start to save; arguments as for `save_items`."""
        items = {"model": flat_model(state), "optimizer": flat_optimizer(state)}
        self.save_items(int(state.step), items, config=config, **about)

    def save_items(self, step: int, items: Items, *, config: ConfigDict, partial: bool = False, **about: Any) -> None:
        """Start to save a step folder with these items beside `meta`.

        Args:
            partial: "model" is not a whole one.
            about: more of `meta`, as JSON: "data_state"; "learnt" of `Learnt`.
        """
        said = {"data_state": None, "learnt": None, **about}
        meta = {"config": plain_config(config), "partial": partial, "sums": True, **said}
        arguments = {name: ocp.args.StandardSave(dict(arrays)) for name, arrays in items.items()}
        self.wait()
        with disk_errors(self.folder):
            # Found out now, as the threads that write would each report a full disk in many lines.
            needed = sum(x.nbytes for arrays in items.values() for x in arrays.values()) + OVERHEAD_BYTES
            if self._writes and shutil.disk_usage(self.folder).free < needed:
                reason = f"{os.strerror(errno.ENOSPC)}: a checkpoint takes {needed / 1e6:.1f} MB"
                raise OSError(errno.ENOSPC, reason)
            composite = ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(meta))
            self._writer.save(self.folder / str(step), args=composite)

    def record_validation(self, step: int, results: dict[str, float]) -> None:
        """Add what the validation of a step gave ("mask_ap50" or "box_ap50", "min_score"), once it is on disk."""
        self.wait()
        with atomic_write(self.folder / str(step) / VALIDATION) as file:
            file.write(json.dumps(with_digest(results), indent=1).encode())
        self._remove_old()

    def wait(self) -> None:
        """Until what was started is on disk."""
        with disk_errors(self.folder):
            self._writer.wait_until_finished()
        self._remove_old()

    def steps(self) -> list[int]:
        """The complete steps, in order; some may be damaged."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit() and path.is_dir())

    def best(self) -> int | None:
        """The step with the best validation mask AP50; the last one if none was validated, None if there is none."""
        steps = self.steps()
        validated = [(_ap50(results), step) for step in steps if (results := self._results(step))]
        return max(validated)[1] if validated else max(steps, default=None)

    def latest_sound(self) -> int | None:
        """The last step that is not damaged, to go on from; None if there are no steps at all.

        Damaged ones after it are named in a warning, and renamed: what the run writes next would else be taken for
        older than they are.

        Raises:
            FsisError: all are damaged.
        """
        for step in reversed(steps := self.steps()):
            found = damage(self.folder / str(step))
            if not found:
                return step
            _logger.warning("%s: a damaged checkpoint (%s)%s", self.folder / str(step), found, self._set_aside(step))
        if steps:
            raise FsisError(
                f"{self.folder}: all {len(steps)} checkpoints are damaged: copy them again from where they came, or "
                "give another --workdir to train anew"
            )
        return None

    def go_back_to(self, step: int) -> None:
        """Rename the steps after `step`, so that the run goes on from there.

        Raises:
            FsisError: there is no such step, or it is damaged.
        """
        self.check_sound(step)
        for later in self.steps():
            if later > step:
                _logger.info("%s: not gone on from%s", self.folder / str(later), self._set_aside(later))

    def check_sound(self, step: int, items: Collection[str] = ()) -> None:
        """Raise FsisError for a step that is not there or damaged; `items` as for `damage`."""
        others = ", ".join(map(str, self.steps())) or "none"
        if step not in self.steps():
            raise FsisError(f"{self.folder}: there is no step {step}; there are {others}")
        found = damage(self.folder / str(step), items)
        if found:
            raise FsisError(f"{self.folder / str(step)}: a damaged checkpoint ({found}): choose another of {others}")

    def meta(self, step: int) -> dict[str, Any]:
        """The config (as plain JSON), the data state and the validation results of a step."""
        return {"validation": None, **read_meta(self.folder / str(step))}

    def model_arrays(self, step: int, like: Mapping[str, Any]) -> Arrays:
        """The arrays of a step's detector by their flat names.

        Args:
            like: those of a detector of its config; shapes and types are enough.

        Raises:
            FsisError: if names or shapes differ, that is, if the checkpoint is of another architecture, or partial.
        """
        self.check_whole(step)
        return self._restore(step, "model", like)

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state of a step, to go on with; raises as `model_arrays` does.

        A converted model without an optimiser starts with that of `like`.
        """
        self.check_whole(step)
        state = with_model(like, self._restore(step, "model", flat_model(like)))
        if not (self.folder / str(step) / "optimizer").exists():
            _logger.info("%s: converted weights without an optimizer, which starts afresh", self.folder / str(step))
            return state
        return with_optimizer(state, self._restore(step, "optimizer", flat_optimizer(like)))

    def arrays(self, step: int, item: str) -> dict[str, np.ndarray]:
        """All arrays of an item by their flat names; empty if the step does not have it."""
        path = self.folder / str(step) / item
        if not path.exists():
            return {}
        handler = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        with damaged_arrays(str(path)):
            names = described(path)
            as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
            return dict(handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy)))

    def close(self) -> None:
        """Wait for pending saves and let go of the folder."""
        try:
            self.wait()
        finally:
            self._writer.close()
            self._remove_incomplete()

    def _before_commit(self) -> None:
        for folder in self.folder.glob(f"*{TEMPORARY_SUFFIX}*"):  # there is one
            write_sums(folder)

    def _set_aside(self, step: int) -> str:
        """Rename a step, where this process may; what was done, for the message that says so."""
        if not self._writes:
            return ""
        aside = self.folder / f"{step}{ASIDE_SUFFIX}"
        with disk_errors(self.folder):
            if aside.exists():
                shutil.rmtree(aside)
            (self.folder / str(step)).rename(aside)
        return f": renamed to {aside.name}"

    def _results(self, step: int) -> dict[str, float]:
        """The validation results of a step; empty if there are none, or, with a warning, none that can be read."""
        try:
            return self.meta(step)["validation"] or {}
        except FsisError as error:
            _logger.warning(error)
            return {}

    def _remove_old(self) -> None:
        """Remove all steps but the last two and the best."""
        if self._writes:
            for step in self.steps()[:-2]:
                if step != self.best():
                    shutil.rmtree(self.folder / str(step), ignore_errors=True)

    def _remove_incomplete(self) -> None:
        """Remove what a killed process or a full disk left of a checkpoint that was never complete."""
        if self._writes:
            for path in self.folder.glob(f"*{TEMPORARY_SUFFIX}*"):
                for wait in _WAITS:  # threads of the library may be at their last files
                    shutil.rmtree(path, ignore_errors=True)
                    if not path.exists():
                        break
                    time.sleep(wait)

    def check_whole(self, step: int) -> None:
        """Raise FsisError for a partial checkpoint."""
        if self.meta(step).get("partial", False):
            raise FsisError(
                f"{self.folder.parent}: holds weights to start from (a backbone), not a trained detector; train one by "
                f"`fsis train --config FILE --config.init_from={self.folder.parent} --workdir NEW`"
            )

    def _restore(self, step: int, item: str, like: Mapping[str, Any]) -> Arrays:
        path = self.folder / str(step) / item
        with damaged_arrays(str(path)):  # one without sums tells of its damage only here
            check_same(like, described(path), path)
            return ocp.StandardCheckpointer().restore(path, jax.tree.map(ocp.utils.to_shape_dtype_struct, like))


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether a run has a complete checkpoint; unlike `Checkpoints`, makes no folder."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*"))


def open_run(path: pathlib.Path) -> tuple[Checkpoints, int]:
    """The checkpoints and the step meant by `path`: a workdir (its best sound step) or one of its step folders.

    Damaged steps that would have come before are named in warnings.

    Raises:
        FsisError: if nothing is there, or all of it is damaged.
    """
    path, step = path.absolute(), None
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        workdir, step = path.parent.parent, int(path.name)
    else:
        workdir = path
    if not workdir.is_dir():
        raise FsisError(f"{path}: no such folder; give the folder of a training run")
    checkpoints = Checkpoints(workdir, read_only=True)
    if not checkpoints.steps():
        raise FsisError(
            f"{path}: no complete checkpoint; train first, by `fsis train --config FILE --workdir {workdir}`"
        )
    if step is not None:
        checkpoints.check_sound(step, _OF_MODEL)
        return checkpoints, step
    best = checkpoints.best()
    for step in sorted(checkpoints.steps(), key=lambda step: (step == best, step), reverse=True):
        found = damage(checkpoints.folder / str(step), _OF_MODEL)
        if not found:
            return checkpoints, step
        _logger.warning("%s: a damaged checkpoint (%s): another one is taken", checkpoints.folder / str(step), found)
    raise FsisError(f"{path}: all checkpoints are damaged: copy them again from where they came, or train anew")


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
        arrays = checkpoints.model_arrays(step, Architecture.of(config.model).shapes())
        return Trained(arrays, config, dict(meta["validation"] or {}), learnt_of(meta.get("learnt")))


def _ap50(metrics: dict[str, float]) -> float:
    """AP50 of masks, or of boxes where the model has no masks."""
    return metrics.get("mask_ap50", metrics.get("box_ap50", 0.0))
