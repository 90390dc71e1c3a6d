"""`fsis data` as a user gives it."""

import json

from fsis_jax.data import merging
from fsis_jax.synthetic import generate


def test_an_annotation_outside_its_image(fsis, data):
    damaged = {}

    def move(content):
        row, image = content["annotations"][3], content["images"][0]
        far = image["width"] + 500
        damaged["id"] = row["id"]
        row["bbox"] = [far, 5, 10, 10]
        row["segmentation"] = [[far, 5, far + 10, 5, far + 10, 15, far, 15]]

    path = data / "annotations/train.json"
    content = json.loads(path.read_text())
    move(content)
    path.write_text(json.dumps(content))
    outcome = fsis("data", "check", data)
    assert outcome.status == 1
    assert f"annotations/train.json: annotation {damaged['id']}: " in outcome.stdout
    assert "1 problem\n" in outcome.stdout
    clean = fsis("data", "check", data.parent / "nowhere")
    assert "no such data folder" in clean.error


def test_a_sound_folder_passes_the_check(fsis, tiny_data):
    outcome = fsis("data", "check", tiny_data)
    assert outcome.status == 0
    assert "no problems" in outcome.stdout
    assert "33/11 (44)" in outcome.stdout


def test_synthetic_data_in_the_layout_of_fis_cell(fsis, tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(generate, "generate", lambda output, **options: made.update(output=output, **options) or output)
    counts = ("--images-per-category", "30", "--two-category-images", "0")
    assert fsis("data", "synthetic", "--layout", "fis_cell", "--output", "x", "--seed", "3", *counts).status == 0
    assert made == {
        "output": "x",
        "layout": "fis_cell",
        "seed": 3,
        "images_per_category": 30,
        "two_category_images": 0,
        "random_categories": 0,
        "crowded_categories": 0,
        "flat_categories": 0,
    }


def test_data_is_not_written_over(fsis, data):
    before = sorted(data.rglob("*"))
    assert (
        f"{data}: exists already: delete it or choose another folder"
        in fsis("data", "synthetic", "--output", data).error
    )
    assert sorted(data.rglob("*")) == before


def test_merged_folders(fsis, monkeypatch):
    made = {}
    monkeypatch.setattr(
        merging, "merge_folders", lambda roots, output, folds: made.update(r=roots, o=output, f=folds) or "c"
    )
    result = fsis("data", "merge", "a", "b", "--output", "c", "--folds", "f.json")
    assert (result.status, made) == (0, {"r": ["a", "b"], "o": "c", "f": "f.json"})
