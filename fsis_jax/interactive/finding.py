"""Segmenting for a session: the whole of an image as `fsis segment` does it, or the tiles that a part of it needs."""

from collections.abc import Callable

import numpy as np

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_plan import plan_each_size
from fsis_jax.inference.tiling import Tile, merge_scales, merge_tiles
from fsis_jax.io.given import known_pixel_size
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.transform_config import transform_config

Advance = Callable[[int, int], None]


def find_all(segmenter: Segmenter, job: Job, tile: int, advance: Advance) -> Instances:
    """The candidates of an image, of any score."""

    def progress(_: Job, finished: int, total: int) -> None:
        advance(finished, total)

    ((_, found),) = segmenter.candidates([job], tile=tile, progress=progress)
    return found


def find_in_part(
    segmenter: Segmenter,
    image: ImageFile,
    references: References,
    part: Box,
    *,
    pixel_size: float | None,
    tile: int,
    advance: Advance,
) -> tuple[Instances, Box]:
    """The candidates in those tiles of an image that answer for some of a part of it, and the part that these cover.

    They are what segmenting the whole image finds there, but for cells at the border of the part: what a tile beyond
    it knows better of them is not asked.
    """
    transform = transform_config(segmenter.config)
    sides = references.sides_in(known_pixel_size(image, pixel_size))
    plans = plan_each_size(image, sides, segmenter.config, transform, tile)
    chosen = [[each for each in plan.tiles if _meet(each, part)] for plan in plans]
    finished, total = 0, sum(map(len, chosen))
    scales = []
    for plan, layout in zip(plans, chosen, strict=True):
        found = []
        for each in layout:
            advance(finished, total)
            finished += 1
            pixels = plan.prepare(each)
            if pixels is None:
                found.append(Instances.none(each.window.size, segmenter.min_score))
            else:
                found.append(segmenter.paste(plan, each, segmenter.detect(plan, [pixels], references), 0))
        scales.append(found[0] if len(plan.tiles) == 1 else merge_tiles(found, layout, plan.size, plan.margin))
    cores = np.array([each.core for layout in chosen for each in layout])
    (x1, y1), (x2, y2) = cores[:, :2].min(axis=0).tolist(), cores[:, 2:].max(axis=0).tolist()
    return merge_scales(scales), (x1, y1, x2, y2)


def _meet(tile: Tile, part: Box) -> bool:
    (x1, y1, x2, y2), (left, top, right, bottom) = tile.core, part
    return x1 < right and left < x2 and y1 < bottom and top < y2
