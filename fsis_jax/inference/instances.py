"""The result of segmenting one image: boxes, scores, masks and what else a detector tells, in numpy.

A mask is kept cropped (`cropped_mask.py`): the part of the image that holds the instance, and where it lies. A thousand
cells on a large image then take about the memory of their own pixels, not of a thousand images.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask

from fsis_jax.coco_names import KEYPOINTS, SKELETON
from fsis_jax.errors import FsisError
from fsis_jax.inference.neighbours import Neighbours
from fsis_jax.inference.traits import TRAITS
from fsis_jax.preprocess import cropped_mask
from fsis_jax.preprocess.cropped_mask import CroppedMask, Size
from fsis_jax.preprocess.keypoints import keypoints_to_coco
from fsis_jax.preprocess.windows import decode_columns

OF_EACH = ("classes", "kind_scores", "evidence", "traits", "keypoints")


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
    """What the references showed, where it has a name; or what `of_category` chose."""
    min_score: float = 0.0
    """Score from which `labels` and `without_overlaps` count an instance, unless told otherwise."""
    classes: np.ndarray | None = None
    """(N,) int32, of each instance the row of its category in `names`; None where there are no names."""
    names: tuple[str, ...] = ()
    """The categories that a closed-set detector knows, or the K kinds that the references show; else ()."""
    kind_scores: np.ndarray | None = None
    """(N, K + 1) float32, with references of named kinds: the probability of each, and last that it is none of them.
    They sum to 1, and `scores` is what the last leaves."""
    evidence: np.ndarray | None = None
    """(N, K + 1) float32, K = 1 without names, beside `traits`: log odds of each kind alone, how sure the mask is."""
    traits: np.ndarray | None = None
    """(N, T) float32, where they count: what tells kinds apart (`traits.py`), sizes in pixels of the references."""
    unwanted: tuple[str, ...] = ()
    """Those of `names` that were shown as what is not wanted."""
    keypoints: np.ndarray | None = None
    """(N, P, 3) float32 x, y and score, pixels of the image; None where none were looked for."""
    boxes_only: bool = False
    """The masks are the boxes, of a detector without masks."""

    def __post_init__(self) -> None:
        count = len(self.masks)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,):
            raise ValueError(f"{count} masks, boxes {self.boxes.shape}, scores {self.scores.shape}: lengths differ")
        for name, values in self.of_each().items():
            if len(values) != count:
                raise ValueError(f"{count} masks, {name} of {len(values)}: lengths differ")
        if np.any(np.diff(self.scores) > 0):
            raise ValueError("the instances are not in order of descending score")

    def __len__(self) -> int:
        return len(self.masks)

    def of_each(self) -> dict[str, Any]:
        """The fields with a row for each instance that not every model tells, as far as they are there."""
        return {name: getattr(self, name) for name in OF_EACH if getattr(self, name) is not None}

    @classmethod
    def none(
        cls,
        size: Size,
        min_score: float = 0.0,
        *,
        names: tuple[str, ...] = (),
        measured: bool = False,
        keypoints: int = 0,
        boxes_only: bool = False,
    ) -> "Instances":
        """No instance, of an image of `size`, as of these names, of references with traits if `measured`, and so on."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            (),
            size,
            min_score=min_score,
            classes=np.zeros(0, np.int32) if names else None,
            names=names,
            kind_scores=np.zeros((0, len(names) + 1), np.float32) if measured and names else None,
            evidence=np.zeros((0, max(len(names), 1) + 1), np.float32) if measured else None,
            traits=np.zeros((0, len(TRAITS)), np.float32) if measured else None,
            keypoints=np.zeros((0, keypoints, 3), np.float32) if keypoints else None,
            boxes_only=boxes_only,
        )

    @classmethod
    def from_padded(
        cls,
        boxes: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
        mask_probs: np.ndarray | None,
        size: Size,
        mask_threshold: float = 0.5,
        *,
        offset: int = 0,
        category: str | None = None,
        min_score: float = 0.0,
        legacy: bool = False,
        names: tuple[str, ...] = (),
        **of_each: np.ndarray | None,
    ) -> "Instances":
        """The valid rows of a detector's padded output for one image.

        A pixel belongs to an instance if its centre lies in the box and the mask's probability there, read
        bilinearly, exceeds the threshold (the rule of `ops.paste_masks`, each instance only where it lies).

        Args:
            boxes: (D, 4), pixels of the image.
            scores: (D,).
            valid: (D,) bool.
            mask_probs: (D, M, M), laid over each row's box; None: the box is the mask.
            size: height and width of the image.
            offset: 1 if x2 and y2 name the last pixel inside (the convention of the converted weights).
            legacy: paste at whole pixels as the PyTorch project does (its quirk Q18); needs `offset` 1.
            of_each: (D, ...), the fields of these names.
        """
        rows = np.flatnonzero(valid)
        rows = rows[np.argsort(-np.asarray(scores, np.float32)[rows], kind="stable")]
        boxes = np.asarray(boxes, np.float32)[rows]
        whole = np.ones((len(valid), 1, 1), np.float32) if mask_probs is None else np.asarray(mask_probs, np.float32)
        by_pixel = legacy and mask_probs is not None
        pasted = cropped_mask.paste_whole_pixels if by_pixel else functools.partial(cropped_mask.paste, offset=offset)
        crops = tuple(
            pasted(mask, box, size, mask_threshold) for mask, box in zip(whole[rows], boxes.tolist(), strict=True)
        )
        boxes = boxes + np.array([0, 0, offset, offset], np.float32)
        clipped = np.clip(boxes, 0, np.array([size[1], size[0]] * 2, np.float32))
        told: dict[str, Any] = {name: np.asarray(x)[rows] for name, x in of_each.items() if x is not None}
        return cls(
            clipped,
            np.asarray(scores, np.float32)[rows],
            crops,
            size,
            category,
            min_score,
            names=names,
            boxes_only=mask_probs is None,
            **told,
        )

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
        boxes, crops = cropped_mask.masks_of_labels(labels)
        return cls._sorted(boxes, scores, crops, labels.shape, category)

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
        boxes = np.asarray(boxes, np.float32)[order]
        return cls(boxes, scores[order], tuple(crops[i] for i in order), (size[0], size[1]), category)

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask."""
        return np.array([np.count_nonzero(crop.mask) for crop in self.masks], np.int64)

    def select(self, keep: np.ndarray) -> "Instances":
        """The instances of a boolean (N,) or of ascending row numbers, e.g. `found.select(found.scores >= 0.5)`."""
        rows = np.arange(len(self))[keep]
        return self._rows(rows, tuple(self.masks[row] for row in rows))

    def of_category(self, name: str) -> "Instances":
        """The instances of one of `names`, which becomes the `category`.

        Raises:
            FsisError: it is none of them.
        """
        if self.classes is None or name not in self.names:
            known = ", ".join(self.names) or "no categories, as they were found by references"
            raise FsisError(f"no category {name!r} among the instances; they have: {known}")
        return dataclasses.replace(self.select(self.classes == self.names.index(name)), category=name)

    @property
    def categories(self) -> tuple[str | None, ...]:
        """The category, or kind, of each instance, where it has a name."""
        if self.classes is None:
            return (self.category,) * len(self)
        return tuple(self.names[number] for number in self.classes.tolist())

    @property
    def kinds(self) -> tuple[str | None, ...]:
        """The likeliest kind of each instance; () where the references named none."""
        return () if self.kind_scores is None else self.categories

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """COCO's for seventeen keypoints, as in `ops.oks_sigmas`; () for others, of which only the number is known."""
        return KEYPOINTS if self.keypoints is not None and self.keypoints.shape[1] == len(KEYPOINTS) else ()

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of keypoints that are joined by a line; () where their names are not known."""
        return SKELETON if self.keypoint_names else ()

    def by_scores(self, scores: np.ndarray) -> "Instances":
        """The same with other scores (N,), in their order."""
        order = np.argsort(-scores, kind="stable")
        return self._rows(order, tuple(self.masks[row] for row in order), scores)

    def _rows(self, rows: np.ndarray, masks: tuple[CroppedMask, ...], scores: np.ndarray | None = None) -> "Instances":
        """What is kept of rows, with these masks, and with other scores (N,) if they are given."""
        return dataclasses.replace(
            self,
            boxes=self.boxes[rows],
            scores=(self.scores if scores is None else scores)[rows],
            masks=masks,
            **{name: values[rows] for name, values in self.of_each().items()},
        )

    def without_overlaps(self, min_score: float | None = None) -> "Instances":
        """The instances that score at least `min_score` (None: the field's), every pixel in at most one mask.

        By descending score, each takes what is left of its mask, of that the largest connected part. One that finds
        over half of its mask taken, or has an empty mask, is dropped and takes nothing. Boxes stay as they are. Done
        again it changes nothing, and `min_score` becomes the field's, so that `labels` numbers just these.

        Instances of a closed-set detector may lie on those of another class, and may overlap freely where the masks are
        but their boxes; of kinds that references show, each pixel is of one.
        """
        min_score = self.min_score if min_score is None else min_score
        if self.boxes_only:
            return dataclasses.replace(self.select(self.scores >= min_score), min_score=min_score)
        counted = self.select(self.scores >= min_score)
        kept = counted._claims(0.5, trim=True)
        counted = counted._rows(np.array(list(kept), np.intp), tuple(kept.values()))
        return dataclasses.replace(counted, min_score=min_score)

    def without_repeats(self, share: float) -> "Instances":
        """The instances of whose masks no more than this share lies in better ones; an empty mask is dropped.

        Unlike in `without_overlaps` the masks stay whole, whatever the scores.
        """
        if self.boxes_only:
            return self
        return self.select(np.array(list(self._claims(share, trim=False)), np.intp))

    def _claims(self, share: float, *, trim: bool) -> dict[int, CroppedMask]:
        """By descending score, the rows of whose masks at most `share` is taken by those before, and what they take.

        With `trim` that is what is left of the mask, of it the largest connected part; else the mask.
        """
        extents = np.array([crop.extent for crop in self.masks], np.int64).reshape(-1, 4)
        placed = Neighbours(extents)
        kept: dict[int, CroppedMask] = {}
        for row, crop in enumerate(self.masks):
            free = crop._replace(mask=crop.mask.copy())
            for other in placed.near(row):
                if self.may_share(row, other):
                    continue
                if (views := free.shared(kept[other])) is not None:
                    views[0][views[1]] = False
            left, area = np.count_nonzero(free.mask), np.count_nonzero(crop.mask)
            if area and left >= (1 - share) * area:
                kept[row] = (
                    crop if left == area or not trim else free._replace(mask=cropped_mask.largest_part(free.mask))
                )
                placed.add(row)
        return kept

    def may_share(self, row: int, other: int) -> bool:
        """Whether a pixel may be of two instances: of two classes of a closed-set detector."""
        return self.kind_scores is None and self.classes is not None and bool(self.classes[row] != self.classes[other])

    def labels(self, min_score: float | None = None) -> np.ndarray:
        """(H, W) int32: 0 for background, i + 1 for instance i of `without_overlaps(min_score)`, the better on top."""
        image = np.zeros(self.size, np.int32)
        crops = self.without_overlaps(min_score).masks
        for number in range(len(crops), 0, -1):
            image[crops[number - 1].slices][crops[number - 1].mask] = number
        return image

    def rles(self) -> list[dict[str, Any]]:
        """Masks as compressed COCO run lengths over the whole image, with text counts as JSON needs them."""
        return [cropped_mask.encode(crop, self.size) for crop in self.masks]

    def to_coco(self, image_id: int, category_id: int) -> list[Mapping[str, Any]]:
        """Detections in COCO's results format: bbox is (x, y, width, height), keypoints x, y, score, x, y, score ..."""
        corners = self.boxes.astype(np.float64)
        bboxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        parts: list[dict[str, Any]] = [{}] * len(self)
        if self.keypoints is not None:
            parts = [{"keypoints": row} for row in keypoints_to_coco(self.keypoints)]
        columns = zip(bboxes, self.scores.tolist(), self.areas().tolist(), self.rles(), parts, strict=True)
        common = {"image_id": image_id, "category_id": category_id}
        return [
            {**common, "bbox": bbox, "score": score, "area": area, "segmentation": rle, **others}
            for bbox, score, area, rle, others in columns
        ]
