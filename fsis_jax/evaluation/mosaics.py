"""Test images that show cells of several categories: mosaics of real pixels, for data whose images show one each.

A mosaic is 2 x 2 panels of different categories. A panel is a square window of a test image at its own resolution,
stretched between the image's percentiles as a whole image would be, so that a dark panel is seen beside a bright one.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from fsis_jax.errors import FsisError
from fsis_jax.evaluation.predictions import read_target, shown
from fsis_jax.preprocess.records import Annotations, Record, Source
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import to_8bit
from fsis_jax.preprocess.windows import Window, decode_columns, random_window, touching

LEAST_VISIBLE = 0.1
"""A cell of which a panel shows a smaller share is not one to find; what is left of it counts as background."""


class Mosaics:
    """`count` mosaics of the images of a source: itself a source. A pure function of its arguments.

    Every category comes equally often, as far as the count allows.

    Args:
        source: test images.
        side: of a panel in pixels, or the shortest side of its four images if that is less.

    Raises:
        FsisError: images of fewer than four categories.
    """

    def __init__(self, source: Source, count: int, *, side: int = 256, seed: int = 0) -> None:
        self.categories = source.categories
        self.folds = source.folds
        single: dict[int, list[int]] = {}
        for position in range(len(source)):
            held = shown(source, position)
            if len(held) == 1:
                single.setdefault(held.pop(), []).append(position)
        if len(single) < 4:
            raise FsisError(
                f"mosaics need test images of four categories, each showing one alone; there are {len(single)}: "
                "set config.eval.mosaics to 0"
            )
        turns = _turns(np.random.default_rng((seed, 0)), sorted(single))
        made = [self._make(source, single, next(turns), side, seed, number) for number in range(1, count + 1)]
        self.annotations = [record.annotations for record in made]
        self._records = made

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Record:
        return self._records[index]

    @staticmethod
    def _make(
        source: Source, images: dict[int, list[int]], categories: Sequence[int], side: int, seed: int, number: int
    ) -> Record:
        rng = np.random.default_rng((seed, number))
        chosen = [int(rng.choice(images[category])) for category in categories]
        side = min(side, *(min(source.annotations[row].height, source.annotations[row].width) for row in chosen))
        pixels = np.zeros((2 * side, 2 * side, 3), np.uint8)
        parts = []
        for (y, x), position in zip(itertools.product((0, side), (0, side)), chosen, strict=True):
            record = source.annotations[position]
            anchor = record.boxes[rng.integers(len(record.boxes))]
            window = random_window(rng, (record.height, record.width), (side, side), anchor)
            levels = to_8bit(read_target(source, position), TransformConfig(intensity="percentile"))
            panel = levels[window.y0 : window.y1, window.x0 : window.x1]
            pixels[y : y + side, x : x + side] = panel if panel.ndim == 3 else panel[..., None]
            parts.append(_instances(record, window, (y, x), pixels.shape[:2]))
        name = f"mosaic_{number:03d}.png"
        return Record(
            _join(parts, number, name, pixels.shape[:2]), cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        )


def _turns(rng: np.random.Generator, categories: Sequence[int]) -> Iterator[list[int]]:
    """Four different categories at a time; each comes once in as many places as there are categories."""
    waiting: list[int] = []
    while True:
        taken: list[int] = []
        while len(taken) < 4:
            if all(category in taken for category in waiting):
                waiting += rng.permutation(categories).tolist()
            following = next(category for category in waiting if category not in taken)
            waiting.remove(following)
            taken.append(following)
        yield taken


@dataclasses.dataclass(frozen=True)
class _Part:
    """The n instances of a panel."""

    rles: list[bytes]
    classes: np.ndarray
    crowd: np.ndarray


def _instances(record: Annotations, window: Window, corner: tuple[int, int], size: tuple[int, int]) -> _Part:
    """What a window shows of a record, as run lengths of a mosaic of `size` where it stands at `corner` (y, x)."""
    rles, rows = [], []
    for row in np.flatnonzero(touching(record.boxes, window)).tolist():
        columns = decode_columns(record.rles[row], record.height, window.x0, window.x1)
        part = columns[window.y0 : window.y1]
        if part.sum(dtype=np.int64) < max(1, LEAST_VISIBLE * record.areas[row]):
            continue
        whole = np.zeros(size, np.uint8, order="F")
        whole[corner[0] : corner[0] + part.shape[0], corner[1] : corner[1] + part.shape[1]] = part
        rles.append(coco_mask.encode(whole)["counts"])
        rows.append(row)
    return _Part(rles, record.classes[rows], record.crowd[rows])


def _join(parts: Sequence[_Part], number: int, name: str, size: tuple[int, int]) -> Annotations:
    counts = tuple(rle for part in parts for rle in part.rles)
    rles = [{"size": list(size), "counts": rle} for rle in counts]
    extents = np.asarray(coco_mask.toBbox(rles), np.float32).reshape(-1, 4)
    return Annotations(
        image_id=number,
        file_name=name,
        height=size[0],
        width=size[1],
        boxes=np.concatenate([extents[:, :2], extents[:, :2] + extents[:, 2:]], axis=1),
        classes=np.concatenate([part.classes for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        areas=np.asarray(coco_mask.area(rles), np.float32),
        annotation_ids=np.arange(len(rles), dtype=np.int64),
        rles=counts,
    )
