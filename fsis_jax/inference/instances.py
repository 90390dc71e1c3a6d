"""The result of segmenting one image: boxes, scores and masks, in numpy.

A mask is kept cropped: the part of the image that holds the instance, and where it lies. A thousand cells on a
large image then take about the memory of their own pixels, not of a thousand images. Pixel (row y, column x)
covers [x, x + 1] x [y, y + 1] of the continuous coordinates that boxes are given in.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask

from fsis_jax.data.windows import decode_columns
from fsis_jax.inference.neighbours import Neighbours

Size = tuple[int, int]
"""(height, width) in pixels."""


class CroppedMask(NamedTuple):
    """A mask (h, w) bool whose first pixel is pixel (y, x) of the image; it lies inside the image."""

    y: int
    x: int
    mask: np.ndarray

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the mask lies: `image[crop.slices]` has the shape of `mask`."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2) of the cropped part."""
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height

    def shared(self, other: "CroppedMask") -> tuple[np.ndarray, np.ndarray] | None:
        """Views of the two masks where both lie; None where their extents do not meet."""
        y1, y2 = max(self.y, other.y), min(self.y + self.mask.shape[0], other.y + other.mask.shape[0])
        x1, x2 = max(self.x, other.x), min(self.x + self.mask.shape[1], other.x + other.mask.shape[1])
        if y1 >= y2 or x1 >= x2:
            return None
        return (
            self.mask[y1 - self.y : y2 - self.y, x1 - self.x : x2 - self.x],
            other.mask[y1 - other.y : y2 - other.y, x1 - other.x : x2 - other.x],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Instances:
    """N instances of one image by descending score. Masks may overlap; a mask may be empty.

    Raises:
        ValueError: the lengths differ, or the scores do not descend.
    """

    boxes: np.ndarray
    """(N, 4) float32 (x1, y1, x2, y2), pixels of the image."""
    scores: np.ndarray
    """(N,) float32."""
    masks: tuple[CroppedMask, ...]
    size: Size
    category: str | None = None
    """What the references showed, where it has a name."""
    min_score: float = 0.0
    """Score from which `labels` and `without_overlaps` count an instance, unless told otherwise."""

    def __post_init__(self) -> None:
        count = len(self.masks)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,):
            raise ValueError(f"{count} masks, boxes {self.boxes.shape}, scores {self.scores.shape}: lengths differ")
        if np.any(np.diff(self.scores) > 0):
            raise ValueError("the instances are not in order of descending score")

    def __len__(self) -> int:
        return len(self.masks)

    @classmethod
    def none(cls, size: Size, min_score: float = 0.0) -> "Instances":
        """No instance, of an image of `size`."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), size, min_score=min_score)

    @classmethod
    def from_padded(
        cls,
        boxes: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
        mask_probs: np.ndarray,
        size: Size,
        mask_threshold: float = 0.5,
        *,
        offset: int = 0,
        category: str | None = None,
        min_score: float = 0.0,
        legacy: bool = False,
    ) -> "Instances":
        """The valid rows of a detector's padded output for one image.

        A pixel belongs to an instance if its centre lies in the box and the mask's probability there, read
        bilinearly, exceeds the threshold (the rule of `ops.paste_masks`, each instance only where it lies).

        Args:
            boxes: (D, 4), pixels of the image.
            scores: (D,).
            valid: (D,) bool.
            mask_probs: (D, M, M), laid over each row's box.
            size: height and width of the image.
            offset: 1 if x2 and y2 name the last pixel inside (the convention of the converted weights).
            legacy: paste at whole pixels as the PyTorch project does (its quirk Q18); needs `offset` 1.
        """
        rows = np.flatnonzero(valid)
        rows = rows[np.argsort(-np.asarray(scores, np.float32)[rows], kind="stable")]
        boxes = np.asarray(boxes, np.float32)[rows]
        probabilities = np.asarray(mask_probs)[rows].astype(np.float32)
        paste = _paste_whole_pixels if legacy else functools.partial(_paste, offset=offset)
        crops = tuple(
            paste(mask, box, size, mask_threshold) for mask, box in zip(probabilities, boxes.tolist(), strict=True)
        )
        boxes = boxes + np.array([0, 0, offset, offset], np.float32)
        height, width = size
        clipped = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        return cls(clipped, np.asarray(scores, np.float32)[rows], crops, size, category, min_score)

    @classmethod
    def from_rles(
        cls,
        rles: Sequence[bytes],
        size: Size,
        *,
        boxes: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        category: str | None = None,
    ) -> "Instances":
        """Instances from compressed COCO run-length counts over the whole image, such as ground truth.

        Args:
            boxes: (N, 4); the masks' own extents if None.
            scores: (N,), in any order; 1 if None.
        """
        encoded = [{"size": list(size), "counts": rle} for rle in rles]
        extents = np.asarray(pycocotools.mask.toBbox(encoded), np.float32).reshape(-1, 4)
        crops = []
        for rle, (x, y, width, height) in zip(rles, extents.astype(int).tolist(), strict=True):
            mask = decode_columns(rle, size[0], x, x + width)[y : y + height].astype(bool)
            crops.append(CroppedMask(y, x, mask))
        if boxes is None:
            boxes = np.concatenate([extents[:, :2], extents[:, :2] + extents[:, 2:]], axis=1)
        return cls._sorted(boxes, scores, crops, size, category)

    @classmethod
    def from_labels(
        cls, labels: np.ndarray, *, scores: np.ndarray | None = None, category: str | None = None
    ) -> "Instances":
        """Instances from a label image (H, W) of integers, 0 = background; an id may have several parts.

        Args:
            scores: one per id, by ascending id; 1 if None.
        """
        rows, columns = np.nonzero(labels)
        ids = labels[rows, columns]
        order = np.argsort(ids, kind="stable")
        rows, columns, ids = rows[order], columns[order], ids[order]
        starts = np.flatnonzero(np.diff(ids, prepend=0))
        if not len(starts):
            return cls._sorted(np.zeros((0, 4)), None, [], labels.shape, category)
        # Rows ascend within an id, since np.nonzero lists them so and the sort is stable.
        top, bottom = rows[starts], rows[np.append(starts[1:], len(rows)) - 1] + 1
        left, right = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts) + 1
        crops = [
            CroppedMask(y1, x1, labels[y1:y2, x1:x2] == value)
            for y1, y2, x1, x2, value in zip(
                top.tolist(), bottom.tolist(), left.tolist(), right.tolist(), ids[starts], strict=True
            )
        ]
        return cls._sorted(np.stack([left, top, right, bottom], axis=1), scores, crops, labels.shape, category)

    @classmethod
    def _sorted(
        cls,
        boxes: np.ndarray,
        scores: np.ndarray | None,
        crops: Sequence[CroppedMask],
        size: tuple[int, ...],
        category: str | None,
    ) -> "Instances":
        scores = np.ones(len(crops), np.float32) if scores is None else np.asarray(scores, np.float32)
        order = np.argsort(-scores, kind="stable")
        ordered = tuple(crops[i] for i in order)
        return cls(np.asarray(boxes, np.float32)[order], scores[order], ordered, (size[0], size[1]), category)

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask."""
        return np.array([np.count_nonzero(crop.mask) for crop in self.masks], np.int64)

    def select(self, keep: np.ndarray) -> "Instances":
        """The instances of a boolean (N,) or of ascending row numbers, e.g. `found.select(found.scores >= 0.5)`."""
        rows = np.arange(len(self))[keep]
        masks = tuple(self.masks[row] for row in rows)
        return dataclasses.replace(self, boxes=self.boxes[rows], scores=self.scores[rows], masks=masks)

    def without_overlaps(self, min_score: float | None = None) -> "Instances":
        """The instances that score at least `min_score` (None: the field's), every pixel in at most one mask.

        By descending score, each takes what is left of its mask, of that the largest connected part. One that finds
        over half of its mask taken, or has an empty mask, is dropped and takes nothing. Boxes stay as they are. The
        memory that it takes depends on the instances, not on the size of the image.
        """
        if min_score is None:
            min_score = self.min_score
        candidates = self.masks[: np.count_nonzero(self.scores >= min_score)]
        extents = np.array([crop.extent for crop in candidates], np.int64).reshape(-1, 4)
        placed = Neighbours(extents)
        kept: dict[int, CroppedMask] = {}
        for row, crop in enumerate(candidates):
            free = crop._replace(mask=crop.mask.copy())
            for other in placed.near(row):
                views = free.shared(kept[other])
                if views is not None:
                    views[0][views[1]] = False
            left, area = np.count_nonzero(free.mask), np.count_nonzero(crop.mask)
            if area and 2 * left >= area:
                kept[row] = free if left == area else free._replace(mask=_largest_part(free.mask))
                placed.add(row)
        rows = np.array(list(kept), np.intp)
        return dataclasses.replace(self, boxes=self.boxes[rows], scores=self.scores[rows], masks=tuple(kept.values()))

    def labels(self, min_score: float | None = None) -> np.ndarray:
        """(H, W) int32: 0 for background, i + 1 for instance i of `without_overlaps(min_score)`."""
        image = np.zeros(self.size, np.int32)
        for number, crop in enumerate(self.without_overlaps(min_score).masks, start=1):
            image[crop.slices][crop.mask] = number
        return image

    def rles(self) -> list[dict[str, Any]]:
        """Masks as compressed COCO run lengths over the whole image, with text counts as JSON needs them."""
        return [_encode(crop, self.size) for crop in self.masks]

    def to_coco(self, image_id: int, category_id: int) -> list[Mapping[str, Any]]:
        """Detections in COCO's results format: bbox is (x, y, width, height)."""
        corners = self.boxes.astype(np.float64)
        bboxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": bbox,
                "score": score,
                "area": area,
                "segmentation": rle,
            }
            for bbox, score, area, rle in zip(
                bboxes, self.scores.tolist(), self.areas().tolist(), self.rles(), strict=True
            )
        ]


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """The 4-connected part of a mask with the most pixels."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    if count <= 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel(), minlength=count)[1:]))


def _paste(probabilities: np.ndarray, box: Sequence[float], size: Size, threshold: float, offset: int) -> CroppedMask:
    """The mask of one instance: (M, M) probabilities laid over a box in image pixels."""
    x1, y1, x2, y2 = box
    x, across = _sampling(x1, x2 + offset, size[1], probabilities.shape[1])
    y, down = _sampling(y1, y2 + offset, size[0], probabilities.shape[0])
    return CroppedMask(y, x, down @ probabilities @ across.T > threshold)


def _paste_whole_pixels(probabilities: np.ndarray, box: Sequence[float], size: Size, threshold: float) -> CroppedMask:
    """As `segm_results` of the PyTorch project: a border of zeros, the box grown alike and truncated, resized."""
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    grow = np.float32((probabilities.shape[0] + 2) / probabilities.shape[0])
    half_width, half_height = (x2 - x1) * np.float32(0.5) * grow, (y2 - y1) * np.float32(0.5) * grow
    centre_x, centre_y = (x2 + x1) * np.float32(0.5), (y2 + y1) * np.float32(0.5)
    left, right = int(centre_x - half_width), int(centre_x + half_width)
    top, bottom = int(centre_y - half_height), int(centre_y + half_height)
    shape = (max(right - left + 1, 1), max(bottom - top + 1, 1))
    mask = cv2.resize(np.pad(probabilities, 1), shape, interpolation=cv2.INTER_LINEAR) > threshold
    y, x = (min(max(low, 0), limit) for low, limit in zip((top, left), size, strict=True))
    inside = mask[y - top : max(size[0] - top, 0), x - left : max(size[1] - left, 0)]
    return CroppedMask(y, x, inside)


def _sampling(low: float, high: float, limit: int, cells: int) -> tuple[int, np.ndarray]:
    """The first of the p pixels of 0..limit-1 with their centre in [low, high], and their weights (p, cells).

    Row i holds the bilinear weights of the cells laid over [low, high] at the centre of pixel i; beyond the centres
    of the outermost cells those count in full.
    """
    first = min(max(int(np.ceil(low - 0.5)), 0), limit)
    last = max(min(int(np.floor(high - 0.5)), limit - 1), first - 1)
    centres = np.arange(first, last + 1, dtype=np.float32) + np.float32(0.5)
    positions = (centres - np.float32(low)) * np.float32(cells / max(high - low, 1e-6)) - np.float32(0.5)
    positions = np.clip(positions, 0, cells - 1)
    return first, np.maximum(1 - np.abs(positions[:, None] - np.arange(cells, dtype=np.float32)), 0)


def _encode(crop: CroppedMask, size: Size) -> dict[str, Any]:
    """COCO's run lengths (down the columns, background first), from the cropped mask alone."""
    height, width = size
    edges = np.diff(np.pad(crop.mask.T, ((0, 0), (1, 1))).view(np.int8), axis=1)
    columns, rows = np.nonzero(edges)  # in turn the first pixel of a run and the one after its last
    positions = (columns + crop.x) * height + rows + crop.y
    # A run that reaches the bottom and goes on at the top of the next column is one run.
    joined = np.flatnonzero(positions[1:-1:2] == positions[2::2]) * 2 + 1
    positions = np.delete(positions, np.concatenate([joined, joined + 1]))
    counts = np.diff(positions, prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    rle = pycocotools.mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
