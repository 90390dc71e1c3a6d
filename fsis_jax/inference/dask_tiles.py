"""Tiles on the workers of a Dask cluster (extra `dask`); images are planned, and their results made, in this process.

Each worker gets the model and the references once, by a plugin, which those get too that come later or take the place
of one that died. A task is a few tiles, and only so many are under way that every worker has one more to begin: so
neither the scheduler nor this process fills, however large an image is. A task that is lost with its worker is done
again by another. What is found comes back as a journal has it, so that results are those of one machine, byte for byte,
if that rounds as the workers do.

A scheduler runs what it is sent: who reaches it can run anything on its workers. https://distributed.dask.org
"""

import collections
import dataclasses
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Generic, Self

import jax
import numpy as np
from distributed import Client, Future, wait
from distributed.scheduler import KilledWorker

import fsis_jax
from fsis_jax.errors import FsisError
from fsis_jax.inference.dask_worker import Model, ModelPlugin, TilesTask, about, check_alike, find
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import J, Work
from fsis_jax.inference.journal import unpack_tile
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import NO_REFERENCES, References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_source import SourceLostError, TileSource
from fsis_jax.io.image_file import ImageFile

_MOST_TILES = 8
"""Of a task."""
_LOOK = 5.0
"""Seconds after which is looked again how many workers there are."""
_TIMES = 3
"""How often a task that the scheduler has lost is sent again."""


@dataclasses.dataclass
class _Sent(Generic[J]):
    """An image whose tiles workers are at work on."""

    work: Work[J]
    error: FsisError | None = None

    @property
    def over(self) -> bool:
        return self.error is not None or self.work.done


@dataclasses.dataclass(frozen=True)
class _Flight(Generic[J]):
    """A task that was sent."""

    sent: _Sent[J]
    task: TilesTask
    times: int = 1


