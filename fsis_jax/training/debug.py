"""`config.debug`: does everything run? Few images, few steps, one validation, in a folder of its own."""

import logging
import pathlib
import shutil

import jax
from ml_collections import ConfigDict

from fsis_jax.checkpoints import config_file
from fsis_jax.checkpoints.runs import CHECKPOINTS
from fsis_jax.data.from_config import DEBUG_TRAIN, DEBUG_VALIDATION
from fsis_jax.errors import FsisError

STEPS = 20
DEBUG_SUFFIX = "-debug"

_logger = logging.getLogger(__name__)


def debug_run(config: ConfigDict, workdir: pathlib.Path) -> tuple[ConfigDict, pathlib.Path]:
    """The config and the folder of a quick look; `config` stays as it is. The images are `from_config.open_splits`'.

    Raises:
        FsisError: the folder holds a run of another kind.
    """
    config = config.copy_and_resolve_references()
    config.training.steps = STEPS
    config.training.checkpoint_every = STEPS * config.optimizer.accumulate
    config.training.validate_every = 1
    workdir = workdir.with_name(workdir.name + DEBUG_SUFFIX)
    if (workdir / config_file.NAME).exists():  # an earlier look would only be gone on with
        if not config_file.read_config(workdir / config_file.NAME).debug:
            raise FsisError(f"{workdir}: holds a run that is no quick look: rename it, or choose another --workdir")
        if jax.process_index() == 0:
            shutil.rmtree(workdir / CHECKPOINTS, ignore_errors=True)
    _logger.info(
        "config.debug: at most %d training and %d validation images and %d steps, in %s",
        *(DEBUG_TRAIN, DEBUG_VALIDATION, STEPS, workdir),
    )
    return config, workdir
