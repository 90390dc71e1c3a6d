"""The public Python interface: show one to five crops of a cell, segment every cell like it in any image.

    segmenter = Segmenter.from_pretrained()
    references = segmenter.encode_boxes(image, [(120, 80, 164, 131)])
    instances = segmenter.segment(image, references)

References, boxes in an image or crops (`encoder.py`), are encoded once and reused for any number of images and tiles. A
closed-set detector (`config.model.classes`) takes none: `segmenter.segment(image)` finds the instances of all its
categories. A large image is read in tiles (`tiling.py`). Host and device work at the same time, over tiles and images:
the device is given one batch ahead (JAX returns at once), and the host reads, resizes and pastes meanwhile. Several
devices take turns.
"""

import collections
import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from ml_collections import ConfigDict

from fsis_jax.checkpoints.architecture import Architecture, Arrays
from fsis_jax.checkpoints.learnt import Learnt
from fsis_jax.checkpoints.weights import Trained, load_weights
from fsis_jax.inference.augmentation import Variant
from fsis_jax.inference.causes import warn_of_sizes
from fsis_jax.inference.encoder import Encoder
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import J, Job, TileBatch, Work
from fsis_jax.inference.pasting import nothing_found, paste_tile
from fsis_jax.inference.programs import Network
from fsis_jax.inference.references import NO_REFERENCES, References
from fsis_jax.inference.tidying import WHOLE_CELLS, Tidying
from fsis_jax.inference.tile_plan import TilePlan, plan_each_size, plan_tiles
from fsis_jax.inference.tiling import Tile
from fsis_jax.io.atomic import user_path
from fsis_jax.io.given import ImageLike, as_image, known_pixel_size
from fsis_jax.models.arrays import Detections
from fsis_jax.pretrained import default_weights, find_weights

if TYPE_CHECKING:
    from fsis_jax.models.detector import Detector

DEFAULT_MIN_SCORE = 0.5
"""Used where a checkpoint was never validated."""
GPU_TILE_BATCH = 4
"""Tiles in one call of a device other than a CPU, unless told otherwise."""


