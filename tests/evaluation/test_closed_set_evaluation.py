"""The test of closed-set detectors, with one that knows the answers, so that every number is known."""

import dataclasses

import numpy as np
import pytest
import tiny_closed_set
from memory_source import MemorySource, annotate, disc

from fsis_jax.checkpoints import runs
from fsis_jax.data.closed_set import class_ids
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.closed_set import EVERY, by_category, predict_closed_set
from fsis_jax.evaluation.coco_ap import coco_evaluate
from fsis_jax.evaluation.predictions import Prediction, read_target
from fsis_jax.evaluation.protocol import format_table, run_closed_set, validate
from fsis_jax.evaluation.scores import COCO_AREAS, families_of, predictions_to_coco, score
from fsis_jax.inference.instances import Instances

SIZE = (96, 128)
NAMES = ("category 2", "category 1")
"""Not in the order of the ids, as classes of a model need not be."""


def _source():
    """Images of categories 1, of both, of 3 alone, and of nothing."""
    places = [(20, 20), (60, 24), (100, 60)]
    images, annotations = [], []
    for number, classes in enumerate(([1, 1, 1], [1, 2, 2], [3, 3, 3], [])):
        masks = [disc(SIZE, x, y, 6 + 3 * category) for (x, y), category in zip(places, classes, strict=False)]
        image = np.full(SIZE, 20 + number, np.uint8)
        for mask in masks:
            image[mask] = 200
        images.append(image)
        annotations.append(annotate(masks, classes, size=SIZE, image_id=10 + number))
    return MemorySource(images, annotations)


class Oracle:
    """Finds all instances of its names, with their boxes for masks or keypoints if its config says so.

    On images without any it finds one of each, which scores `wrong`.
    """

    def __init__(self, source, config, wrong=0.3):
        self.config, self.wrong, self.min_score = config, wrong, 0.0
        self._images = {read_target(source, i).tobytes(): source.annotations[i] for i in range(len(source))}
        ids = {name: number for number, name in source.categories.items()}
        self._ids = [ids[name] for name in config.model.classes]

    def encode_references(self, crops, *, stretches, checked):
        raise AssertionError("a closed-set detector is shown no references")

    def candidates(self, jobs):
        for job in jobs:
            assert job.references is None
            yield job, self._find(self._images[job.image.tobytes()])

    def _find(self, annotations):
        rows = np.flatnonzero(np.isin(annotations.classes, self._ids))
        known = Instances.from_rles([annotations.rles[row] for row in rows], SIZE)
        classes = np.array([self._ids.index(number) for number in annotations.classes[rows]], np.int32)
        keypoints = annotations.keypoints[rows]
        if not len(rows):
            known = Instances.from_labels(np.kron(np.diag([1, 2]), np.ones((9, 9), int)))
            known = dataclasses.replace(known, size=SIZE, scores=np.full(2, self.wrong, np.float32))
            classes, keypoints = np.arange(2, dtype=np.int32), np.zeros((2, *annotations.keypoints.shape[1:]))
        points = self.config.model.keypoint_head.kind != "none"
        return dataclasses.replace(
            known, classes=classes, names=self.config.model.classes, keypoints=keypoints if points else None
        )


def _config(make=tiny_closed_set.get_config):
    config = make()
    config.model.classes = NAMES
    config.eval.max_images = 0
    config.eval.overlays = 9
    return config


@pytest.fixture(scope="module")
def source():
    return _source()


def test_the_right_answer_scores_1_and_pictures_show_whole_images(source, tmp_path):
    config = _config()
    oracle = Oracle(source, config, wrong=0.0)
    oracle.min_score = 0.5
    results = run_closed_set(oracle, source, [2, 1], settings=config.eval, overlays=tmp_path)
    assert len(results["repeats"]) == 1
    for family in ("mask", "box", "mask_box"):
        assert results["mean"][family]["AP"] == pytest.approx(1), family
        assert set(results["mean"][family]["categories"]) == set(NAMES)
    files = ["detections-bbox.json", "detections-segm.json", "images.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.png", "11.png", "12.png", "13.png", *files]
    lines = format_table(results).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["category", "mask"],
        ["category", "1"],
        ["category", "2"],
        ["mean", "1.000"],
    ]


def test_what_is_found_where_nothing_is_shown_is_wrong(source):
    """The two images without an instance of the categories have one false positive of each, above all others."""
    config = _config()
    found = predict_closed_set(Oracle(source, config, wrong=2.0), source, [1, 2])
    assert [p.target for p in found] == [0, 1, 2, 3]
    assert {p.category for p in found} == {EVERY}
    parted = by_category(source, found, [1, 2])
    assert [(p.target, p.category) for p in parted] == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert all(set(p.instances.categories) == {source.categories[p.category]} for p in parted)
    result = score(source, parted, [1, 2])
    # Precision at the n-th instance is n / (n + 2), of which COCO takes the largest from there on.
    assert result["mask"]["categories"]["category 1"]["AP50"] == pytest.approx(4 / 6, abs=1e-3)
    assert result["mask"]["categories"]["category 2"]["AP50"] == pytest.approx(2 / 4, abs=1e-3)
    assert result["bioimage"]["categories"]["category 1"]["F1@0.5"] == pytest.approx(2 * 4 / (2 * 4 + 2))


def test_predictions_that_are_left_out_count_for_nothing(source):
    """All categories on all images would give the same numbers."""
    found = predict_closed_set(Oracle(source, _config()), source, [1, 2])
    parted = by_category(source, found, [1, 2])
    every = [
        Prediction(p.target, p.image_id, c, p.instances.of_category(f"category {c}"), p.references)
        for p in found
        for c in (1, 2)
    ]
    assert len(every) == 8 > len(parted)
    one, two = score(source, parted, [1, 2]), score(source, every, [1, 2])
    np.testing.assert_equal(one, two)
    images = [annotations.image_id for annotations in source.annotations]
    direct = coco_evaluate(source.annotations, predictions_to_coco(every), images=images, categories=[1, 2])
    assert direct["AP"] == one["mask"]["AP"]


