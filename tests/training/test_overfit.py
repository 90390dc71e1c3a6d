"""Learning is real: configs/overfit.py memorises four images, masks included."""

import importlib.util
import json
import pathlib

import pytest

from fsis_jax.synthetic.generate import generate
from fsis_jax.training.loop import train_and_evaluate

pytestmark = pytest.mark.slow

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "overfit.py"


def _final_ap50(root: pathlib.Path, fold: int, workdir: pathlib.Path) -> float:
    """Mask AP50 on the training images at the end of a run."""
    spec = importlib.util.spec_from_file_location("overfit", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.data.root = str(root)
    config.data.fold = fold
    train_and_evaluate(config, workdir)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row["validation/mask_ap50"] for row in rows if "validation/mask_ap50" in row][-1]


def test_four_synthetic_images(tmp_path: pathlib.Path) -> None:
    root = generate(tmp_path / "data", images_per_category=4, two_category_images=6)
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    kept = {image["id"] for image in content["images"][::7][:4]}
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    path.write_text(json.dumps(content))
    assert len(kept) == 4
    assert _final_ap50(root, 0, tmp_path / "run") >= 0.9


def test_four_real_images(cells_tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Fold 1 leaves two categories of two images each."""
    assert _final_ap50(cells_tiny, 1, tmp_path / "run") >= 0.85
