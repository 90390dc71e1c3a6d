"""The test protocol with a segmenter that knows the answers, so that every number is known."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tiny
from memory_source import MemorySource, annotate, disc_source
from oracle import SCORES, Certain, Oracle, of_two_kinds
from pycocotools import mask as coco_mask

from fsis_jax.data.from_config import held_out
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.evaluation import outcomes
from fsis_jax.evaluation.baselines import otsu_watershed, predict_otsu_watershed
from fsis_jax.evaluation.predictions import Prediction, predict, segment_targets
from fsis_jax.evaluation.protocol import (
    format_table,
    run_protocol,
    validate,
    write_results,
)
from fsis_jax.evaluation.scores import score, summarise
from fsis_jax.inference.instances import Instances
from fsis_jax.preprocess.records import Subset


@pytest.fixture(scope="module")
def sources(tiny_data):
    return open_source(tiny_data, "test"), open_source(tiny_data, "train")


@pytest.fixture
def settings():
    settings = tiny.get_config().eval
    settings.max_images = 0
    settings.repeats = 2
    return settings


@pytest.mark.parametrize("references", ["train", "target"])
def test_the_right_answer_scores_1(sources, settings, tmp_path, references):
    targets, train = sources
    settings.overlays = 3
    seen, unseen = held_out(targets, 1)
    results = run_protocol(
        Oracle(targets, train),
        targets,
        train,
        [*seen, *unseen],
        shots=1,
        references=references,
        settings=settings,
        seed=0,
        overlays=tmp_path,
    )
    assert len(results["repeats"]) == 2
    for kind in ("mask", "box"):
        for name in ("AP", "AP50", "AP75", "AR@500"):
            assert results["mean"][kind][name] == pytest.approx(1), (kind, name)
            assert results["sd"][kind][name] == 0
        assert set(results["mean"][kind]["categories"]) == set(targets.categories.values())
        assert all(row["AP"] == pytest.approx(1) for row in results["mean"][kind]["categories"].values())
    for family, names in {
        "bioimage": ("AP@0.5", "AP@0.75", "F1@0.5", "F1@0.75"),
        "histology": ("AJI", "PQ"),
    }.items():
        assert set(results["mean"][family]) == {*names, "categories"}
        # The wrong instances, of score 0.2, count from the oracle's min_score of 0 on.
        assert all(0.3 < results["mean"][family][name] <= 1 for name in names), family
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_cells_of_another_category_are_wrong(sources, settings, tmp_path):
    """A network that finds every cell whatever it is shown does badly on images with two categories."""
    targets, train = sources

    class Heedless(Oracle):
        def category_of(self, crops):
            return -1  # so that everything scores the same

    both = [i for i, a in enumerate(targets.annotations) if len(set(a.classes.tolist())) > 1]
    assert both
    categories = sorted({int(c) for i in both for c in targets.annotations[i].classes})
    predictions = predict(Heedless(targets, train), targets, train, categories, shots=1, references="train")
    mixed = [p for p in predictions if p.target in both]
    assert {(p.target, p.category) for p in mixed} == {
        (i, c) for i in both for c in set(targets.annotations[i].classes.tolist())
    }
    result = score(targets, mixed, categories)
    assert 0.1 < result["mask"]["AP50"] < 0.9


def _prediction(targets, target, category, masks, scores):
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]
    found = Instances.from_rles(rles, (20, 60), scores=np.array(scores, np.float32))
    return Prediction(
        target=target,
        image_id=targets.annotations[target].image_id,
        category=category,
        instances=dataclasses.replace(found, min_score=0.5),
        references=np.zeros((0, 1, 1, 3), np.uint8),
    )


def test_counts_are_pooled_over_images_and_aji_is_their_mean():
    def bar(x, y=0, width=8):
        mask = np.zeros((20, 60), bool)
        mask[y : y + 2, x : x + width] = True
        return mask

    annotations = [
        annotate([bar(0), bar(10), bar(0, 15)], [1, 1, 1], size=(20, 60), crowd=[False, False, True], image_id=1),
        annotate([bar(0), bar(20)], [1, 2], size=(20, 60), image_id=2),
    ]
    targets = MemorySource([np.zeros((20, 60), np.uint8)] * 2, annotations)
    predictions = [
        # Both cells, a false one, one on a crowd, which is neither, and one that scores too little to count.
        _prediction(targets, 0, 1, [bar(0), bar(10), bar(30), bar(1, 15), bar(40)], [0.9, 0.9, 0.8, 0.8, 0.4]),
        _prediction(targets, 1, 1, [bar(0, width=5)], [0.7]),  # IoU 10 / 16
        _prediction(targets, 1, 2, [], []),
    ]
    result = score(targets, predictions, [1, 2])
    one = {
        "bioimage": {"AP@0.5": 3 / 4, "AP@0.75": 2 / 5, "F1@0.5": 6 / 7, "F1@0.75": 4 / 7},
        "histology": {"AJI": (32 / 48 + 10 / 16) / 2, "PQ": (2 + 10 / 16) / 3.5},
    }
    for family, expected in one.items():
        rows = result[family].pop("categories")
        assert rows["category 1"] == pytest.approx(expected)
        assert rows["category 2"] == dict.fromkeys(expected, 0)
        assert result[family] == pytest.approx({name: value / 2 for name, value in expected.items()})


def test_cells_in_a_crowd_are_found_and_what_else_lies_there_does_not_count():
    def square(x, side=4):
        mask = np.zeros((20, 60), bool)
        mask[2 : 2 + side, x : x + side] = True
        return mask

    annotations = [
        annotate(
            [square(0), square(8), square(0, 18)], [1, 2, 2], size=(20, 60), crowd=[False, False, True], image_id=1
        )
    ]
    targets = MemorySource([np.zeros((20, 60), np.uint8)], annotations)
    # The cell; a cell of the other category, which is false; what nobody has labelled.
    predictions = [_prediction(targets, 0, 1, [square(0), square(8), square(13)], [0.9, 0.8, 0.7])]
    result = score(targets, predictions, [1], families=("bioimage",))
    assert result["bioimage"]["AP@0.5"] == pytest.approx(1 / 2)


def test_cells_that_touch_are_counted_apart():
    """Boxes of 8 x 2 pixels: one of IoU 1/3 with its neighbour, whose own nearest is another; the last is alone."""

    def bar(x):
        mask = np.zeros((20, 60), bool)
        mask[:2, x : x + 8] = True
        return mask

    targets = MemorySource(
        [np.zeros((20, 60), np.uint8)], [annotate([bar(0), bar(4), bar(7), bar(30)], [1] * 4, size=(20, 60))]
    )
    result = score(targets, [_prediction(targets, 0, 1, [bar(0), bar(30)], [0.9, 0.9])], [1])
    # IoU 4/12 of the first and 5/11 of the second and third: those two overlap too widely to be told of.
    assert result["touching"] == {"recall@0.5": 1, "cells": 1, "categories": result["touching"]["categories"]}
    missed = score(targets, [_prediction(targets, 0, 1, [bar(30)], [0.9])], [1])
    assert missed["touching"]["recall@0.5"] == 0
    alone = MemorySource([np.zeros((20, 60), np.uint8)], [annotate([bar(0)], [1], size=(20, 60))])
    nothing = score(alone, [_prediction(alone, 0, 1, [bar(0)], [0.9])], [1])
    assert np.isnan(nothing["touching"]["recall@0.5"])
    assert nothing["touching"]["cells"] == 0


def test_a_category_that_no_test_image_shows_has_a_row_without_numbers(sources, settings, tmp_path):
    targets, train = sources
    name = targets.categories[1]
    without = Subset(targets, [i for i, a in enumerate(targets.annotations) if 1 not in a.classes])
    results = run_protocol(
        Certain(without, train),
        without,
        train,
        sorted(targets.categories),
        shots=1,
        references="train",
        settings=settings,
        seed=0,
        overlays=tmp_path,
    )
    assert results["mean"]["histology"]["PQ"] == pytest.approx(1)
    assert all(np.isnan(list(results["mean"][f]["categories"][name].values())).all() for f in ("bioimage", "histology"))
    (row,) = [line for line in format_table(results).splitlines() if line.startswith(f"{name} ")]
    assert set(row.removeprefix(name).split()) == {"-"}


def test_repeats_show_other_references_and_runs_the_same(sources):
    targets, train = sources

    def shown(**changes):
        oracle = Oracle(targets, train)
        predict(oracle, targets, train, [1, 2], **{"shots": 2, "references": "train", "repeat": 0, "seed": 0} | changes)
        assert all(len(crops) == 2 for crops in oracle.shown)
        return [crop.tobytes() for crops in oracle.shown for crop in crops]

    first = shown()
    assert shown() == first
    assert shown(repeat=1) != first
    assert shown(seed=1) != first
    assert shown(references="target") != first


def test_seen_and_unseen_categories(sources):
    targets, train = sources
    seen, unseen = held_out(targets, 1)
    assert unseen
    assert not set(seen) & set(unseen)
    assert set(seen) | set(unseen) == set(targets.categories)
    predictions = predict(Oracle(targets, train), targets, train, unseen, shots=1, references="train")
    assert {p.category for p in predictions} == set(unseen)
    assert {p.instances.category for p in predictions} == {targets.categories[c] for c in unseen}
    assert held_out(targets, 0) == (tuple(sorted(targets.categories)), ())
    with pytest.raises(FsisError, match=r"config.data.fold is 9; the data set has folds \[1, 2, 3\], and 0 for none"):
        held_out(targets, 9)
    with pytest.raises(
        FsisError, match=r"no image shows a cell of the categories \[\]; check eval.split and data.fold"
    ):
        predict(Oracle(targets, train), targets, train, [], shots=1, references="train")


def test_at_most_so_many_images_of_each_category(sources):
    targets, train = sources
    oracle = Oracle(targets, train)
    categories = sorted(targets.categories)
    some = predict(oracle, targets, train, categories, shots=1, references="train", max_images=1)
    every = predict(oracle, targets, train, categories, shots=1, references="train")
    assert {p.category for p in some} == {p.category for p in every} == set(categories)
    assert len({p.target for p in some}) < len({p.target for p in every})


def test_a_target_may_be_shown_what_it_does_not_hold(sources):
    targets, train = sources
    absent = next(c for c in targets.categories if c not in targets.annotations[0].classes)
    oracle = Oracle(targets, train)
    (prediction,) = segment_targets(oracle, targets, train, [(0, absent)], shots=1, references="train")
    assert (prediction.target, prediction.category) == (0, absent)
    assert (prediction.instances.scores == np.float32(SCORES[1])).all()


def test_references_of_a_wrong_category_are_of_one_that_the_target_does_not_show(sources):
    targets, train = sources
    every = sorted(targets.categories)
    found = predict(Certain(targets, train), targets, train, every, shots=2, references="wrong")
    right = predict(Certain(targets, train), targets, train, every, shots=2, references="train")
    assert [(p.target, p.category) for p in found] == [(p.target, p.category) for p in right]
    assert all((p.instances.scores == np.float32(SCORES[1])).all() for p in found)
    counted = score(targets, found, every)
    assert counted["bioimage"]["F1@0.5"] == 0
    assert counted["histology"] == {"AJI": 0, "PQ": 0, "categories": counted["histology"]["categories"]}
    assert score(targets, right, every)["bioimage"]["F1@0.5"] == pytest.approx(1)


def test_where_every_category_is_shown_none_is_wrong():
    targets, train = of_two_kinds(), disc_source(4)
    with pytest.raises(
        FsisError, match=r"^1\.png shows every category of the train split, .*eval\.references to train$"
    ):
        predict(Oracle(targets, train), targets, train, [1, 2], shots=1, references="wrong")


def test_otsu_and_watershed_part_two_touching_discs_dark_or_bright():
    rows, columns = np.mgrid[:80, :120]
    discs = [np.hypot(rows - 40, columns - x) < 15 for x in (35, 63)] + [np.hypot(rows - 20, columns - 100) < 8]
    for ground, cell in ((20, 200), (220, 60)):
        labels = otsu_watershed(np.where(np.any(discs, axis=0), cell, ground).astype(np.uint8))
        assert labels.max() == 3
        assert all(np.bincount(labels[disc], minlength=4).max() > 0.9 * disc.sum() for disc in discs)
    assert not otsu_watershed(np.full((40, 40), 7, np.uint8)).any()


def test_the_baseline_is_scored_like_a_model(sources):
    targets, _ = sources
    every = sorted(targets.categories)
    predictions = predict_otsu_watershed(targets, every)
    assert {(p.target, p.category) for p in predictions} == {
        (i, c) for i, a in enumerate(targets.annotations) for c in set(a.classes.tolist())
    }
    results = summarise([score(targets, predictions, every)])
    assert 0 < results["mean"]["mask"]["AP50"] < 1
    assert "AJI" in format_table(results)


def test_results_are_valid_json_and_a_table(sources, settings, tmp_path):
    targets, train = sources
    results = run_protocol(
        Oracle(targets, train),
        targets,
        train,
        [1],
        shots=1,
        references="train",
        settings=settings,
        seed=0,
        overlays=tmp_path,
    )
    name = targets.categories[1]
    areas = np.concatenate([a.areas[a.classes == 1] for a in targets.annotations])
    assert not (areas < 16**2).any() or not (areas >= 64**2).any()  # so that a number is missing below

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    path = write_results(tmp_path / "deep" / "results.json", tiny.get_config(), results, model={"weights": "w"})
    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["mean"]["mask"]["categories"][name]["AP"] == pytest.approx(1)
    assert content["mean"]["mask"]["AP_large"] is None
    assert content["config"]["training"]["steps"] == 12
    assert content["model"] == {"weights": "w"}
    lines = format_table(results).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["category", "mask", "AP"]
    assert lines[1].startswith(f"{name} ")
    assert lines[2].startswith("mean ")
    assert "1.000 ± 0.000" in lines[1]
    assert " - " in lines[1]  # mask AP_large
    assert len({line.find("1.000") for line in lines[1:]}) == 1


def test_validation_chooses_the_score_that_parts_right_from_wrong(sources, tmp_path):
    targets, train = sources
    result = validate(
        Oracle(targets, train),
        targets,
        train,
        sorted(targets.categories),
        shots=1,
        seed=0,
        overlays=tmp_path / "overlays",
        overlay_count=2,
    )
    assert result["mask_ap50"] == pytest.approx(1)
    assert result["mask_ap"] == pytest.approx(1)
    assert result["f1"] == pytest.approx(1)
    assert SCORES[1] < result["min_score"] < SCORES[0]
    assert len(list((tmp_path / "overlays").iterdir())) == 2


def test_overlays_show_only_what_scores_enough(sources, tmp_path, monkeypatch):
    targets, train = sources
    written = []
    monkeypatch.setattr(outcomes, "write_overlay", lambda path, image, instances, **_: written.append(instances))
    validate(
        Oracle(targets, train),
        targets,
        train,
        [1, 2],
        shots=1,
        seed=0,
        overlays=pathlib.Path(tmp_path),
        overlay_count=99,
    )
    assert written
    assert all((instances.scores == np.float32(SCORES[0])).all() for instances in written)