class DaskTiles(TileSource):
    """The workers of a cluster, for `segment_from`; a context manager, in which they know the model.

    Args:
        references: of all images.
        client: of the cluster; dask-jobqueue's, dask-cuda's or any other's.
        patience: seconds in which the first worker must have come.

    Raises:
        FsisError: no worker, or workers with other versions or machines.
    """

    def __init__(
        self, segmenter: Segmenter, references: References | None, client: Client, *, patience: float = 300.0
    ) -> None:
        super().__init__(segmenter)
        self._client, self._limit, self._looked = client, 2, -math.inf
        told = _workers(client, patience)
        _, first = min(told.items())
        for address, other in told.items():
            check_alike(other, {**first, "version of fsis_jax": fsis_jax.__version__}, address)
        self._key = f"fsis-{secrets.token_hex(8)}"
        arrays = {name: np.asarray(value) for name, value in jax.device_get(dict(segmenter.arrays)).items()}
        self._model = Model(
            self._key,
            arrays,
            segmenter.config,
            segmenter.fingerprint,
            segmenter.variants,
            references or NO_REFERENCES,
            first,
        )

    def __enter__(self) -> Self:
        self._client.register_plugin(ModelPlugin(self._model))
        return self

    def __exit__(self, *_: object) -> None:
        if self._client.status == "running":
            self._client.unregister_worker_plugin(self._key)

    def candidates(
        self, jobs: Iterable[J], *, settings: OutputSettings, progress: Callable[[J, int, int], object]
    ) -> Iterator[tuple[J, Instances | FsisError]]:
        """As `TileSource.candidates`, in order; tiles of several images are under way at once."""
        sent: collections.deque[_Sent[J]] = collections.deque()
        flying: dict[Future, _Flight[J]] = {}
        tasks = self._tasks(jobs, settings, sent)
        failure, more = None, True
        try:
            while True:
                while more and len(flying) < self._most() and len(sent) <= self._most():
                    try:
                        flight = next(tasks, None)
                    except FsisError as error:  # of the image that was taken last: those before come first
                        failure, flight = error, None
                    more = flight is not None
                    if flight is not None and flight.task.numbers and flight.sent.error is None:
                        self._send(flight, flying)
                while sent and sent[0].over:
                    first = sent.popleft()
                    whole = first.error or first.work.whole(self.segmenter.min_score)
                    first.work.parts.clear()
                    yield first.work.job, whole
                if flying:
                    self._land(flying, progress)
                elif not more and not sent:
                    break
            if failure is not None:
                raise failure
        finally:
            if self._client.status == "running":
                self._client.cancel(list(flying))

    def _tasks(
        self, jobs: Iterable[J], settings: OutputSettings, sent: collections.deque[_Sent[J]]
    ) -> Iterator[_Flight[J]]:
        """All that is to be sent; an image comes to `sent` first, and has one task without tiles if all are done."""
        for job in jobs:
            work = self.segmenter.work(job, tile=settings.tile)
            image = job.image
            if not isinstance(image, ImageFile):
                raise TypeError(f"workers read files, not {type(image).__name__}")
            stretches = tuple(plan.stretch for plan in work.plans) if len(work.tiles) > 1 else ()
            new = _Sent(work)
            sent.append(new)
            left = [number for number in work.wanted if number not in work.parts]
            step = min(max(math.ceil(len(left) / (2 * self._most())), 1), _MOST_TILES)
            task = TilesTask(os.path.abspath(image.path), settings, job.pixel_size, stretches, ())
            for start in range(0, max(len(left), 1), step):
                yield _Flight(new, dataclasses.replace(task, numbers=tuple(left[start : start + step])))

    def _most(self) -> int:
        """How many tasks may be under way: two for each worker."""
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._limit, self._looked = max(2 * len(self._client.nthreads()), 2), now
        return self._limit

    def _send(self, flight: _Flight[J], flying: dict[Future, _Flight[J]]) -> None:
        flying[self._client.submit(find, self._key, flight.task, pure=False)] = flight

    def _land(self, flying: dict[Future, _Flight[J]], progress: Callable[[J, int, int], object]) -> None:
        """Wait for a task, and take what was found."""
        try:
            done, _ = wait(list(flying), timeout=_LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            if self._client.status != "running":
                raise SourceLostError("Dask's scheduler is gone: start it again, and run the same command") from None
            return
        for future in done:
            flight = flying.pop(future, None)
            if flight is None:  # of an image that failed meanwhile
                continue
            work = flight.sent.work
            try:
                found = future.result()
            except FsisError as error:
                self._give_up(flight.sent, error, flying)
            except KilledWorker:
                path = flight.task.path
                died = FsisError(f"{path}: workers died of it, as for lack of memory: see their logs")
                self._give_up(flight.sent, died, flying)
            except CancelledError as error:
                if flight.times == _TIMES or self._client.status != "running":
                    raise SourceLostError("Dask's scheduler loses tasks, or is gone: start it again") from error
                self._send(dataclasses.replace(flight, times=flight.times + 1), flying)
            else:
                for number, packed in found:
                    if packed is None:
                        work.parts[number] = work.nothing
                    else:
                        work.finish(number, unpack_tile(packed)[1])
                progress(work.job, len(work.parts), len(work.wanted))

    def _give_up(self, sent: _Sent[J], error: FsisError, flying: dict[Future, _Flight[J]]) -> None:
        """Of an image that failed nothing more is waited for: its journal is closed when its error is given."""
        sent.error = error
        rest = [future for future, flight in flying.items() if flight.sent is sent]
        for future in rest:
            del flying[future]
        self._client.cancel(rest)


def _workers(client: Client, patience: float) -> dict[str, dict[str, Any]]:
    """What `about` tells of each worker, by its address."""
    try:
        client.wait_for_workers(1, timeout=patience)
        told: dict[str, dict[str, Any] | Exception] = client.run(about, on_error="return")
    except TimeoutError as error:
        raise FsisError(f"Dask's scheduler has no worker after {patience:g} seconds: start some") from error
    for address, answer in told.items():
        if isinstance(answer, Exception):  # whose kind gets lost where the worker cannot even read the question
            why = " ".join(str(answer).split())[:200]
            remedy = f"install fsis_jax {fsis_jax.__version__} there"
            raise FsisError(f"Dask's worker {address}: cannot run this package ({why}): {remedy}") from answer
    return {address: answer for address, answer in told.items() if not isinstance(answer, Exception)}
