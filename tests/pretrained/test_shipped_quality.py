"""What the shipped models are promised to do, on drawn and on real cells."""

import os
import subprocess
import sys

import pytest

from fsis_jax.data.coco import open_source
from fsis_jax.evaluation.predictions import predict
from fsis_jax.evaluation.scores import score
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


@pytest.mark.parametrize("name", SHIPPED)
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
