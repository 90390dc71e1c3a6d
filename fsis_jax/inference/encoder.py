"""What a model keeps of example cells: it is shown crops, or boxes in an image."""

import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from fsis_jax.errors import FsisError
from fsis_jax.inference.causes import warn_of_sizes
from fsis_jax.inference.encoding import cut_boxes, encode_crops
from fsis_jax.inference.programs import Network
from fsis_jax.inference.references import References, check_encoded, shown_to_closed_set
from fsis_jax.inference.tile_plan import plan_tiles
from fsis_jax.io.given import ImageLike, as_crops, as_image, known_pixel_size
from fsis_jax.io.intensity import Image, Stretch
from fsis_jax.preprocess.transform_config import transform_config


class Encoder:
    """A detector as far as it is shown references.

    Args:
        network: its programs.
        config: that it was trained with.
    """

    def __init__(self, network: Network, config: ConfigDict) -> None:
        self.config = config
        self.names: tuple[str, ...] = tuple(config.model.classes)
        """The categories of a closed-set detector; () of one that is shown references."""
        self._network = network
        self._transform = transform_config(config)
        self._told: set[str] = set()

    @functools.cached_property
    def fingerprint(self) -> str:
        """The same for models that see references and images alike: of parameters, architecture and preprocessing."""
        described = [self.config.model.to_json_best_effort(sort_keys=True), repr(self._transform)]
        return self._network.digest("\n".join(described))

    def encode_references(
        self,
        crops: Sequence[ImageLike],
        *,
        sides: np.ndarray | None = None,
        pixel_size: float | None = None,
        names: Sequence[str] = (),
        stretches: Sequence[Stretch | None] = (),
        checked: bool = True,
    ) -> References:
        """Encode crops of example cells.

        Args:
            crops: as `segment` takes images; each one cell without much margin, at the images' magnification.
            sides: (k, 2), height and width of the cells in pixels; None: of the crops.
            pixel_size: micrometres per pixel of the sides; images that have theirs may have another magnification.
            names: of the crops, for messages.
            stretches: of the images that they were cut from (`stretch_of`), for models that compare brightness
                (`data.transform.reference_stretch`) and to tell kinds apart; None or (): not known.
            checked: refuse crops in which nothing is to see, and warn of sizes that the model cannot use well.

        Raises:
            FsisError: no crop, or one that shows nothing or has less than 2x2 pixels, or a closed-set detector.
        """
        if self.names:
            raise shown_to_closed_set(self.names)
        names, crops = as_crops(crops, names)
        pixel_size = known_pixel_size(None, pixel_size)
        encode = functools.partial(encode_crops, self._network, self._transform, self.fingerprint)
        encoded = encode(crops, names, stretches, sides, pixel_size=pixel_size, checked=checked)
        if checked and pixel_size is None:  # else the images' tells their size in these
            warn_of_sizes(encoded.sides, self._transform, self._told, names)
        return encoded

    def encode_boxes(
        self,
        image: ImageLike,
        boxes: ArrayLike,
        *,
        pixel_size: float | None = None,
        names: Sequence[str] = (),
        checked: bool = True,
    ) -> References:
        """Encode boxes around example cells in an image, as `fsis segment --reference IMAGE:x1,y1,x2,y2` does.

        The crops keep the stretch of the image's intensities, which `encode_references` does not know of a crop alone.

        Args:
            image: as `segment` takes it; it need not be the one to segment.
            boxes: (k, 4) x1, y1, x2, y2 in pixels of the image; each around one cell, without much margin.
            pixel_size: micrometres per pixel of the image, None: as it says itself.
            names: of the boxes, for messages.
            checked: as for `encode_references`.

        Raises:
            FsisError: as `encode_references`, or a box that has no area or is not inside the image.
        """
        image = as_image(image)
        corners = as_boxes(boxes)
        names = names or [f"box {number}" for number in range(1, len(corners) + 1)]
        crops = cut_boxes(image, corners.tolist(), names, "the image")
        sides = (corners[:, [3, 2]] - corners[:, [1, 0]]).astype(np.float32)
        return self.encode_references(
            crops,
            sides=sides,
            pixel_size=known_pixel_size(image, pixel_size),
            names=names,
            stretches=[self.stretch_of(image, sides)] * len(crops) if crops else (),
            checked=checked,
        )

    @property
    def compares_brightness(self) -> bool:
        """Whether the stretch of the image that a reference is cut from tells the model anything."""
        stretched = self._transform.reference_stretch != "crop" or self.config.model.detections.faintness > 0
        return stretched and self._transform.intensity == "percentile"

    def stretch_of(self, image: Image, sides: np.ndarray) -> Stretch | None:
        """How an image whose cells have `sides` (k, 2) pixels is stretched, if it is; for `encode_references`."""
        if self._transform.intensity != "percentile":
            return None
        return plan_tiles(image, sides, self.config, self._transform, 0).stretch

    def check_references(self, references: References | None) -> None:
        """Raise FsisError if another model encoded them, or they are there or not against the model's nature."""
        like = functools.partial(self._network.encoded_like, size=self._transform.reference_size)
        check_encoded(references, self.names, self.fingerprint, like)


def as_boxes(given: ArrayLike) -> np.ndarray:
    """(k, 4) float64 of boxes as a caller gives them.

    Raises:
        FsisError: no boxes, or numbers that are none.
    """
    try:
        boxes = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise FsisError(f"boxes {given!r:.100}: give a list of (x1, y1, x2, y2) in pixels of the image") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or not np.isfinite(boxes).all():
        raise FsisError(f"boxes of shape {boxes.shape}: give one (x1, y1, x2, y2) at least, in pixels of the image")
    return boxes
