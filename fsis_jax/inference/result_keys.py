"""What results depend on, as keys: with the same key they are the same, and need not be made again."""

import dataclasses
import os

import fsis_jax
from fsis_jax.inference.finished_images import digest, identity
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tidying import WHOLE_CELLS


class ResultKeys:
    """The keys of results with one model, references and settings."""

    def __init__(self, segmenter: Segmenter, references: References, settings: OutputSettings) -> None:
        read = dataclasses.replace(settings, save=(), category=None, tidying=WHOLE_CELLS)
        tiling = [str(segmenter.config.data[key]) for key in ("test_canvases", "tile_overlap", "background_contrast")]
        model = [fsis_jax.__version__, segmenter.fingerprint, *map(dataclasses.astuple, segmenter.variants)]
        self._of_all = [*model, references.digest, dataclasses.astuple(read), tiling]
        self._counted = [segmenter.min_score, settings.category, dataclasses.astuple(settings.tidying)]

    def of_settings(self) -> str:
        """What the results of any image depend on besides the image."""
        return digest([*self._of_all, *self._counted])

    def of_tiles(self, path: str) -> str:
        """What the tiles of an image file depend on."""
        return digest([*self._of_all, os.path.abspath(path), identity(path)])

    def of_files(self, tiles: str) -> str:
        """What its results depend on: the key of its tiles, and which cells are counted and how they are called."""
        return digest([tiles, *self._counted])