def test_at_most_so_many_images_of_each_category(source):
    oracle = Oracle(source, _config())
    assert [p.target for p in predict_closed_set(oracle, source, [1, 2], max_images=1)] == [0, 1]
    with pytest.raises(FsisError, match=r"no image shows a cell of the categories \[7\]"):
        predict_closed_set(oracle, source, [7])
    found = predict_closed_set(oracle, source, [3])
    with pytest.raises(FsisError, match="no category 'category 3' among the instances; they have: category 2, cat"):
        by_category(source, found, [3])


def test_a_model_without_masks_reports_boxes_alone(source, tmp_path):
    config = _config(tiny_closed_set.boxes_config)
    results = run_closed_set(Oracle(source, config, 0.0), source, [1, 2], settings=config.eval, overlays=tmp_path)
    assert set(results["mean"]) == {"box"}
    lines = format_table(results).splitlines()
    assert lines[0].split()[:3] == ["category", "box", "AP"]
    assert len(lines) == 4


def _with_keypoints(source):
    """Keypoints at three corners of each box."""
    annotations = []
    for record in source.annotations:
        x1, y1, x2, y2 = record.boxes.T
        points = np.stack([np.stack([x, y, np.full_like(x, 2)], axis=-1) for x, y in ((x1, y1), (x2, y1), (x1, y2))], 1)
        annotations.append(dataclasses.replace(record, keypoints=points, keypoint_names=("a", "b", "c")))
    images = [read_target(source, i) for i in range(len(source))]
    return MemorySource(images, annotations)


def test_a_model_with_keypoints_reports_them_too(source, tmp_path):
    config = _config(tiny_closed_set.keypoint_config)
    posed = _with_keypoints(source)
    results = run_closed_set(Oracle(posed, config, 0.0), posed, [1, 2], settings=config.eval, overlays=tmp_path)
    assert set(results["mean"]) == {"mask", "box", "mask_box", "bioimage", "histology", "touching", "keypoints"}
    assert results["mean"]["keypoints"]["AP"] == pytest.approx(1)
    assert "AR@20" in results["mean"]["keypoints"]
    assert " ".join(format_table(results).splitlines()[0].split()).endswith(
        "keypoints AP keypoints AP50 keypoints AP75"
    )
    with pytest.raises(FsisError, match="the annotations have no keypoints to compare with"):
        run_closed_set(Oracle(source, config), source, [1, 2], settings=config.eval, overlays=tmp_path)


def test_small_and_large_are_what_coco_calls_so(source, tmp_path):
    config = _config()
    results = run_closed_set(Oracle(source, config, 0.0), source, [1, 2], settings=config.eval, overlays=tmp_path)
    largest = max(record.areas.max(initial=0) for record in source.annotations[:2])
    assert 16**2 < largest < COCO_AREAS[0]
    assert results["mean"]["mask"]["AP_small"] == pytest.approx(1)
    assert np.isnan(results["mean"]["mask"]["AP_medium"])


def test_validation_chooses_the_score_that_parts_right_from_wrong(source, tmp_path):
    for make, expected in (
        (tiny_closed_set.get_config, {"mask_ap50", "mask_ap", "box_ap50", "f1", "min_score"}),
        (tiny_closed_set.boxes_config, {"box_ap50", "box_ap", "f1", "min_score"}),
        (
            tiny_closed_set.keypoint_config,
            {"mask_ap50", "mask_ap", "box_ap50", "keypoint_ap50", "keypoint_ap", "f1", "min_score"},
        ),
    ):
        config = _config(make)
        posed = _with_keypoints(source)
        folder = tmp_path / make.__name__
        options = {"shots": 1, "seed": 0, "overlays": folder, "overlay_count": 2}
        result = validate(Oracle(posed, config), posed, posed, [2, 1], **options)
        assert set(result) == expected
        assert 0.3 < result.pop("min_score") < 1
        assert result == pytest.approx(dict.fromkeys(result, 1))
        assert len(list(folder.iterdir())) == 2


def test_the_best_checkpoint_of_a_model_without_masks_is_chosen_by_boxes(source, tmp_path):
    config = _config(tiny_closed_set.boxes_config)
    options = {"shots": 1, "seed": 0, "overlays": tmp_path, "overlay_count": 0}
    result = validate(Oracle(source, config), source, source, [2, 1], **options)
    assert "mask_ap50" not in result
    assert result["box_ap50"] == pytest.approx(1)
    assert runs._ap50({"box_ap50": 0.25}) == 0.25
    assert runs._ap50({"box_ap50": 0.25, "mask_ap50": 0.5}) == 0.5


def test_families_follow_the_heads():
    model = tiny_closed_set.keypoint_config().model
    model.mask_head.kind = "none"
    assert families_of(model) == ("box", "keypoints")


def test_an_untrained_network_is_tested_like_any(tiny_data, tmp_path, quick_compile):
    targets = open_source(tiny_data, "test")
    config = tiny_closed_set.get_config()
    config.eval.max_images = 2
    network = tiny_closed_set.untrained(config)
    categories = class_ids(targets.categories, network.names)
    results = run_closed_set(network, targets, categories, settings=config.eval, overlays=tmp_path)
    assert 0 <= results["mean"]["mask"]["AP"] < 0.5
    assert set(results["mean"]["mask"]["categories"]) == set(network.names)
