"""Where what the tiles of images show comes from, for `segment_files`: here from the network, in this process."""

from collections.abc import Callable, Iterable, Iterator

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import J
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.segmenter import Segmenter


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
        self, jobs: Iterable[J], *, tile: int, progress: Callable[[J, int, int], object]
    ) -> Iterator[tuple[J, Instances]]:
        """As `Segmenter.candidates`."""
        return self.segmenter.candidates(jobs, tile=tile, progress=progress)
