"""Where what the tiles of images show comes from, for `segment_from`: here from the network, in this process."""

from collections.abc import Callable, Iterable, Iterator

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import J
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.segmenter import Segmenter


class SourceLostError(FsisError):
    """What finds the tiles of all images is gone, so that no image can be gone on with."""


class TileSource:
    """The network on the devices of this process; a subclass asks others."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def begin(self, name: str, key: str, journal: Journal) -> None:
        """Called before an image is segmented: what is known of its tiles may be added to its journal.

        Args:
            name: of its results.
            key: what its tiles depend on (`ResultKeys.of_tiles`).

        Raises:
            FsisError: it cannot be segmented.
        """

    def candidates(
        self, jobs: Iterable[J], *, settings: OutputSettings, progress: Callable[[J, int, int], object]
    ) -> Iterator[tuple[J, Instances | FsisError]]:
        """As `Segmenter.candidates`, of images that are read as the settings say.

        Where several images are under way at once, the error of one comes in the place of its result.

        Raises:
            SourceLostError: as it says; of the images that were taken and not given none will be.
            FsisError: of the image that was taken last, after the results of those before.
        """
        yield from self.segmenter.candidates(jobs, tile=settings.tile, progress=progress)
