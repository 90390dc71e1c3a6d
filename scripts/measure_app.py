"""How fast the page of `fsis app` answers, in Chromium: segmenting, sliders, corrections, and the memory of a slide.

    python scripts/measure_app.py [--only network,outlines,slide] [--image FILE] [--checkpoint W]

Needs `pip install -e ".[browser]"`. One line for each number; `network` warms the page up first.
"""

import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import tifffile
from page_driver import Tab, chromium, running_app
from playwright import sync_api

from fsis_jax.cli import run
from fsis_jax.cli.parsing import Parser
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.traits import TRAITS, KindModel
from fsis_jax.interactive.learning import Basis
from fsis_jax.interactive.saved import SessionFile
from fsis_jax.interactive.shapes import ellipse
from fsis_jax.interactive.state import Filters, Reference, Result, State
from fsis_jax.io.outlines import Box
from fsis_jax.io.source import open_image
from fsis_jax.pretrained import default_weights
from fsis_jax.synthetic.appearances import APPEARANCES
from fsis_jax.synthetic.drawing import draw

SIZE = (1280, 800)
SQUARE = (1060, 800)
"""Of which the picture is square."""
SIDE = 2048
OUTLINES = 2000
SLIDE = 20_000
STEPS = 12
SECONDS = 3600
STEP = """
async (value) => {
  const slider = fsisModel("score"), picture = fsisModel("picture");
  const layers = picture.renderers.filter((each) => each.view.filter.indices);
  const start = performance.now();
  const changed = new Promise((done) => layers.forEach((each) => each.view.filter.change.connect(() => done())));
  slider.value = value;
  await changed;
  const chosen = performance.now() - start;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [chosen, performance.now() - start];
}
"""
"""Milliseconds until the outlines are chosen, and until they are painted."""


