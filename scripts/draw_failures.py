"""Draw what the fold models find and miss of kinds that they have never seen: docs/images/failures.png.

python scripts/draw_failures.py --data DIR [--runs runs/models]

The models are runs or weights files, fold-1 to fold-5 or fold-1.npz to fold-5.npz (scripts/make_models.py makes runs).

Of every kind the test image of median F1 and the one of least F1, with 5 references from other images. Outlines alone:
the images are not part of the project.
"""

import argparse
import pathlib

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsis_jax.data.opening import open_source
from fsis_jax.evaluation.instance_metrics import matched_pairs
from fsis_jax.evaluation.predictions import Prediction, pairs_to_test, segment_targets
from fsis_jax.evaluation.scores import counted
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.atomic import atomic_write
from fsis_jax.preprocess.records import Source

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "docs" / "images" / "failures.png"
SIDE, MARGIN, TITLE = 330, 8, 26
PAPER, INK = (255, 255, 255), (32, 34, 38)
FOUND, MISSED, FALSE = (0, 150, 80), (215, 40, 40), (240, 160, 0)
FONT = ImageFont.load_default(size=16)


def main() -> None:
    """Two panels for every kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/models"), metavar="DIR")
    options = parser.parse_args()
    targets, train = open_source(options.data, "test"), open_source(options.data, "train")
    panels = {}
    for fold, categories in targets.folds.items():
        run = options.runs / f"fold-{fold}"
        model = Segmenter.from_pretrained(run if run.exists() else run.with_suffix(".npz"))
        for category in categories:
            work = pairs_to_test(targets, [category], 0)
            ranked = []
            for found in segment_targets(model, targets, train, work, shots=5, references="train"):
                drawn = Drawn(targets, found)
                ranked.append((drawn.f1, found.target, drawn))
            ranked.sort(key=lambda row: row[:2])
            panels[category] = [ranked[len(ranked) // 2][2], ranked[0][2]]
    sheet = _sheet([(targets.categories[category], panels[category]) for category in sorted(panels)])
    with atomic_write(OUTPUT) as file:
        sheet.quantize(64, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)


class Drawn:
    """A prediction beside the truth: which cells are found, and which instances are right, at IoU 0.5."""

    def __init__(self, targets: Source, prediction: Prediction) -> None:
        self.size = prediction.instances.size
        self.truth, self.found = counted(targets, prediction)
        self.hit = np.zeros(len(self.truth), bool)
        self.right = np.zeros(len(self.found), bool)
        rows, columns = matched_pairs(self.truth, self.found)
        self.hit[rows] = self.right[columns] = True

    @property
    def f1(self) -> float:
        """At IoU 0.5."""
        return float(2 * self.hit.sum() / max(len(self.truth) + len(self.found), 1))

    def draw(self, side: int) -> Image.Image:
        """Found cells outlined in green, missed ones filled in red, false ones outlined in orange."""
        zoom = side / max(self.size)
        picture = np.full((round(self.size[0] * zoom), round(self.size[1] * zoom), 3), 245, np.uint8)
        for instances, chosen, colour, fill in (
            (self.truth, ~self.hit, MISSED, True),
            (self.found, ~self.right, FALSE, False),
            (self.found, self.right, FOUND, False),
        ):
            for crop, wanted in zip(instances.masks, chosen, strict=True):
                if wanted:
                    outlines, _ = cv2.findContours(crop.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                    corner = np.array([crop.slices[1].start, crop.slices[0].start])
                    scaled = [np.rint((outline + corner + 0.5) * zoom).astype(np.int32) for outline in outlines]
                    cv2.drawContours(picture, scaled, -1, colour, -1 if fill else 2, cv2.LINE_AA)
        return Image.fromarray(picture)


def _sheet(rows: list[tuple[str, list[Drawn]]]) -> Image.Image:
    """Two kinds side by side in a row, so four panels."""
    across = 4
    lines = -(-2 * len(rows) // across)
    page = Image.new("RGB", (across * (SIDE + MARGIN), lines * (SIDE + TITLE + MARGIN)), PAPER)
    pen = ImageDraw.Draw(page)
    panels = [
        (name, which, drawn) for name, pair in rows for which, drawn in zip(("median", "worst"), pair, strict=True)
    ]
    for number, (name, which, drawn) in enumerate(panels):
        y, x = divmod(number, across)
        place = (x * (SIDE + MARGIN), y * (SIDE + TITLE + MARGIN))
        pen.text((place[0] + 2, place[1] + 2), f"{name}, {which}: F1 {drawn.f1:.2f}", fill=INK, font=FONT)
        page.paste(drawn.draw(SIDE), (place[0], place[1] + TITLE))
    return page


if __name__ == "__main__":
    main()
