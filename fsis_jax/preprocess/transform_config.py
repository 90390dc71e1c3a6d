"""The settings of `transforms.py`: what `config.data.transform` may say, what it means, and its defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from fsis_jax.errors import FsisError

Scale = Literal["shortest_side", "reference"]
Intensity = Literal["percentile", "none"]
ReferenceStretch = Literal["crop", "image", "either"]


@dataclasses.dataclass(frozen=True)
class TransformConfig:
    """How images, references and instances are prepared. Fields below `augmentation` act in training only."""

    scale: Scale = "shortest_side"
    """"shortest_side": as the PyTorch project. "reference": so that the references have `reference_pixels`."""
    shortest_side: int = 600
    """Pixels of the shortest side ..."""
    longest_side: int = 1000
    """... unless the longest would exceed this."""
    reference_pixels: float = 32.0
    """Median sqrt(w * h) of the reference boxes in the resized target."""
    min_scale: float = 0.125
    max_scale: float = 4.0
    """Bounds of the scale when it follows the references."""
    intensity: Intensity = "none"
    """Stretch 8-bit images too. Each target is stretched by its own percentiles, each reference crop by the crop's, so
    that a loose crop file counts the same. 16-bit and float images are always stretched."""
    percentiles: tuple[float, float] = (1.0, 99.8)
    """Values that become 0 and 255."""
    reference_size: int = 128
    """Side of the square reference images."""
    reference_stretch: ReferenceStretch = "crop"
    """By whose percentiles a reference is stretched, with intensity "percentile". "crop": by its own, so that a crop
    file counts as a box does. "image": by those of the image that it is cut from, where that is known, so that dim and
    bright cells differ. "either": in training at random, in use as "image"."""
    antialias: bool = False
    """What shrinks to less than half is averaged; else pixels are skipped, as the PyTorch project does."""
    legacy_reference_crop: bool = False
    """Truncate boxes of the inclusive convention and lose the last row or column of odd squares, as the PyTorch project
    does (its quirk Q11)."""
    mask_size: int = 56
    """Side m of the grid on which an instance's mask is stored."""
    max_instances: int = 300
    """Rows G of a batch; where a target shows more, less of it is shown."""
    box_offset: int = 0
    """Subtracted from x2 and y2 of the ground truth; 1 for models of the legacy inclusive convention."""
    min_visible: float = 0.3
    """An instance of which a crop shows a smaller share is ignored in training."""

    # augmentation
    anywhere: float = 0.0
    """Probability that what is shown of a target lies anywhere in it, and not about one of its cells."""
    copies: int = 0
    """Of the cells in a crop, up to so many are copied to where they just touch another (`data/copies.py`)."""
    aspect_bounds: tuple[float, float] | tuple[()] = ()
    """Least and largest width over height of what a target shows (`aspect.py`), with scale "shortest_side"."""
    scale_jitter: float = 1.0
    """The scale is multiplied by a log-uniform factor in [1 / scale_jitter, scale_jitter]."""
    reference_context: float = 1.35
    """Reference boxes grow about their centre by a uniform factor in [1, reference_context]; at test by none."""
    flip: float = 0.5
    """Probability of a left-right flip; drawn for the target and for each reference."""
    rot90: bool = False
    """Also turn by 0, 90, 180 or 270 degrees. Cells have no upright side, tissue and culture neither."""
    gamma: float = 1.0
    """Intensities to the power of a log-uniform value in [1 / gamma, gamma]."""
    contrast: float = 0.0
    """Contrast about mid-grey times a uniform value in [1 - contrast, 1 + contrast]."""
    brightness: float = 0.0
    """Plus a uniform value in [-brightness, brightness], of the full range."""
    colour: float = 0.0
    """Each channel of a colour image times a uniform value in [1 - colour, 1 + colour]."""
    noise: float = 0.0
    """Gaussian noise of a standard deviation drawn from [0, noise], of the full range."""
    invert: float = 0.0
    """Probability that bright and dark change places, in an example's target and references alike."""
    grey: float = 0.0
    """Probability that colour is taken away, in an example's target and references alike."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TransformConfig":
        """From an ml_collections ConfigDict or any mapping whose keys are fields of this class.

        Raises:
            FsisError: another key.
        """
        values = dict(config)
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise FsisError(
                f"config.data.transform has an unknown key {unknown[0]!r}; transform_config.py lists the keys"
            )
        return cls(**values)


def transform_config(config: ConfigDict) -> TransformConfig:
    """The transforms of a run; the box convention is the model's."""
    others = {"box_offset": int(config.model.legacy_boxes), "aspect_bounds": config.data.aspect_bounds}
    return TransformConfig.from_config({**config.data.transform, **others})
