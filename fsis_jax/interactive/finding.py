"""Segmenting for a session: the whole of an image as `fsis segment` does it, or a part of it, sooner."""

import dataclasses
from collections.abc import Callable

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.pasting import nothing_found
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_plan import TilePlan, plan_each_size
from fsis_jax.inference.tiling import Tile, merge_scales, merge_tiles, tiles
from fsis_jax.io.given import known_pixel_size
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.transform_config import transform_config
from fsis_jax.preprocess.windows import Window

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
    """The candidates whose centre lies in a part of an image, in tiles that are laid over that part alone.

    Those of the whole image lie elsewhere, and more of them reach into the part: so a cell here or there is another
    one when all is segmented. Where the part is the image, or that is read as one tile, all is as `find_all` finds it.

    Returns:
        Them, and the part that they are of: the one asked for, or the image.
    """
    transform = transform_config(segmenter.config)
    size = known_pixel_size(image, pixel_size)
    sides = references.sides_in(size)
    plans = plan_each_size(image, sides, segmenter.config, transform, tile, references.owners, pixel_size=size)
    nothing = nothing_found(plans[0], segmenter.config, references)
    chosen = [_over(part, plan) for plan in plans]
    finished, total = 0, sum(map(len, chosen))
    scales = []
    for plan, layout in zip(plans, chosen, strict=True):
        found = []
        for each in layout:
            advance(finished, total)
            finished += 1
            pixels = plan.prepare(each)
            if pixels is None:
                found.append(nothing)
            else:
                found.append(segmenter.paste(plan, each, segmenter.detect(plan, [pixels], references), 0, references))
        scales.append(found[0] if len(plan.tiles) == 1 else merge_tiles(found, layout, plan.size, plan.margin))
    merged = dataclasses.replace(merge_scales(scales), names=nothing.names, unwanted=references.unwanted)
    height, width = plans[0].size
    if all(len(plan.tiles) == 1 for plan in plans):
        return merged, (0.0, 0.0, float(width), float(height))
    x1, y1, x2, y2 = part
    xs, ys = ((merged.boxes[:, place] + merged.boxes[:, place + 2]) / 2 for place in (0, 1))
    return merged.select((xs >= x1) & (xs < x2) & (ys >= y1) & (ys < y2)), part


def _over(part: Box, plan: TilePlan) -> list[Tile]:
    """Tiles of the plan's size over a part of its image, and as far around it as a cell of it may reach."""
    if len(plan.tiles) == 1:
        return plan.tiles
    overlap = round(4 * plan.margin)  # as `plan_tiles` has it
    lows, lengths = [], []
    for low, high, side, length in zip(part[:2], part[2:], plan.window[::-1], plan.size[::-1], strict=True):
        first, last = max(int(low) - overlap // 2, 0), min(int(high) + overlap // 2, length)
        first = max(min(first, length - side), 0) if last - first < side else first
        lows.append(first)
        lengths.append(max(last - first, side))
    (x, y), (width, height) = lows, lengths

    def moved(box: Box) -> Box:
        return box[0] + x, box[1] + y, box[2] + x, box[3] + y

    return [
        Tile(
            Window(each.window.x0 + x, each.window.y0 + y, each.window.x1 + x, each.window.y1 + y),
            moved(each.core),
            moved(each.alone),
        )
        for each in tiles((height, width), plan.window, overlap)
    ]