class Segmenter(Encoder):
    """A trained detector with its preprocessing.

    Args:
        model: the detector, or a trained one that need not be built.
        config: the config that it was trained with.
        min_score: score from which an instance counts, unless told otherwise.
        tile_batch: tiles of a large image in one call of the device. 0: 1 on a CPU, else `GPU_TILE_BATCH`.
        variants: in which other ways each image is shown too; the results are those of all together.
        devices: that take batches in turn; (): JAX's default device.
        learnt: the training data of the model, where it is known.
    """

    def __init__(
        self,
        model: "Detector | Trained",
        config: ConfigDict,
        *,
        min_score: float = DEFAULT_MIN_SCORE,
        tile_batch: int = 0,
        variants: Sequence[Variant] = (),
        devices: Sequence[jax.Device] = (),
        learnt: Learnt | None = None,
    ) -> None:
        self.learnt = learnt
        trained = model if isinstance(model, Trained) else Trained.of(model, config, {})
        self._architecture = Architecture.of(config.model)
        super().__init__(Network(self._architecture, trained.arrays, devices), config)
        self.min_score = min_score
        self.tile_batch = tile_batch or (1 if jax.default_backend() == "cpu" else GPU_TILE_BATCH)
        self.variants = tuple(variants)
        self._offset = int(config.model.legacy_boxes)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> "Segmenter":
        """From a training run's folder (its best step) or one of its step folders.

        Raises:
            FsisError: if nothing is there, or the checkpoint's arrays do not fit its config.
        """
        from fsis_jax.checkpoints.runs import load_run  # orbax takes a second to import, and weights files need it not

        return cls._of(load_run(user_path(os.fspath(path))))

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None) -> "Segmenter":
        """From weights that come with the package, from a weights file, or from a run as `from_checkpoint`.

        Args:
            name_or_path: a name of `pretrained.SHIPPED`, or a path; None: what the environment variable FSIS_WEIGHTS
                says, else "cells-base".

        Raises:
            FsisError: nothing is there, or it is damaged, or its arrays do not fit its config.
        """
        source = default_weights() if name_or_path is None else name_or_path
        file = find_weights(source)
        return cls.from_checkpoint(source) if file is None else cls._of(load_weights(file))

    @classmethod
    def _of(cls, trained: Trained) -> "Segmenter":
        min_score = trained.validation.get("min_score", DEFAULT_MIN_SCORE)
        return cls(trained, trained.config, min_score=min_score, learnt=trained.learnt)

    def with_options(
        self,
        *,
        min_score: float | None = None,
        variants: Sequence[Variant] | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> "Segmenter":
        """The same detector used in another way, as the constructor says; None: as this one, which does not change."""
        other = copy.copy(self)  # with the fingerprint, which is of none of these
        other.min_score = self.min_score if min_score is None else min_score
        other.variants = self.variants if variants is None else tuple(variants)
        if devices is not None:
            other._network = self._network.on(devices)
        return other

    @property
    def arrays(self) -> Arrays:
        """Of the detector, by their flat names."""
        return self._network.arrays

    @property
    def devices(self) -> list[jax.Device]:
        """Those that take batches in turn."""
        return self._network.devices

    @property
    def model(self) -> "Detector":
        """A detector of the same parameters, to look inside; what is done to it changes nothing here."""
        return self._architecture.model(self._network.arrays)

    def segment(
        self,
        image: ImageLike,
        references: References | Sequence[ImageLike] | None = None,
        *,
        pixel_size: float | None = None,
        tile: int = 0,
        min_score: float | None = None,
        tidying: Tidying = WHOLE_CELLS,
    ) -> Instances:
        """Every cell like the references, with masks at the image's own resolution; no pixel is in two of them.

        Args:
            image: (H, W) or (H, W, 3 or 4), any dtype; an array, what is read when it is sliced (`open_image`), a
                nested list, a PIL image or a path.
            references: encoded, of one kind or several, or crops; None for a closed-set detector.
            pixel_size: micrometres per pixel of the image, None: as it says itself, if it is of `open_image`; counts
                where the references have theirs too.
            tile: as for `candidates`.
            min_score: score from which an instance counts: 0 gives those of any score; None takes the model's.
            tidying: what is done to masks, and which instances are left out.
        """
        job = Job(image, references, pixel_size)
        return next(self.segment_all([job], tile=tile, min_score=min_score, tidying=tidying))[1]

    def segment_all(
        self,
        jobs: Iterable[J],
        *,
        tile: int = 0,
        min_score: float | None = None,
        tidying: Tidying = WHOLE_CELLS,
        progress: Callable[[J, int, int], object] | None = None,
    ) -> Iterator[tuple[J, Instances]]:
        """`segment` for one image after the other: of `candidates` those that count (`Tidying`)."""
        threshold = self.min_score if min_score is None else min_score

        def counted(result: tuple[J, Instances]) -> tuple[J, Instances]:
            return result[0], tidying(result[1], threshold)

        return map(counted, self.candidates(jobs, tile=tile, progress=progress))

    def candidates(
        self, jobs: Iterable[J], *, tile: int = 0, progress: Callable[[J, int, int], object] | None = None
    ) -> Iterator[tuple[J, Instances]]:
        """All that is found in one image after the other, of any score; masks may overlap.

        Average precision looks at these, and `Instances.without_overlaps` counts from any threshold among them. The
        images come in order, with the host and the device at work at the same time.

        An image is taken from `jobs` while the device works on the one before it, and no sooner: at most two are held
        (of n devices n + 1). If that fails, the result of the one before is given first, and then the error raised.

        Where the scale follows the references, an image that is larger than the largest of `data.test_canvases` at that
        scale is read in tiles, which overlap by `data.tile_overlap` times the longest side of a reference; the limit
        `model.detections.max_instances` is then each tile's. Tiles that show nothing are left out (`tile_plan.py`).

        Args:
            jobs: images, each with its references.
            tile: largest side of tiles in pixels of the image. Each tile is then prepared as an image of its own, apart
                from its intensities: so a model with a fixed shortest side reads large images. 0 leaves it to the
                model.
            progress: called with the job and the number of its finished tiles and of all its tiles, now and then.

        Yields:
            Each job, with what was found. `Instances.min_score` is the model's.

        Raises:
            FsisError: a shape that is no image's, a `tile` of less than 32 pixels, references of another model, none
                where the model needs some, or some where it takes none; here, in `segment` and in `segment_all`.
        """
        works = (self.work(job, tile=tile) for job in jobs)
        for work in self.find_tiles(works, progress=progress):
            whole = work.whole(self.min_score)
            work.parts.clear()  # whoever gets the result may take its time
            yield work.job, whole

    def find_tiles(
        self, works: Iterable[Work[J]], *, progress: Callable[[J, int, int], object] | None = None
    ) -> Iterator[Work[J]]:
        """`candidates` of images that are planned (`work`), without joining their tiles.

        Yields:
            Each image, when those of its tiles are done that its job wants.
        """
        running: collections.deque[TileBatch[J]] = collections.deque()
        batches = self._batches(works)
        while True:
            batch = None
            try:
                batch = next(batches, None)
            finally:
                while running and (batch is None or len(running) == len(self._network)):
                    oldest = running.popleft()
                    self._finish(oldest, progress)
                    if oldest.work.done:
                        yield oldest.work
            if batch is None:
                return
            running.append(batch)

    def found_so_far(self, job: Job, *, tile: int = 0) -> Instances:
        """The candidates that the journal of an image has; at the borders of the finished tiles they may be cut."""
        return self.work(job, tile=tile).whole(self.min_score)

    def plan(
        self, image: ImageLike, references: References | None = None, *, pixel_size: float | None = None, tile: int = 0
    ) -> TilePlan:
        """How an image is read: its scale (of mixed references their median's) and its tiles. As for `segment`."""
        self.check_references(references)
        image = as_image(image)
        size = known_pixel_size(image, pixel_size)
        sides = (references or NO_REFERENCES).sides_in(size)
        return plan_tiles(image, sides, self.config, self._transform, tile, pixel_size=size)

    def detect(self, plan: TilePlan, images: Sequence[np.ndarray], references: References | None = None) -> Detections:
        """What the network finds in prepared tiles of an image, without `variants`: numpy arrays, a row for each tile.

        Boxes are in pixels of the image, from the corner of the tile; masks are probabilities laid over them.
        """
        known = references or NO_REFERENCES
        found = self._network.find(plan, [[image] for image in images], known, [Variant()], len(images))
        return jax.device_get(found)

    def paste(
        self, plan: TilePlan, tile: Tile, detections: Detections, row: int, references: References | None = None
    ) -> Instances:
        """The instances that a tile answers for, in its pixels; `tiling.merge_tiles` joins those of all."""
        known, offset = references or NO_REFERENCES, self._offset
        return paste_tile(plan, tile, detections, row, self.config, known, offset=offset, min_score=self.min_score)

    def work(self, job: J, *, tile: int = 0) -> Work[J]:
        """How an image is read, and what its journal has. As for `candidates`."""
        references = NO_REFERENCES if job.references is None else job.references
        if not isinstance(references, References):
            references = self.encode_references(references)
        self.check_references(references)
        image = as_image(job.image)
        size = known_pixel_size(image, job.pixel_size)
        sides = references.sides_in(size)
        if references.pixel_size is not None:
            warn_of_sizes(sides, self._transform, self._told, owners=references.owners)
        plans = plan_each_size(image, sides, self.config, self._transform, tile, references.owners, pixel_size=size)
        if job.stretches:
            plans = [
                dataclasses.replace(plan, known_stretch=known) for plan, known in zip(plans, job.stretches, strict=True)
            ]
        return Work(job, plans, references, nothing_found(plans[0], self.config, references))

    def _batches(self, works: Iterable[Work[J]]) -> Iterator[TileBatch[J]]:
        """Batches that the device was given, each prepared when it is asked for."""
        for work in works:
            given = False
            for plan, tiles, images in work.prepared(self.tile_batch, self.variants):
                # An image that is read whole is a batch of its own: one alone and one of many run the same program.
                size = self.tile_batch if len(plan.tiles) > 1 else 1
                found = self._network.find(plan, images, work.references, (Variant(), *self.variants), size)
                yield TileBatch(work, tiles, found)
                given = True
            if not given:
                yield TileBatch(work, [], None)

    def _finish(self, batch: TileBatch[J], progress: Callable[[J, int, int], object] | None) -> None:
        """Wait for a batch and paste its masks."""
        work, detections = batch.work, jax.device_get(batch.detections)
        for row, number in enumerate(batch.tiles):
            work.finish(number, self.paste(*work.tiles[number], detections, row, work.references))
            if progress is not None:
                progress(work.job, len(work.parts), len(work.wanted))