def measure_app(arguments: Sequence[str]) -> None:
    """Run the parts that are wanted."""
    parser = Parser(prog="measure_app.py", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--image", help=f"of {SIDE}x{SIDE} pixels, with --box; default: one that is drawn")
    parser.add_argument("--box", help="X1,Y1,X2,Y2 around a cell of that image, in its upper left quarter")
    parser.add_argument("--checkpoint", default=default_weights(), help="the model")
    options = parser.parse_args(arguments)
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder, chromium() as browser:
            path, box = _drawn(pathlib.Path(folder))
            if options.image and options.box:
                x1, y1, x2, y2 = map(float, options.box.split(","))
                path, box = str(pathlib.Path(options.image).absolute()), (x1, y1, x2, y2)
            PARTS[name](browser, pathlib.Path(folder), options.checkpoint, Reference(path, box))


def network(browser: sync_api.Browser, folder: pathlib.Path, checkpoint: str, shown: Reference) -> None:
    """From the first box on a warm page to what is seen, 1024x1024 pixels; and all of the image."""
    path, box = shown.image, shown.box
    with running_app(folder, [path, "--checkpoint", checkpoint], SECONDS) as (address, _):
        tab = Tab(browser, address, SQUARE)
        tab.page.evaluate(
            "() => { const {inner_width, inner_height, x_range, y_range} = fsisModel('picture');"
            "x_range.setv({start: 0, end: 1024}); y_range.setv({start: 1024 * inner_height / inner_width, end: 0}) }"
        )
        time.sleep(2)
        times = []
        for _ in range(2):
            start = time.monotonic()
            tab.drag(box)
            tab.wait_for("count", "part", SECONDS)
            times.append(time.monotonic() - start)
            tab.press("Undo")
            tab.press("Undo")
            tab.wait_for("count", "Nothing")
        _tell("first view, cold", times[0], "s")
        _tell("first view, warm", times[1], "s")
        tab.page.locator("input[type=checkbox]").first.uncheck()
        tab.drag(box)
        for name in ("whole image", "whole image, again"):
            start = time.monotonic()
            tab.press("Segment image")
            tab.wait_for("work", "part")
            tab.page.wait_for_function("() => fsisModel('work').text == ''", timeout=1000 * SECONDS)
            _tell(name, time.monotonic() - start, "s")
    segmenter = Segmenter.from_pretrained(checkpoint)
    x1, y1, x2, y2 = (int(value) for value in box)
    with open_image(path) as opened:
        references = segmenter.encode_references([np.asarray(opened[y1:y2, x1:x2])])
        for name in ("Segmenter.segment, cold", "Segmenter.segment"):
            start = time.monotonic()
            segmenter.segment(opened, references)
            _tell(name, time.monotonic() - start, "s")


def outlines(browser: sync_api.Browser, folder: pathlib.Path, checkpoint: str, shown: Reference) -> None:
    """A step of the slider, and a correction, with many outlines."""
    path, box = shown.image, shown.box
    side = SIDE // int(np.ceil(np.sqrt(OUTLINES)))
    places = [(x, y) for y in range(0, SIDE - side, side) for x in range(0, SIDE - side, side)][:OUTLINES]
    crops = tuple(ellipse((x + 4.0, y + 6.0, x + side - 3.0, y + side - 2.0)) for x, y in places)
    scores = np.linspace(1, 0, len(crops), dtype=np.float32)
    traits = np.random.default_rng(0).normal(0, 0.1, (len(crops), len(TRAITS))).astype(np.float32)
    evidence = np.stack([np.linspace(4, -4, len(crops)), np.ones(len(crops))], axis=1).astype(np.float32)
    boxes = np.array([crop.extent for crop in crops], np.float32)
    found = Instances(boxes, scores, crops, (SIDE, SIDE), evidence=evidence, traits=traits)
    references = (Reference(path, box),)
    basis = Basis(KindModel(traits[:3], np.zeros(3, np.int32), 1), None, 0.75)
    state = State(references, {path: Result(found, references, basis=basis)})
    SessionFile(folder / "fsis-app/session.json").write(state, Filters(0.0), path, checkpoint)
    with running_app(folder, [path, "--checkpoint", checkpoint], SECONDS) as (address, _):
        tab = Tab(browser, address, SIZE)
        tab.wait_for("count", f"^{OUTLINES} ")
        steps = []
        for number in range(STEPS):
            steps.append(tab.page.evaluate(STEP, 0.02 * (number % 5 + 1)))
            time.sleep(0.5)
        chosen, painted = np.median(steps, axis=0)
        _tell(f"slider, {OUTLINES} outlines: chosen", chosen, "ms")
        _tell(f"slider, {OUTLINES} outlines: painted", painted, "ms")
        tab.press("Mark wrong")
        corrections = []
        for number, (_, point) in enumerate(tab.drawn()[:STEPS:3], start=1):
            start = time.monotonic()
            tab.page.mouse.click(*tab.at(*point))
            tab.wait_for("count", f"{number} wrong")
            corrections.append(time.monotonic() - start)
            time.sleep(0.4)
        _tell("correction", float(np.median(corrections)), "s")


def slide(browser: sync_api.Browser, folder: pathlib.Path, checkpoint: str, _: Reference) -> None:
    """Memory of the process while a slide of one resolution is moved about in."""
    drawn = draw(np.random.default_rng(0), [APPEARANCES["tissue_nuclei"]], 512, 512).pixels
    path, count = str(folder / "slide.tif"), -(-SLIDE // 512)
    options: dict[str, Any] = {"shape": (SLIDE, SLIDE, 3), "dtype": np.uint8, "tile": (512, 512), "photometric": "rgb"}
    tifffile.imwrite(path, (drawn for _ in range(count**2)), bigtiff=True, compression="zlib", **options)
    small = folder / "small.png"
    cv2.imwrite(str(small), drawn)
    with running_app(folder, [str(small), path, "--checkpoint", checkpoint], SECONDS) as (address, process):
        tab = Tab(browser, address, SIZE)
        before = _memory(process, "VmRSS")
        start = time.monotonic()
        tab.page.get_by_role("combobox").select_option(label=f"{folder.name}/slide.tif")
        tab.wait_for("message", f"{SLIDE} x {SLIDE}", SECONDS)
        _tell(f"slide of {SLIDE}x{SLIDE} opened", time.monotonic() - start, "s")
        tab.page.get_by_role("button", name="Move", exact=True).click()
        for number in range(40):
            x, y = 300 + 17 * number % 600, 200 + 29 * number % 400
            tab.page.mouse.move(x + 330, y + 100)
            tab.page.mouse.wheel(0, -300 if number % 8 < 6 else 500)
            time.sleep(0.2)
            tab.page.mouse.down()
            tab.page.mouse.move(x + 200, y + 150, steps=5)
            tab.page.mouse.up()
            time.sleep(0.3)
        _tell("memory of moving about in it", (_memory(process, "VmHWM") - before) / 1024, "MB")


Part = Callable[[sync_api.Browser, pathlib.Path, str, Reference], None]
PARTS: dict[str, Part] = {"network": network, "outlines": outlines, "slide": slide}


def _drawn(folder: pathlib.Path) -> tuple[str, Box]:
    """An image, and a box around a cell in its upper left corner."""
    drawing = draw(np.random.default_rng(1), [APPEARANCES["fluo_textured"]], 512, 512)
    path = str(folder / "image.png")
    cv2.imwrite(path, np.tile(drawing.pixels, (SIDE // 512, SIDE // 512, 1))[..., ::-1])
    inner = [np.nonzero(mask) for mask in drawing.masks if not (mask[:20].any() or mask[:, :20].any())]
    ys, xs = max(inner, key=lambda where: len(where[0]))
    return path, (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))


def _memory(process: int, kind: str) -> int:
    """kB, of Linux."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{kind}:")).split()[1])


def _tell(what: str, value: float, unit: str) -> None:
    print(f"{what:<44}{value:10.1f} {unit}", flush=True)


if __name__ == "__main__":
    run(measure_app, sys.argv[1:])
