"""`config.debug`: does everything run? Few images, few steps, one validation, in a folder of its own."""

import logging
import pathlib
import shutil

from ml_collections import ConfigDict

from fsis_jax.data.from_config import DEBUG_TRAIN, DEBUG_VALIDATION
from fsis_jax.training.checkpoint import FOLDER

STEPS = 20
SUFFIX = "-debug"

logger = logging.getLogger("fsis_jax")


def debug_run(config: ConfigDict, workdir: pathlib.Path) -> tuple[ConfigDict, pathlib.Path]:
    """The config and the folder of a quick look; `config` stays as it is. The images are `from_config.open_splits`'."""
    config = config.copy_and_resolve_references()
    config.training.steps = STEPS
    config.training.checkpoint_every = STEPS * config.optimizer.accumulate
    config.training.validate_every = 1
    workdir = workdir.with_name(workdir.name + SUFFIX)
    shutil.rmtree(workdir / FOLDER, ignore_errors=True)  # of an earlier look, which would only be gone on with
    logger.info(
        "config.debug: at most %d training and %d validation images and %d steps, in %s",
        *(DEBUG_TRAIN, DEBUG_VALIDATION, STEPS, workdir),
    )
    return config, workdir
