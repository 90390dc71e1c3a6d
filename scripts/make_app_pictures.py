"""Make the pictures of docs/app.md: the page at each step, on an image that is drawn here.

python scripts/make_app_pictures.py [--checkpoint W]      (needs `pip install -e ".[browser]"` and Chromium)
"""

import io
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import cv2
import numpy as np
from page_driver import Tab, chromium, running_app
from PIL import Image

from fsis_jax.cli import run
from fsis_jax.cli.parsing import Parser
from fsis_jax.io.atomic import atomic_write
from fsis_jax.synthetic.appearances import APPEARANCES
from fsis_jax.synthetic.drawing import Drawing, draw

IMAGES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "images"
SIZE = (1280, 800)
COLOURS = 224
EXAMPLES = 2
WRONG = 2
_TEXTURED, _RINGS = range(2)
SECONDS = 1800
"""For the first segmentation, which compiles the model."""


def make_app_pictures(arguments: Sequence[str]) -> None:
    """Go through the steps, and take a picture of each."""
    parser = Parser(prog="make_app_pictures.py", description=__doc__)
    parser.add_argument("--checkpoint", help="the model; default: as for `fsis app`")
    options = parser.parse_args(arguments)
    drawing = draw(np.random.default_rng(1), [APPEARANCES["fluo_textured"], APPEARANCES["fluo_membranes"]], 480, 640)
    # Without the noise of its background, of which a PNG becomes four times as large.
    calm = np.maximum(cv2.GaussianBlur(drawing.pixels, (0, 0), 0.8), 12)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "plate1")
        folder.mkdir()
        for name, pixels in (("A01", calm), ("A02", calm[:, ::-1])):
            cv2.imwrite(str(folder / f"{name}.png"), pixels)
        model = ["--checkpoint", options.checkpoint] if options.checkpoint else []
        with running_app(folder, model) as (address, _), chromium() as browser:
            tab = Tab(browser, address, SIZE)
            tab.page.locator("input[type=checkbox]").first.uncheck()
            for box in _examples(drawing, _TEXTURED):
                tab.drag(box)
            tab.page.wait_for_function(f"() => fsisModel('crops').text.split('<img').length == {EXAMPLES + 1}")
            _save("app_examples.png", tab)
            tab.press("Segment image")
            tab.wait_for("count", "in the image", SECONDS)
            tab.page.mouse.move(*tab.at(*tab.drawn()[0][1]))
            _save("app_found.png", tab)
            tab.press("Mark wrong")
            for point in _on_others(tab, drawing)[:WRONG]:
                tab.click(*point)
            tab.wait_for("count", f"{WRONG} wrong")
            tab.press("Export image")
            tab.wait_for("written", "labels")
            tab.page.get_by_text("The same without this page").click()
            _save("app_corrected.png", tab)
            _save("app_dark.png", Tab(browser, address, SIZE, "dark"))
            _kinds(tab, drawing)
            _save("app_kinds.png", tab)


def _kinds(tab: Tab, drawing: Drawing) -> None:
    """Name what is shown, show the other kind, and segment again."""
    tab.page.once("dialog", lambda dialog: dialog.accept("textured"))
    tab.page.get_by_role("button", name="rename cell", exact=True).click()
    tab.wait_for("crops", "textured")
    field = tab.page.get_by_placeholder("another kind")
    field.fill("rings")
    field.press("Enter")
    tab.wait_for("message", "rings: Drag a box")
    for box in _examples(drawing, _RINGS):
        tab.drag(box)
    tab.press("Segment image")
    tab.wait_for("count", r"rings [1-9]\d*", SECONDS)


def _on_others(tab: Tab, drawing: Drawing) -> list[tuple[float, float]]:
    """Points in outlines on cells that were not shown."""
    cells = zip(drawing.masks, drawing.appearances, strict=True)
    others = np.any([mask for mask, kind in cells if kind == _RINGS], axis=0)
    return [(x, y) for _, (x, y) in tab.drawn() if others[int(y), int(x)]]


def _examples(drawing: Drawing, wanted: int) -> list[tuple[int, int, int, int]]:
    """Boxes around the largest cells of a kind that are away from the border and from others."""
    height, width = drawing.pixels.shape[:2]
    covered = np.any(drawing.masks, axis=0)
    boxes = []
    for mask, kind in zip(drawing.masks, drawing.appearances, strict=True):
        ys, xs = np.nonzero(mask)
        x1, y1, x2, y2 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
        alone = not (covered & ~mask)[max(y1 - 3, 0) : y2 + 3, max(x1 - 3, 0) : x2 + 3].any()
        if kind == wanted and alone and min(x1, y1) > 10 and x2 < width - 10 and y2 < height - 10:
            boxes.append((int(mask.sum()), (x1, y1, x2, y2)))
    return [box for _, box in sorted(boxes)[-EXAMPLES:]]


def _save(name: str, tab: Tab) -> None:
    """What the tab shows, as a PNG of few colours."""
    tab.page.wait_for_timeout(600)
    picture = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
    with atomic_write(IMAGES / name) as file:
        few = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(file, format="PNG", optimize=True)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size >> 10} kB")


if __name__ == "__main__":
    run(make_app_pictures, sys.argv[1:])
