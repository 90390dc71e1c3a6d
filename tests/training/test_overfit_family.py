"""Closed-set detectors learn too: two configs memorise four images each, with classes and with keypoints."""

import json
import pathlib
import runpy

import pytest
from figures import generate_figures

from fsis_jax.synthetic.generate import generate
from fsis_jax.training.loop import train_and_evaluate

pytestmark = pytest.mark.slow

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def _final_validation(name: str, root: pathlib.Path, workdir: pathlib.Path) -> dict[str, float]:
    """What a run of a config finds on its training images at the end."""
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    config.data.root = str(root)
    train_and_evaluate(config, workdir)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "validation/min_score" in row][-1]


def _keep(root: pathlib.Path, names: set[str], count: int) -> None:
    """Leave only `count` training images that show nothing but these categories: those of two first, no two alike."""
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    category = {row["id"]: row["name"] for row in content["categories"]}
    shown: dict[int, set[str]] = {}
    for row in content["annotations"]:
        shown.setdefault(row["image_id"], set()).add(category[row["category_id"]])
    first = {frozenset(shows): image for image, shows in reversed(shown.items()) if shows <= names}
    kept = [first[shows] for shows in sorted(first, key=lambda shows: (-len(shows), sorted(shows)))][:count]
    assert len(kept) == count
    assert set.union(*(shown[image] for image in kept)) == names
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    path.write_text(json.dumps(content))


def test_three_classes(tmp_path: pathlib.Path) -> None:
    root = generate(tmp_path / "data", images_per_category=4, two_category_images=9)
    _keep(root, {"fluo_discs", "fluo_textured", "fluo_membranes"}, 4)
    found = _final_validation("overfit_classes", root, tmp_path / "run")
    assert found["validation/mask_ap50"] >= 0.9
    assert found["validation/mask_ap"] >= 0.7


def test_figures_with_keypoints(tmp_path: pathlib.Path) -> None:
    """AP over all similarities, of which AP50 is the easiest."""
    root = generate_figures(tmp_path / "data", images=4)
    found = _final_validation("overfit_keypoints", root, tmp_path / "run")
    assert found["validation/keypoint_ap"] >= 0.8
    assert found["validation/box_ap50"] >= 0.9
