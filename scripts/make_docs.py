"""Make docs/command_line.md, and the pictures of README.md and docs/analysts.md on images drawn here.

python scripts/make_docs.py [--checkpoint W]
"""

import pathlib
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from command_line import command_line
from PIL import Image, ImageDraw, ImageFont

from fsis_jax.cli import run
from fsis_jax.cli.parsing import Parser
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tile_plan import plan_tiles
from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.overlay import draw_overlay
from fsis_jax.preprocess.transform_config import transform_config
from fsis_jax.synthetic.appearances import APPEARANCES
from fsis_jax.synthetic.drawing import Drawing, draw
from fsis_jax.synthetic.sample import KINDS, draw_sample

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
FONT = ImageFont.load_default(size=20)
PAPER, INK = (255, 255, 255), (32, 34, 38)
BOX, WINDOW, FOUND = (255, 221, 0), (20, 80, 200), (0, 190, 90)
Box = tuple[int, int, int, int]


def make_docs(arguments: Sequence[str]) -> None:
    """Write the page, which needs no model, then the pictures."""
    parser = Parser(prog="make_docs.py", description=__doc__)
    parser.add_argument("--checkpoint", metavar="W", help="the model, and its default, as for `fsis segment`")
    options = parser.parse_args(arguments)
    with atomic_write(DOCS / "command_line.md") as file:
        file.write(command_line().encode())
    segmenter = Segmenter.from_pretrained(options.checkpoint)
    _save("reference.png", _one_reference(segmenter))
    _save("two_kinds.png", _two_kinds(segmenter))
    _save("tiles.png", _tiles(segmenter))


def _one_reference(segmenter: Segmenter) -> Image.Image:
    """An image with a box around a cell, and the overlay of what is found."""
    drawing = _drawing(9, "tissue_nuclei", "tissue_vesicles")
    box = _example(drawing, 0)
    found = _segment(segmenter, drawing.pixels, box)
    return _beside(
        _panel(drawing.pixels, [("reference", box)], "Shown: a box around one cell"),
        _panel(drawing.pixels, [], f"Found: {len(found)} cells", found),
    )


def _two_kinds(segmenter: Segmenter) -> Image.Image:
    """An image with boxes around examples of its two kinds of cell, and what is found of both at once."""
    sample = draw_sample(2)
    boxes = {kind: sample.examples(kind, 3) for kind in KINDS}
    panel = References.of_kinds({kind: segmenter.encode_boxes(sample.image, of) for kind, of in boxes.items()})
    found = segmenter.segment(sample.image, panel)
    image = to_rgb8(sample.image, stretch=True)
    counts = ", ".join(f"{found.kinds.count(kind)} {kind}" for kind in KINDS)
    shown = [(kind, box) for kind, of_kind in boxes.items() for box in of_kind]
    return _beside(
        _panel(image, shown, "Shown: boxes around three of each kind"), _panel(image, [], f"Found: {counts}", found)
    )


def _tiles(segmenter: Segmenter) -> Image.Image:
    """A piece of tissue on glass: the tiles that it is read in, and those that show nothing."""
    image, box = _tissue_on_glass()
    side = np.array([[box[3] - box[1], box[2] - box[0]]])
    plan = plan_tiles(image, side, segmenter.config, transform_config(segmenter.config))
    found = _segment(segmenter, image, box)
    picture = image.copy()
    for crop in found.masks:
        part = picture[crop.slices]
        part[crop.mask] = 0.3 * part[crop.mask] + 0.7 * np.array(FOUND)
    layers, unread = np.zeros(image.shape[:2], int), np.ones(image.shape[:2], bool)
    windows = [(t.window.x0, t.window.y0, t.window.x1, t.window.y1) for t in plan.tiles]
    left_out = [plan.prepare(tile) is None for tile in plan.tiles]
    for (x1, y1, x2, y2), empty in zip(windows, left_out, strict=True):
        layers[y1:y2, x1:x2] += 1
        unread[y1:y2, x1:x2] &= empty
    picture[layers > 1] = 0.85 * picture[layers > 1] + 0.15 * np.array(WINDOW)
    y, x = np.indices(unread.shape)
    picture[unread & ((x + y) % 12 < 2)] = (190, 192, 196)
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    for x1, y1, x2, y2 in windows:
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=WINDOW)
    _mark(pen, box)
    tiles = f"{len(windows)} tiles, their overlaps in blue. Hatched: {sum(left_out)} tiles that show nothing"
    return _captioned(drawn, f"{tiles}. Found: {len(found)} cells")


