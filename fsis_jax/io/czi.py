"""Opening .czi files of Zeiss: scenes as images, mosaics tile by tile, pyramids as coarser resolutions.

Where no tile lies a mosaic is 0, or white where it is in colours, as slides are.
"""

import math
from collections.abc import Sequence

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import CACHE_BYTES, ChunkCache
from fsis_jax.io.damage import CUT_OFF, damage_in
from fsis_jax.io.image_file import ImageFile, Plane, check_size
from fsis_jax.io.planes import Listed, Wanted, choose_plane, choose_series
from fsis_jax.io.stored import Stored
from fsis_jax.io.zeiss import Subblock, read_directory, read_metadata, read_pixels

CZI_SUFFIX = ".czi"


def open_czi(name: str, wanted: Wanted) -> ImageFile:
    """Open a .czi.

    Raises:
        FsisError: a damaged file, no such scene or plane, or several of which none was chosen.
    """
    with damage_in(name, "truncated or damaged .czi"):
        stored = Stored(name, name)
        metadata = read_metadata(stored)
        blocks = read_directory(stored, name)
        if not blocks:
            raise FsisError(f"{name}: truncated or damaged .czi (no image in it): {CUT_OFF}")
        scenes = [[block for block in blocks if block.scene == scene] for scene in sorted({b.scene for b in blocks})]
        names = metadata.scenes if len(metadata.scenes) == len(scenes) else [""] * len(scenes)
        images = [_Scene(name, stored, scene) for scene in scenes]
        listed = [Listed(title, image.axes, image.shape) for title, image in zip(names, images, strict=True)]
        image = images[choose_series(name, listed, wanted)]
        channels = metadata.channels if len(metadata.channels) == image.size_of("C") else ()
        choice = choose_plane(name, image.axes, image.shape, wanted, channels)
        planes = image.planes(choice.index)
        if choice.sample is not None:
            planes = [plane.sample(choice.sample) for plane in planes]
        return ImageFile(name, planes, metadata.pixel_size)


