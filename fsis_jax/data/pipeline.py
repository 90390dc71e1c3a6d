"""Batches of episodes, made by Grain in worker processes, resumable at any step.

Batch n is a pure function of (seed, n): which targets form it, their episodes, and every random number of their
transforms. So the state of the iterator is one number, and neither the number of workers nor an interruption changes
what is trained on.
"""

import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import jax
import numpy as np
from absl import flags

from fsis_jax.batch import Batch
from fsis_jax.data.closed_set import ClosedSetSampler
from fsis_jax.data.episodes import EpisodeSampler, shuffled
from fsis_jax.data.examples import ImageCache, training_example
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.aspect import bounded_size
from fsis_jax.preprocess.records import Source
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import Canvases, choose_canvas, scaled_size, shortest_side_scale

# Streams of random numbers; those of the episodes start at 1 (episodes.py).
_TRANSFORM_STREAM, _BUCKET_STREAM = 11, 12


class BatchOrder:
    """The canvas and the targets of every batch: `order(step)`, a pure function of (seed, step).

    All images of a batch share a canvas, so targets are sorted into one bucket per canvas. Over as many batches as
    there are targets, a bucket of n targets gives n batches, spread evenly; within a bucket targets come in seeded
    permutations. Every target thus is used equally often, about once per epoch, whatever the sizes of the buckets.
    """

    def __init__(self, buckets: Mapping[tuple[int, int], Sequence[int]], batch_size: int, seed: int) -> None:
        self._buckets = sorted((canvas, tuple(targets)) for canvas, targets in buckets.items())
        self._batch_size = batch_size
        self._seed = seed
        self._counts = np.array([len(targets) for _, targets in self._buckets])

    def __call__(self, step: int) -> tuple[tuple[int, int], tuple[int, ...]]:
        cycle, place = divmod(step, int(self._counts.sum()))
        labels = _bucket_cycle(tuple(self._counts.tolist()), self._seed, cycle)
        bucket = int(labels[place])
        earlier = cycle * int(self._counts[bucket]) + int((labels[:place] == bucket).sum())
        canvas, targets = self._buckets[bucket]
        first = earlier * self._batch_size
        chosen = [shuffled(targets, first + i, seed=self._seed, stream=bucket) for i in range(self._batch_size)]
        return canvas, tuple(chosen)


@functools.lru_cache(maxsize=4)
def _bucket_cycle(counts: tuple[int, ...], seed: int, cycle: int) -> np.ndarray:
    """The bucket of each batch of a cycle: bucket b counts[b] times, one in every counts[b]-th part of it."""
    rng = np.random.default_rng((seed, _BUCKET_STREAM, cycle))
    labels = np.repeat(np.arange(len(counts)), counts)
    times = np.concatenate([(np.arange(count) + rng.random(count)) / count for count in counts])
    return labels[np.argsort(times, kind="stable")]


def bucket_targets(
    source: Source, targets: Sequence[int], config: TransformConfig, canvases: Canvases
) -> dict[tuple[int, int], list[int]]:
    """Targets by training canvas: that of the resized (and cropped) image, or, with scale="reference", the only canvas.

    Raises:
        FsisError: no canvas is large enough, or there are several to choose from with scale="reference".
    """
    if config.scale == "reference":
        if len(canvases) != 1:
            raise FsisError(
                f"training canvases {canvases}: with scale='reference' the scale is drawn per example; give one canvas"
            )
        return {choose_canvas((0, 0), canvases): list(targets)}
    buckets: dict[tuple[int, int], list[int]] = {}
    for target in targets:
        record = source.annotations[target]
        size = bounded_size((record.height, record.width), config.aspect_bounds)
        canvas = choose_canvas(scaled_size(size, shortest_side_scale(size, config)), canvases)
        buckets.setdefault(canvas, []).append(target)
    return buckets


