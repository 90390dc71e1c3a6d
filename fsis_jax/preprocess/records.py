"""The one record type of the data layer, and what a source of records must offer.

A COCO folder (`coco.CocoSource`) and a prepared array_record data set (`prepared`) are two sources of the
same records. Boxes are (x1, y1, x2, y2) = (x, y, x + w, y + h) in pixels of the stored image.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

ReferenceSource = Literal["other", "target", "any"]
"""Where references come from in training."""
ReferencesFrom = Literal["train", "target", "wrong"]
"""Where references come from in a test; "wrong": the train split's, of a category that the target does not show."""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What is known of one image without its pixels. N instances."""

    image_id: int
    """As the data set has it: a whole number of any size."""
    file_name: str
    """Relative to the data set's image folder; error messages name it."""
    height: int
    width: int
    boxes: np.ndarray
    """(N, 4) float32."""
    classes: np.ndarray
    """(N,) int64 category ids."""
    crowd: np.ndarray
    """(N,) bool."""
    areas: np.ndarray
    """(N,) float32, pixels of the mask."""
    annotation_ids: np.ndarray
    """(N,) object: whole numbers of any size."""
    rles: tuple[bytes, ...]
    """N compressed COCO run-length counts over the whole image of (height, width)."""
    keypoints: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    """(N, P, 3) float32 x, y and visibility, see `keypoints.py`; P is 0 where the data set has none."""
    keypoint_names: tuple[str, ...] = ()
    """P names, the same for all images of a source."""

    def __post_init__(self) -> None:
        if not self.keypoint_names:
            object.__setattr__(self, "keypoints", np.zeros((len(self.boxes), 0, 3), np.float32))


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its instances."""

    annotations: Annotations
    encoded: bytes
    """The image file's bytes (PNG, JPEG, TIFF)."""


class Source(Protocol):
    """Random access to records; all annotations stay in memory, pixels are read on demand."""

    @property
    def annotations(self) -> Sequence[Annotations]: ...

    @property
    def categories(self) -> Mapping[int, str]:
        """Category id -> name."""
        ...

    @property
    def folds(self) -> Mapping[int, tuple[int, ...]]:
        """Fold number -> ids of the categories that it holds out of training."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


class Subset:
    """Some records of a source, in the given order: itself a source."""

    def __init__(self, source: Source, positions: Sequence[int]) -> None:
        self._source = source
        self._positions = tuple(positions)
        self.annotations = [source.annotations[position] for position in self._positions]
        self.categories = source.categories
        self.folds = source.folds

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int, /) -> Record:
        return self._source[self._positions[index]]