def _drawing(seed: int, *appearances: str) -> Drawing:
    return draw(np.random.default_rng(seed), [APPEARANCES[appearance] for appearance in appearances], 320, 400)


def _tissue_on_glass() -> tuple[np.ndarray, Box]:
    """An image (H, W, 3) uint8, larger than a tile, and the box of a nucleus."""
    height, width = 544, 1000
    rng = np.random.default_rng(3)
    tissue = draw(rng, [APPEARANCES["tissue_nuclei"]] * 9, height, width)
    glass = 243 + rng.normal(0, 1.5, (height, width, 1))
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2(y - 270, x - 330)
    radius = 225 + 24 * np.sin(3 * angle + 1) + 12 * np.sin(7 * angle)
    inside = np.hypot((x - 330) / 1.2, y - 270) < radius
    share = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 2)[..., None]
    image = np.rint(share * tissue.pixels + (1 - share) * glass).astype(np.uint8)
    middle = [mask for mask in tissue.masks if inside[mask].all()]
    return image, _box(sorted(middle, key=np.count_nonzero)[len(middle) // 2])


def _example(drawing: Drawing, kind: int) -> Box:
    """The box of the largest cell of a kind that is away from the border and from other cells."""
    height, width = drawing.pixels.shape[:2]
    covered = np.any(drawing.masks, axis=0)
    ranked: list[tuple[bool, int, Box]] = []
    for mask, appearance in zip(drawing.masks, drawing.appearances, strict=True):
        x1, y1, x2, y2 = box = _box(mask)
        if appearance == kind and x1 > 10 and y1 > 10 and x2 < width - 70 and y2 < height - 10:
            others = (covered & ~mask)[y1 - 8 : y2 + 8, x1 - 8 : x2 + 8]
            ranked.append((not others.any(), int(np.count_nonzero(mask)), box))
    return max(ranked)[2]


def _box(mask: np.ndarray) -> Box:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _segment(segmenter: Segmenter, image: np.ndarray, box: Box) -> Instances:
    return segmenter.segment(image, segmenter.encode_boxes(image, [box]))


def _panel(
    image: np.ndarray, boxes: Sequence[tuple[str, Box]], caption: str, found: Instances | None = None
) -> Image.Image:
    """An image at twice its size, with what was found, and boxes with their names."""
    picture = draw_overlay(image, found or Instances.none(image.shape[:2]), text=None)
    drawn = Image.fromarray(picture)
    for name, box in boxes:
        _mark(ImageDraw.Draw(drawn), box, name, picture.shape[0] // image.shape[0])
    drawn = drawn.resize((drawn.width * 3 // 4, drawn.height * 3 // 4), Image.Resampling.LANCZOS)
    return _captioned(drawn, caption)


def _mark(pen: ImageDraw.ImageDraw, box: Box, name: str = "reference", zoom: int = 1) -> None:
    """A box around a reference, and a word beside it."""
    x1, y1, x2, y2 = (value * zoom + grow for value, grow in zip(box, (-4, -4, 3, 3), strict=True))
    pen.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline=(0, 0, 0), width=6)
    pen.rectangle((x1, y1, x2, y2), outline=BOX, width=3)
    at_right = x2 + 12 + pen.textlength(name, FONT) > pen.im.size[0]
    place, anchor = ((x1 - 8, y1 - 4), "ra") if at_right else ((x2 + 8, y1 - 4), "la")
    pen.text(place, name, fill=BOX, font=FONT, anchor=anchor, stroke_width=3, stroke_fill=(0, 0, 0))


def _captioned(picture: Image.Image, caption: str) -> Image.Image:
    page = Image.new("RGB", (picture.width, picture.height + 36), PAPER)
    page.paste(picture, (0, 36))
    ImageDraw.Draw(page).text((2, 6), caption, fill=INK, font=FONT)
    return page


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    page = Image.new("RGB", (left.width + right.width + 16, left.height), PAPER)
    page.paste(left, (0, 0))
    page.paste(right, (left.width + 16, 0))
    return page


def _save(name: str, picture: Image.Image) -> None:
    """As a PNG of 256 colours, which takes a third of the space."""
    path = DOCS / "images" / name
    with atomic_write(path) as file:
        coloured = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        coloured.save(file, format="PNG", optimize=True)
    print(f"{path}: {path.stat().st_size >> 10} kB")


if __name__ == "__main__":
    run(make_docs, sys.argv[1:])