class _BatchSource:
    """Random access to batches, for Grain."""

    def __init__(
        self,
        source: Source,
        sampler: EpisodeSampler | ClosedSetSampler,
        order: BatchOrder,
        config: TransformConfig,
        *,
        trainable: Sequence[int],
        batch_size: int,
        rows: Sequence[int],
        steps: int,
        seed: int,
        cache_bytes: int,
    ) -> None:
        self._sampler = sampler
        self._order = order
        self._config = config
        self._trainable = trainable
        self._batch_size = batch_size
        self._rows = rows
        self._steps = steps
        self._seed = seed
        self._cache = ImageCache(source, config, max_bytes=cache_bytes)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        canvas, targets = self._order(step)
        examples = []
        for row in self._rows:
            sample = step * self._batch_size + row
            example = training_example(
                self._cache,
                self._sampler.episode(sample, targets[row]),
                self._config,
                canvas=canvas,
                trainable=self._trainable,
                rng=np.random.default_rng((self._seed, _TRANSFORM_STREAM, sample)),
            )
            examples.append({**example, "sample_ids": np.array(sample, np.int32)})
        return Batch(**{f.name: np.stack([e[f.name] for e in examples]) for f in dataclasses.fields(Batch)})


def _start_worker(worker: int, workers: int) -> None:
    """Runs first in each worker process."""
    # A worker that touched the GPU would take its memory away from the training process.
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    cv2.setNumThreads(1)
    # They often go to all processes of a job; it is the trainer that obeys.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that trains has ended, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class BatchIterator(Iterator[Batch]):
    """Iterator of `Batch` of numpy arrays; `make_batches` makes it. Close it, or use it in a `with` statement."""

    def __init__(self, source: _BatchSource, *, workers: int, identity: dict[str, int]) -> None:
        self._source = source
        self._workers = workers
        self._identity = identity
        self._step = 0
        self._iterator: Any = None

    def __next__(self) -> Batch:
        if self._step >= len(self._source):
            self.close()
            raise StopIteration
        if self._iterator is None:
            self._iterator = iter(self._dataset())
        batch: Batch = next(self._iterator)
        self._step += 1
        return batch

    def _dataset(self) -> grain.IterDataset:
        # One thread: the image cache is not shared between threads, and numpy work gains nothing from more.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        dataset = grain.MapDataset.source(self._source)[self._step :].to_iter_dataset(options)
        if not self._workers:
            return dataset
        # Arrays come through a pipe: a file of shared memory for each would outlive processes that are killed.
        through_pipe = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, through_pipe)
        workers = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
        return dataset.mp_prefetch(workers, worker_init_fn=_start_worker)

    def get_state(self) -> dict[str, int]:
        """What `set_state` needs to go on after the last batch that was handed out; plain JSON."""
        return {"step": self._step, **self._identity}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes on where `state` was taken.

        Raises:
            FsisError: the state was taken from a run with another seed, batch size or data set.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise FsisError(
                    f"data state: {name} was {state.get(name)} and is now {value}; resume with the same or start afresh"
                )
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stops the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_batches(
    source: Source,
    sampler: EpisodeSampler | ClosedSetSampler,
    config: TransformConfig,
    *,
    trainable: Collection[int],
    canvases: Canvases,
    batch_size: int,
    steps: int,
    workers: int,
    seed: int,
    rows: Sequence[int] | None = None,
    cache_bytes: int = 128 << 20,
) -> BatchIterator:
    """Batches 0 ... steps - 1 of training on the sampler's targets.

    Args:
        trainable: ids of the categories that may be learnt, for a closed-set detector in the order of its classes;
            instances of others are ignored.
        canvases: see `bucket_targets`.
        rows: those of each batch that are made, where other processes make the others; None: all.
        workers: processes; 0 makes the batches in a thread of this one.
        cache_bytes: decoded images that each worker keeps.
    """
    if not flags.FLAGS.is_parsed():
        # Grain's worker processes read absl flags, which nobody parses where this is used as a library.
        flags.FLAGS.mark_as_parsed()
    order = BatchOrder(bucket_targets(source, sampler.targets, config, canvases), batch_size, seed)
    batches = _BatchSource(
        source,
        sampler,
        order,
        config,
        trainable=tuple(trainable),
        batch_size=batch_size,
        rows=range(batch_size) if rows is None else rows,
        steps=steps,
        seed=seed,
        cache_bytes=cache_bytes,
    )
    identity = {"seed": seed, "batch_size": batch_size, "targets": len(sampler.targets)}
    return BatchIterator(batches, workers=workers, identity=identity)
