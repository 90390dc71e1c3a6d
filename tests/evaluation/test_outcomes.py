"""What was hit, missed and false: against pycocotools' own command-line example, in counts and in pictures."""

import contextlib
import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import tiny_closed_set
from memory_source import MemorySource, annotate, disc
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsis_jax.evaluation.outcomes import outcome
from fsis_jax.evaluation.predictions import Prediction, read_target
from fsis_jax.evaluation.protocol import run_closed_set
from fsis_jax.inference.instances import Instances
from fsis_jax.io.overlay import JUDGED

SIZE = (320, 420)
NAMES = ("category 1", "category 2", "category 3")


def _drawn():
    """Twelve images of three classes, of small, medium and large instances."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(12):
        masks, classes = [], []
        for y in (80, 230):
            for x in (80, 210, 340):
                masks.append(disc(SIZE, x, y, int(rng.choice([8, 20, 58]))))
                classes.append(int(rng.integers(1, 4)))
        image = np.full(SIZE, 20 + number, np.uint8)
        image[np.any(masks, axis=0)] = 200
        images.append(image)
        annotations.append(annotate(masks, classes, size=SIZE, image_id=100 + number))
    return MemorySource(images, annotations)


class Careless:
    """Finds most instances a few pixels off, some as another class, and some where there is nothing."""

    min_score = 0.5

    def __init__(self, source):
        self.config = tiny_closed_set.get_config()
        self.config.model.classes = NAMES
        self._images = {read_target(source, i).tobytes(): source.annotations[i] for i in range(len(source))}
        self._rng = np.random.default_rng(1)

    def candidates(self, jobs):
        for job in jobs:
            yield job, self._find(self._images[job.image.tobytes()])

    def _find(self, annotations):
        rng = self._rng
        rows = np.concatenate([np.flatnonzero(rng.random(len(annotations.rles)) < 0.85), rng.integers(0, 6, 2)])
        scores = np.sort(rng.random(len(rows)).astype(np.float32))[::-1]
        known = Instances.from_rles([annotations.rles[row] for row in rows], SIZE)
        steps = rng.integers(-3, 4, (len(rows), 2)).tolist()
        moved = [m._replace(y=m.y + dy, x=m.x + dx) for m, (dy, dx) in zip(known.masks, steps, strict=True)]
        boxes = [[m.x, m.y, m.x + m.mask.shape[1], m.y + m.mask.shape[0]] for m in moved]
        classes = np.where(rng.random(len(rows)) < 0.8, annotations.classes[rows] - 1, rng.integers(0, 3, len(rows)))
        return Instances(
            np.array(boxes, np.float32),
            scores,
            tuple(moved),
            SIZE,
            min_score=self.min_score,
            classes=classes.astype(np.int32),
            names=NAMES,
        )


def _write_truth(source, path):
    """COCO's file of a source's annotations."""
    images, rows = [], []
    for one in source.annotations:
        images.append({"id": one.image_id, "file_name": one.file_name, "height": one.height, "width": one.width})
        for row, rle in enumerate(one.rles):
            x1, y1, x2, y2 = one.boxes[row].tolist()
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": one.image_id,
                    "category_id": int(one.classes[row]),
                    "iscrowd": 0,
                    "area": float(one.areas[row]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": {"size": list(SIZE), "counts": rle.decode()},
                }
            )
    categories = [{"id": key, "name": name} for key, name in source.categories.items()]
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": rows, "categories": categories}))


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """The source, the results of a test, and its folder."""
    folder = tmp_path_factory.mktemp("tested")
    source = _drawn()
    model = Careless(source)
    model.config.eval.max_images, model.config.eval.overlays = 0, 3
    results = run_closed_set(model, source, [1, 2, 3], settings=model.config.eval, overlays=folder / "plain")
    _write_truth(source, folder / "test.json")
    return source, results, folder


@pytest.mark.parametrize(("kind", "family"), [("bbox", "box"), ("segm", "mask")])
def test_pycocotools_says_the_same_of_the_files(tested, kind, family):
    """As its command-line example has it, with its own limits."""
    _, results, folder = tested
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "test.json"))
        evaluator = COCOeval(truth, truth.loadRes(str(folder / "plain" / f"detections-{kind}.json")), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    ours = results["mean"][family]
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    np.testing.assert_allclose([ours[name] for name in names], evaluator.stats[:6], rtol=0, atol=1e-12)
    assert 0.2 < ours["AP"] < 0.9
    rows = json.loads((folder / "plain" / f"detections-{kind}.json").read_text())
    assert set(rows[0]) == {"image_id", "category_id", "score", {"bbox": "bbox", "segm": "segmentation"}[kind]}


def test_counts_of_each_image_add_up_to_those_of_the_table(tested):
    source, results, folder = tested
    with (folder / "plain" / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["category"] for row in rows} == set(NAMES)
    for name in NAMES:
        hit, missed, false, cells, found = (
            sum(int(row[key]) for row in rows if row["category"] == name)
            for key in ("hit", "missed", "false", "cells", "found")
        )
        category = next(key for key, other in source.categories.items() if other == name)
        assert cells == hit + missed == sum((one.classes == category).sum() for one in source.annotations)
        assert found == hit + false
        ours = results["mean"]["bioimage"]["categories"][name]
        assert ours["AP@0.5"] == pytest.approx(hit / (hit + missed + false))


def test_pictures_show_each_in_its_colour(tested, monkeypatch):
    import cv2

    from fsis_jax.evaluation import outcomes

    folder = tested[2]
    assert len(list((folder / "plain").glob("*.png"))) == 3
    masks = [disc(SIZE, 60, 60, 20), disc(SIZE, 160, 160, 20)]
    image = np.full(SIZE, 90, np.uint8)
    one = MemorySource([image], [annotate(masks, [1, 1], size=SIZE)])
    found = Instances.from_labels(disc(SIZE, 61, 60, 20).astype(int) + 2 * disc(SIZE, 260, 60, 20))
    found = dataclasses.replace(found, names=NAMES, classes=np.zeros(2, np.int32))
    prediction = Prediction(0, one.annotations[0].image_id, 1, found, np.zeros((0, 1, 1, 3), np.uint8))
    assert outcome(one, prediction).counts == {"cells": 2, "found": 2, "hit": 1, "missed": 1, "false": 1}
    outcomes.save_overlays(folder / "one", one, [prediction], [1], 1)
    (path,) = (folder / "one").iterdir()
    namesakes = [dataclasses.replace(one.annotations[0], file_name=f"{plate}/a.png") for plate in "12"]
    both = MemorySource([image] * 2, namesakes)
    outcomes.save_overlays(folder / "both", both, [dataclasses.replace(prediction, target=i) for i in (0, 1)], [1], 2)
    assert {path.name for path in (folder / "both").iterdir()} == {"1-a-1.png", "2-a-1.png"}
    picture = cv2.imread(str(path))[..., ::-1].astype(int)
    factor = picture.shape[0] // SIZE[0]
    picture = picture[:, -SIZE[1] * factor :]  # right of the legend
    for judgement, x, y in (("hit", 61, 60), ("missed", 160, 160), ("false", 260, 60)):
        around = picture[(y - 24) * factor : (y + 24) * factor, (x - 24) * factor : (x + 24) * factor]
        for other, colour in JUDGED.items():
            near = np.abs(around - colour).max(2) < 12
            assert near.any() == (other == judgement), (judgement, other)
