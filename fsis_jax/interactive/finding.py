"""Segmenting for a session: the whole of an image as `fsis segment` does it, or the tiles that a part of it needs."""

from collections.abc import Callable

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tiling import Tile, merge_tiles
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outlines import Box

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
    plan = segmenter.plan(image, references, pixel_size=pixel_size, tile=tile)
    chosen = [each for each in plan.tiles if _meet(each, part)]
    parts = []
    for number, each in enumerate(chosen):
        advance(number, len(chosen))
        pixels = plan.prepare(each)
        if pixels is None:
            parts.append(Instances.none(each.window.size, segmenter.min_score))
        else:
            parts.append(segmenter.paste(plan, each, segmenter.detect(plan, [pixels], references), 0))
    found = parts[0] if len(plan.tiles) == 1 else merge_tiles(parts, chosen, plan.size, plan.margin)
    covered = [each.core for each in chosen]
    lows, highs = [min(core[i] for core in covered) for i in (0, 1)], [max(core[i] for core in covered) for i in (2, 3)]
    return found, (lows[0], lows[1], highs[0], highs[1])


def _meet(tile: Tile, part: Box) -> bool:
    (x1, y1, x2, y2), (left, top, right, bottom) = tile.core, part
    return x1 < right and left < x2 and y1 < bottom and top < y2
