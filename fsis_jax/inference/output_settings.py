"""What is done with image files: how they are read and what is written, and what became of each."""

import dataclasses

from fsis_jax.inference.tidying import WHOLE_CELLS, Tidying
from fsis_jax.io.names import DEFAULT
from fsis_jax.io.outputs import image_name, plane_parts, plane_suffix


@dataclasses.dataclass(frozen=True)
class OutputSettings:
    """How image files are read, and what is written."""

    save: tuple[str, ...] = DEFAULT
    """Kinds of `io.names.RESULTS`."""
    channel: str | None = None
    page: str | None = None
    """Which page of a stack, as for `open_image`."""
    series: str | None = None
    """Which image of a file with several, as for `open_image`."""
    pixel_size: float | None = None
    """Micrometres per pixel of the images; None: as each file says."""
    tile: int = 0
    """As for `Segmenter.candidates`."""
    category: str | None = None
    """Name of what the references show, for COCO and GeoJSON. A closed-set detector has its own names."""
    tidying: Tidying = WHOLE_CELLS
    """What is done to masks, and which cells are left out."""

    @property
    def plane(self) -> list[str]:
        """As `plane_parts`."""
        return plane_parts(series=self.series, channel=self.channel, page=self.page)

    @property
    def suffix(self) -> str:
        """How names of results end, as `plane_suffix`: with the plane, but for a page that is a number alone.

        Such pages share a name, so that a folder takes one of them.
        """
        page = None if self.page is None or self.page.strip().isdecimal() else self.page
        return plane_suffix(plane_parts(series=self.series, channel=self.channel, page=page))

    def name(self, path: str) -> str:
        """NAME, of an image file's results."""
        return image_name(path) + self.suffix


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one image file."""

    image: str
    """Path, as it was given."""
    cells: int = 0
    pixel_size: float | None = None
    """Micrometres per pixel, where it is known."""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """Kind -> path."""
    causes: tuple[str, ...] = ()
    """Where there is no cell: the likeliest reasons, a line each."""
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    """Count of each kind that is wanted, or of each category that a closed-set detector has found."""
    plane: tuple[str, ...] = ()
    """What was chosen of the file, as `OutputSettings.plane`."""
    error: str = ""
    """Why there is no result, in one line."""
