"""Closed-set detectors: images without references, several categories, boxes for masks, keypoints."""

import csv
import dataclasses
import json

import cv2
import numpy as np
import pytest
import roifile
import tiny
import tiny_closed_set
from scripts_of_tests import TESTS
from seen import candidates
from tiny_closed_set import NAMES, discs, untrained

from fsis_jax.checkpoints.weights import Trained, save_weights
from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.references import NO_REFERENCES
from fsis_jax.inference.tiling import Tile, merge_tiles
from fsis_jax.io.names import FILES
from fsis_jax.io.outputs import write_outputs
from fsis_jax.preprocess.windows import Window

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def plain(quick_compile):
    return untrained(tiny_closed_set.get_config())


@pytest.fixture(scope="module")
def found(plain):
    return candidates(plain, discs())


@pytest.fixture(scope="module")
def posed(quick_compile):
    return untrained(tiny_closed_set.keypoint_config())


def _same(one, two):
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.classes, two.classes)
    assert one.names == two.names
    assert (one.keypoints is None) == (two.keypoints is None)
    if one.keypoints is not None:
        np.testing.assert_array_equal(one.keypoints, two.keypoints)
    np.testing.assert_array_equal(one.labels(0.0), two.labels(0.0))


def test_every_instance_has_a_category(plain, found):
    assert plain.names == found.names == NAMES
    assert found.classes.dtype == np.int32
    assert set(found.categories) == set(NAMES)
    assert found.keypoints is None
    parts = [found.of_category(name) for name in NAMES]
    assert sum(map(len, parts)) == len(found)
    for name, part in zip(NAMES, parts, strict=True):
        assert part.category == name
        assert set(part.categories) == {name}
        np.testing.assert_array_equal(part.scores, found.scores[found.classes == NAMES.index(name)])
    assert found.without_overlaps().labels().max() == len(found.without_overlaps().classes)


def _rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_stream_of_images(plain, found):
    jobs = [Job(discs()), Job(discs((64, 64), seed=1)), Job(discs())]
    results = list(plain.candidates(jobs))
    assert [job for job, _ in results] == jobs
    _same(results[0][1], found)
    _same(results[2][1], found)


def test_references_where_there_are_none_and_none_where_there_are_some(plain, found):
    message = r"references given, but this model finds categories that it knows \(fluo_discs, bacteria_rods\): leave"
    with pytest.raises(FsisError, match=message):
        candidates(plain, discs(), [discs()[:20, :20]])
    with pytest.raises(FsisError, match=message):
        candidates(plain, discs(), dataclasses.replace(NO_REFERENCES, sides=np.ones((1, 2), np.float32)))
    few_shot = untrained(tiny.get_config())
    for nothing in (None, NO_REFERENCES):
        with pytest.raises(FsisError, match="no reference given: this model finds the cells that it is shown; give at"):
            candidates(few_shot, discs(), nothing)
    with pytest.raises(FsisError, match="no category 'x' among the instances; they have: fluo_discs, bacteria_rods"):
        found.of_category("x")
    with pytest.raises(FsisError, match="they have: no categories, as they were found by references"):
        Instances.none((4, 4)).of_category("x")


def test_without_a_mask_head_the_box_is_the_mask(quick_compile):
    found = candidates(untrained(tiny_closed_set.boxes_config()), discs())
    assert len(found) > 0
    for box, crop in zip(found.boxes, found.masks, strict=True):
        assert crop.mask.all()
        assert np.abs(np.array(crop.extent) - box).max() <= 0.5
    # Also in the convention that pastes masks at whole pixels.
    boxes = np.array([[10, 20, 29, 39]], np.float32)
    (crop,) = Instances.from_padded(boxes, np.ones(1), np.ones(1, bool), None, (64, 64), offset=1, legacy=True).masks
    assert crop.extent == (10, 20, 30, 40)
    assert crop.mask.all()


def test_keypoints_lie_in_their_boxes_and_stay_with_them(posed):
    found = candidates(posed, discs())
    assert found.keypoints.shape == (len(found), 3, 3)
    low, high = found.boxes[:, None, :2], found.boxes[:, None, 2:]
    assert ((found.keypoints[..., :2] >= low - 1) & (found.keypoints[..., :2] <= high + 1)).all()
    np.testing.assert_array_equal(found.select(found.scores < found.scores[0]).keypoints, found.keypoints[1:])
    kept = found.without_overlaps()
    rows = [np.flatnonzero((found.boxes == box).all(axis=1))[0] for box in kept.boxes]
    np.testing.assert_array_equal(kept.keypoints, found.keypoints[rows])
    row = found.to_coco(7, 1)[1]
    expected = found.keypoints[1] - [0.5, 0.5, 0]  # COCO's coordinates name pixels
    np.testing.assert_allclose(row["keypoints"], expected.ravel(), rtol=1e-6)


def test_a_large_image_is_shrunk_and_read_in_tiles_if_asked(posed, tmp_path):
    image = discs((150, 200))
    steps = []
    ((_, whole),) = posed.candidates([Job(image)], progress=lambda _, *step: steps.append(step))
    assert steps == [(1, 1)]
    journal = Journal(tmp_path / "tiles", "key")
    job = Job(image, journal=journal)
    steps.clear()
    ((_, tiled),) = posed.candidates([job], tile=64, progress=lambda _, *step: steps.append(step))
    journal.close()
    assert len(steps) > 4
    assert len(tiled) > len(whole)
    assert tiled.keypoints.shape == (len(tiled), 3, 3)
    low, high = tiled.boxes[:, None, :2], tiled.boxes[:, None, 2:]
    assert ((tiled.keypoints[..., :2] >= low - 1) & (tiled.keypoints[..., :2] <= high + 1)).all()
    again = Journal(tmp_path / "tiles", "key")
    assert len(again.finished) == len(steps)
    _same(posed.found_so_far(Job(image, journal=again), tile=64), tiled)
    # Nothing is known of the size of the cells: a tile is not left out because it shows none.
    steps.clear()
    noise = np.random.default_rng(0).integers(0, 3, (150, 200), np.uint8)
    list(posed.candidates([Job(noise)], tile=64, progress=lambda _, *step: steps.append(step)))
    assert steps[-1] == (len(again.finished), len(again.finished))


