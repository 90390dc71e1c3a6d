"""What the shipped models are promised to do, on drawn and on real cells."""

import os
import subprocess
import sys

import numpy as np
import pytest
from rods import draw_rods

from fsis_jax.data.opening import open_source
from fsis_jax.evaluation.instance_metrics import match, total
from fsis_jax.evaluation.predictions import predict
from fsis_jax.evaluation.scores import score
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.pretrained import SHIPPED

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SHIPPED)
def test_the_demo_finds_nine_of_ten_cells_and_hardly_a_false_one(tmp_path, name):
    environment = os.environ | {"FSIS_WEIGHTS": name}
    call = "from fsis_jax.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", call, "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("nuclei", "membranes"))]
    assert [row[0] for row in rows] == ["nuclei", "membranes"]
    there, found, false = (sum(int(row[column]) for row in rows) for column in (2, 3, 5))
    assert there >= 60
    assert found >= 0.9 * there
    assert false <= 0.05 * (found + false)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "cells-drawn"])
def test_it_segments_real_cells(cells_tiny, name):
    """Of kinds that it was trained on."""
    targets, train = open_source(cells_tiny, "test"), open_source(cells_tiny, "train")
    categories = sorted({int(c) for a in targets.annotations for c in a.classes})
    model = Segmenter.from_pretrained(name)
    scores = {
        references: score(
            targets,
            predict(model, targets, train, categories, shots=1, references=references, max_images=2),
            categories,
        )["mask"]["AP50"]
        for references in ("train", "wrong")
    }
    assert scores["train"] > 0.6
    assert scores["train"] > scores["wrong"] + 0.1


@pytest.mark.parametrize(("name", "recall", "precision"), [("cells-base", 0.9, 0.95), ("cells-drawn", 0.75, 0.84)])
def test_it_parts_rods_that_touch(name, recall, precision):
    """260 rods of 9 x 26 to 60 pixels, of which it was shown five, by another generator than it learnt from."""
    model, counts = Segmenter.from_pretrained(name), []
    for seed in (101, 102):
        image, labels = draw_rods(seed, count=130, side=512)
        true = Instances.from_labels(labels)
        shown = np.random.default_rng(seed).choice(len(true), 5, replace=False)
        boxes = true.boxes[shown].astype(int).tolist()
        sides = np.array([(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes])
        references = model.encode_references(
            [image[y1:y2, x1:x2] for x1, y1, x2, y2 in boxes], stretches=[model.stretch_of(image, sides)] * 5
        )
        counts.append(match(true, model.segment(image, references)))
    found = total(counts)
    assert found.recall > recall
    assert found.precision > precision