class _Scene:
    """The subblocks of one scene, or of a file without scenes."""

    def __init__(self, name: str, stored: Stored, blocks: Sequence[Subblock]) -> None:
        self._name, self._stored, self._cache = name, stored, ChunkCache()
        # Of a scene that is stored coarsely alone, what is finest there.
        self._finest = min(block.factor for block in blocks)
        whole = [block for block in blocks if block.factor == self._finest]
        self._blocks = blocks
        self._top, self._left = min(block.y for block in whole), min(block.x for block in whole)
        height = max(block.y + block.height for block in whole) - self._top
        width = max(block.x + block.width for block in whole) - self._left
        check_size(name, height, width)
        letters = sorted({letter for block in whole for letter, _ in block.place})
        self._numbers = {
            letter: sorted({dict(block.place).get(letter, 0) for block in whole}) for letter in letters if letter
        }
        samples = {block.samples for block in whole}
        if len(samples) > 1:
            raise FsisError(f"{name}: grey and coloured channels in one image: export it as OME-TIFF")
        (self._samples,) = samples
        self._size = -(-height // self._finest), -(-width // self._finest)
        colours = (3,) if self._samples == 3 else ()
        self.axes = "".join(self._numbers) + "YX" + "S" * len(colours)
        self.shape = (*map(len, self._numbers.values()), *self._size, *colours)

    def size_of(self, letter: str) -> int:
        """Of an axis; 1 of one that is not there."""
        return len(self._numbers.get(letter, [0]))

    def planes(self, index: Sequence[int | None]) -> list[Plane]:
        """The chosen plane at all resolutions; where the number of the channel is None, three of them as colours."""
        chosen = dict(zip(self._numbers, index, strict=False))
        colours = range(3) if "C" in chosen and chosen["C"] is None else [None]
        stacks = []
        for colour in colours:
            place = {letter: colour if number is None else number for letter, number in chosen.items()}
            wanted = {letter: self._numbers[letter][number] for letter, number in place.items() if number is not None}
            stacks.append([b for b in self._blocks if all(dict(b.place).get(k, 0) == v for k, v in wanted.items())])
        if not all(any(b.factor == self._finest for b in stack) for stack in stacks):
            raise FsisError(f"{self._name}: the plane is missing in the file: choose another one")
        factors = sorted({block.factor for block in stacks[0] if block.factor >= self._finest})
        found = [self._plane(stacks, factor) for factor in factors]
        return [plane for plane in found if plane is not None]

    def _plane(self, stacks: Sequence[Sequence[Subblock]], factor: int) -> Plane | None:
        """One resolution; None where its tiles do not reach as far as the image."""
        layers = [_Mosaic([b for b in stack if b.factor == factor], self._top, self._left, factor) for stack in stacks]
        scale = factor // self._finest
        height, width = (-(-side // scale) for side in self._size)
        if factor != self._finest:
            reach = np.array([layer.reach for layer in layers])
            if not (reach >= np.array([height, width]) * 0.98 - 2).all():
                return None
        dtype = np.result_type(*(layer.dtype for layer in layers))
        self._cache.limit = max(self._cache.limit, CACHE_BYTES, *(layer.row_bytes(width) for layer in layers))
        samples = self._samples if len(layers) == 1 else 3

        def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
            parts = [self._read(layer, (top, bottom, left, right), dtype) for layer in layers]
            return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)

        return Plane(self._name, (height, width) if samples == 1 else (height, width, samples), dtype, read)

    def _read(self, layer: "_Mosaic", window: tuple[int, int, int, int], dtype: np.dtype) -> np.ndarray:
        top, bottom, left, right = window
        shape = (bottom - top, right - left, *((3,) if self._samples == 3 else ()))
        pixels = np.zeros(shape, dtype)
        if self._samples == 3:
            pixels[:] = np.iinfo(dtype).max if dtype.kind == "u" else 1
        for block, (y, x, high, wide) in layer.touched(window):
            tile = self._cache.get(block.position, lambda block=block: read_pixels(self._stored, block, self._name))  # type: ignore[misc]
            y0, y1, x0, x1 = max(top, y), min(bottom, y + high), max(left, x), min(right, x + wide)
            pixels[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return pixels


class _Mosaic:
    """The tiles of one plane at one resolution, those on top last."""

    def __init__(self, blocks: Sequence[Subblock], top: int, left: int, factor: int) -> None:
        self._blocks = sorted(blocks, key=lambda block: block.mosaic)
        corners = [((b.y - top) // factor, (b.x - left) // factor, *b.stored) for b in self._blocks]
        self._places = np.array(corners, np.int64).reshape(-1, 4)
        self.dtype = np.result_type(*{block.dtype for block in blocks}) if blocks else np.dtype(np.uint8)

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width down to the last tile."""
        if not len(self._places):
            return 0, 0
        low = self._places[:, :2] + self._places[:, 2:]
        return int(low[:, 0].max()), int(low[:, 1].max())

    def row_bytes(self, width: int) -> int:
        """About what a row of decoded tiles takes."""
        high, wide = self._places[:, 2:].max(axis=0) if len(self._places) else (1, 1)
        samples = max((block.samples for block in self._blocks), default=1)
        return 2 * math.ceil(width / wide) * int(high) * int(wide) * samples * self.dtype.itemsize

    def touched(self, window: tuple[int, int, int, int]) -> list[tuple[Subblock, tuple[int, int, int, int]]]:
        """The tiles that lie in a window, with their places: y, x, height and width."""
        top, bottom, left, right = window
        y, x, high, wide = self._places.T
        rows = np.flatnonzero((y < bottom) & (y + high > top) & (x < right) & (x + wide > left))
        return [(self._blocks[row], tuple(self._places[row].tolist())) for row in rows.tolist()]