def _part(x, score, number):
    square = CroppedMask(20, x, np.ones((20, 20), bool))
    box = np.array([[x, 20, x + 20, 40]], np.float32)
    return Instances(box, np.array([score], np.float32), (square,), (64, 64), classes=np.array([number]), names=NAMES)


@pytest.mark.parametrize(("number", "left"), [(0, 1), (1, 2)])
def test_tiles_find_the_same_twice_only_in_one_category(number, left):
    layout = [
        Tile(Window(0, 0, 64, 64), (0, 0, 48, 64), (0, 0, 32, 64)),
        Tile(Window(32, 0, 96, 64), (48, 0, 96, 64), (64, 0, 96, 64)),
    ]
    merged = merge_tiles([_part(38, 0.9, 0), _part(6, 0.7, number)], layout, (64, 96), margin=8)
    assert len(merged) == left
    assert merged.categories == (NAMES[0], NAMES[number])[:left]


def test_files_name_the_category_of_each_instance(found, tmp_path):
    kept = found.without_overlaps()
    write_outputs(tmp_path, "a", discs(), kept, list(FILES))
    rows = _rows(tmp_path / "a-table.csv")
    assert list(rows[0])[:3] == ["label", "category", "score"]
    assert tuple(row["category"] for row in rows) == kept.categories
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    told = [feature["properties"]["classification"] for feature in features]
    assert tuple(row["name"] for row in told) == kept.categories
    assert len({tuple(row["color"]) for row in told}) == len(set(kept.categories))
    content = json.loads((tmp_path / "a-coco.json").read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    assert tuple(names[row["category_id"]] for row in content["annotations"]) == kept.categories
    rois = roifile.roiread(tmp_path / "a-rois.zip")
    assert tuple(roi.properties["category"] for roi in rois) == kept.categories
    picture = cv2.imread(str(tmp_path / "a-overlay.png"))
    write_outputs(tmp_path, "b", discs(), dataclasses.replace(kept, classes=None, names=()), ["overlay"])
    assert (picture != cv2.imread(str(tmp_path / "b-overlay.png"))).any()  # the names are written


@pytest.fixture
def weights(plain, tmp_path):
    path = tmp_path / "plain.npz"
    save_weights(path, Trained.of(plain.model, plain.config, {"min_score": 0.0}))
    return path


def test_from_the_command_line(fsis, weights, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), discs())
    cv2.imwrite(str(tmp_path / "crop.png"), discs()[:20, :20])
    command = ("segment", tmp_path / "a.png", "--output", tmp_path / "out", "--save", "table")
    outcome = fsis(*command, "--checkpoint", weights)
    assert outcome.status == 0, outcome.stderr
    rows = _rows(tmp_path / "out" / "a-table.csv")
    assert outcome.stdout == f"{tmp_path / 'a.png'}: {len(rows)} instances\n"
    assert {row["category"] for row in rows} <= set(NAMES)
    before = (tmp_path / "out" / "a-table.csv").read_bytes()
    outcome = fsis(*command, "--checkpoint", weights, "--augment")
    assert outcome.status == 0, outcome.stderr
    assert (tmp_path / "out" / "a-table.csv").read_bytes() != before
    error = fsis(*command, "--checkpoint", weights, "--references", tmp_path / "crop.png").error
    assert error.endswith("plain.npz finds what it knows by name (fluo_discs, bacteria_rods): leave the references out")
    error = fsis(*command, "--checkpoint", weights, "--category", "cell").error
    assert "--category cell: " in error
    assert error.endswith("plain.npz has names of its own (fluo_discs, bacteria_rods): leave it out")
    crops = ("--references", tmp_path / "crop.png", "--output", tmp_path / "x.refs")
    assert "references given, but this model finds" in fsis("references", *crops, "--checkpoint", weights).error


@pytest.mark.slow
def test_evaluation_from_the_command_line(fsis, weights, tiny_data, tmp_path):
    options = ("--config", TESTS / "tiny_closed_set.py", "--workdir", tmp_path, f"--config.data.root={tiny_data}")
    outcome = fsis("evaluate", *options, "--checkpoint", weights, "--config.eval.max_images=0")
    assert outcome.status == 0, outcome.stderr
    (path,) = (tmp_path / "evaluation").glob("*.json")
    assert path.name == "plain-plain-all.json"
    assert outcome.stdout.splitlines()[-1] == f"written to {path}"
    lines = outcome.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["category", *NAMES, "mean"]
    results = json.loads(path.read_text())
    assert len(results["repeats"]) == 1
    assert set(results["mean"]) == {"mask", "box", "mask_box", "bioimage", "histology", "touching"}
    pictures = list(path.with_suffix("").glob("*.png"))
    assert len(pictures) == 1
    augmented = ("--config.eval.flip=True", "--config.eval.scales=1.5,", "--config.eval.max_images=1")
    outcome = fsis("evaluate", *options, "--checkpoint", weights, *augmented)
    assert outcome.status == 0, outcome.stderr
    assert (tmp_path / "evaluation" / "plain-augmented-plain-all.json").is_file()
