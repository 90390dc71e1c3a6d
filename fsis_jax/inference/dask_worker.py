"""What runs on the workers of a Dask cluster, for `dask_tiles.py`."""

import collections
import dataclasses
import functools
import threading
from typing import Any

import jax
import numpy as np
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin
from ml_collections import ConfigDict

import fsis_jax
from fsis_jax.cache import surroundings
from fsis_jax.checkpoints.weights import Trained
from fsis_jax.errors import FsisError
from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.job import Job, Work
from fsis_jax.inference.journal import pack_tile
from fsis_jax.inference.opening import open_target
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.intensity import Stretch

_MOST_OPEN = 4
"""Images that a worker keeps open."""


@dataclasses.dataclass(frozen=True)
class Model:
    """What each worker gets once."""

    key: str
    """Of it, in tasks."""
    arrays: dict[str, np.ndarray]
    config: ConfigDict
    fingerprint: str
    """As `Segmenter.fingerprint`."""
    variants: tuple[Variant, ...]
    references: References
    about: dict[str, Any]
    """As `about` told of the first worker."""


@dataclasses.dataclass(frozen=True)
class TilesTask:
    """Some tiles of an image to segment."""

    path: str
    settings: OutputSettings
    pixel_size: float | None
    stretches: tuple[Stretch | None, ...]
    """Of the image's plans; () of one that is read whole."""
    numbers: tuple[int, ...]


def about() -> dict[str, Any]:
    """The version of this package, and what rounding depends on, where it is called."""
    return {"version of fsis_jax": fsis_jax.__version__, **surroundings.of_rounding(jax.local_devices()[0])}


def check_alike(mine: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Raise FsisError where what `about` told of a worker is not as it should be."""
    for name, value in wanted.items():
        if mine.get(name) != value:
            raise FsisError(
                f"Dask's worker {where}: another {name} ({mine.get(name)}) than {value}: results would differ; start "
                "workers that are alike, with this version"
            )


class ModelPlugin(WorkerPlugin):
    """Gives a model to each worker, also to those that come later."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name = model.key

    def setup(self, worker: Worker) -> None:
        """Called by Dask on a worker that starts."""
        _SERVED[self.model.key] = _Served(self.model, str(worker.name), worker.address)

    def teardown(self, worker: Worker) -> None:
        """Called by Dask on a worker that ends, or is to forget the model."""
        _SERVED.pop(self.model.key, None)


def find(key: str, task: TilesTask) -> list[tuple[int, bytes | None]]:
    """Number of each tile of a task, with what was found in it, as `pack_tile` writes it; None where nothing is seen.

    Raises:
        FsisError: the image cannot be read here, or this worker is not like the others.
    """
    return _SERVED[key].find(task)


class _Served:
    """A model on a worker. Tasks are done one at a time: they share a device."""

    def __init__(self, model: Model, worker: str, address: str) -> None:
        self._model, self._worker, self._address = model, worker, address
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[TilesTask, Work[Job]] = collections.OrderedDict()

    @functools.cached_property
    def _segmenter(self) -> Segmenter:
        model, devices = self._model, jax.local_devices()
        check_alike(about(), model.about, self._address)
        number = int(self._worker) if self._worker.isdecimal() else 0  # as of local clusters
        segmenter = Segmenter(
            Trained(model.arrays, model.config, {}),
            model.config,
            variants=model.variants,
            devices=[devices[number % len(devices)]] if len(devices) > 1 else (),
        )
        if segmenter.fingerprint != model.fingerprint:
            raise FsisError(f"Dask's worker {self._address}: has other weights than were sent: start it again")
        return segmenter

    def find(self, task: TilesTask) -> list[tuple[int, bytes | None]]:
        with self._lock:
            whole = self._work(dataclasses.replace(task, numbers=()))
            job = dataclasses.replace(whole.job, only=frozenset(task.numbers))
            work = dataclasses.replace(whole, job=job, parts={})
            for _ in self._segmenter.find_tiles([work]):
                pass
            return [
                (number, None if work.parts[number] is work.nothing else pack_tile(number, work.parts[number]))
                for number in task.numbers
            ]

    def _work(self, task: TilesTask) -> Work[Job]:
        """The image of a task, of which no tile is done; images that were not asked for lately are closed."""
        if task not in self._open:
            image, _ = open_target(task.path, task.settings, self._model.references, warn=False)
            job = Job(image, self._model.references, task.pixel_size, stretches=task.stretches)
            try:
                self._open[task] = self._segmenter.work(job, tile=task.settings.tile)
            except BaseException:
                image.close()
                raise
            while len(self._open) > _MOST_OPEN:
                _, oldest = self._open.popitem(last=False)
                _close(oldest)
        self._open.move_to_end(task)
        return self._open[task]


def _close(work: Work[Job]) -> None:
    if isinstance(work.job.image, ImageFile):
        work.job.image.close()


_SERVED: dict[str, _Served] = {}
