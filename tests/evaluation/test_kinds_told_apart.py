"""Numbers of how kinds are told apart, checked by hand."""

import numpy as np
import pytest
import tiny
from memory_source import MemorySource, annotate, disc
from tiny_closed_set import untrained

from fsis_jax.errors import FsisError
from fsis_jax.evaluation import kind_numbers as module
from fsis_jax.evaluation.kinds import _corrections, kind_groups, measure_kinds
from fsis_jax.evaluation.protocol import format_kinds
from fsis_jax.evaluation.scores import summarise
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.references import NO_REFERENCES
from fsis_jax.inference.traits import TRAITS

pytestmark = pytest.mark.usefixtures("quick_compile")


def _found(cells, instances):
    """Of cells (x, kind) and instances (x, kind, probability of it), all of 10x10 pixels in a row; kind -1: a crowd."""
    scores = np.array([score for *_, score in instances], np.float32)
    kinds = np.array([kind for _, kind, _ in instances], np.int32)
    each = np.zeros((len(instances), 3), np.float32)
    each[np.arange(len(kinds)), kinds], each[:, 2] = scores, 1 - scores
    boxes = [(x, 0, x + 10, 10) for x, *_ in instances]
    candidates = Instances(
        np.array(boxes, np.float32),
        scores,
        tuple(CroppedMask(0, x, np.ones((10, 10), bool)) for x, *_ in instances),
        (10, 200),
        classes=kinds,
        names=("a", "b"),
        kind_scores=each,
        evidence=np.zeros((len(instances), 3), np.float32),
        traits=np.arange(len(instances), dtype=np.float32)[:, None] * np.ones(len(TRAITS), np.float32),
    )
    truth = np.array([(x, 0, x + 10, 10) for x, _ in cells], float).reshape(-1, 4)
    masks = [CroppedMask(0, x, np.ones((10, 10), bool)) for x, _ in cells]
    return module.Found(0, candidates, NO_REFERENCES, truth, np.array([kind for _, kind in cells]), masks)


@pytest.fixture
def image():
    cells = [(0, 0), (20, 0), (40, 1), (60, 1), (80, -1)]
    # Right, taken for b, right, missed (60), on a crowd, on nothing.
    return _found(cells, [(0, 0, 0.9), (20, 1, 0.8), (40, 1, 0.7), (80, 0, 0.6), (120, 1, 0.5)])


def test_f1_and_the_share_on_other_kinds(image):
    a, b = (module.scores([image], kind) for kind in (0, 1))
    assert a == {"F1": pytest.approx(2 / 3), "on other": 0, "cells": 2}  # 1 right, 0 wrong, 2 cells
    assert b == {"F1": pytest.approx(2 / 5), "on other": pytest.approx(1 / 3), "cells": 2}  # 1 right, 2 wrong


def test_a_kind_without_cells_has_no_f1():
    none = module.scores([_found([(0, 0)], [(0, 0, 0.9), (20, 1, 0.8)])], 1)
    assert np.isnan(none["F1"])
    assert (none["on other"], none["cells"]) == (0, 0)
    assert np.isnan(module.scores([_found([(0, 0)], [(0, 0, 0.9)])], 1)["on other"])


def test_kinds_told_right_is_the_most_that_telling_them_apart_gives(image):
    told = module.told(image)
    assert told.classes.tolist() == [0, 0, 1, 0, 1]
    again = module.dataclasses.replace(image, candidates=told)
    assert module.scores([again], 0)["F1"] == 1
    assert module.scores([again], 1)["F1"] == pytest.approx(0.5)


def test_the_confusion(image):
    np.testing.assert_array_equal(module.confusion([image], 2), [[1, 1, 0], [0, 1, 1], [0, 1, 0]])


def test_two_instances_on_one_cell_count_once():
    image = _found([(0, 0)], [(0, 0, 0.9), (2, 0, 0.8)])
    both = module.dataclasses.replace(image.candidates, boxes_only=True)  # which may overlap
    assert module.scores([module.dataclasses.replace(image, candidates=both)], 0)["F1"] == pytest.approx(2 / 3)


def test_by_centres_a_core_is_its_cell_and_a_box_beside_it_is_none():
    image = _found([(0, 0), (20, 1), (80, -1)], [(0, 0, 0.9), (22, 1, 0.8), (16, 1, 0.7), (83, 0, 0.6), (40, 0, 0.5)])
    core = np.array([(0, 0, 10, 10), (24, 4, 26, 6), (13, 0, 23, 10), (84, 3, 90, 9), (40, 0, 50, 10)], np.float32)
    image = module.dataclasses.replace(image, candidates=module.dataclasses.replace(image.candidates, boxes=core))
    assert image.matched(image.candidates, [0, 1, 1, 0, 0], "centres").tolist() == [0, 1, -1, -2, -1]
    assert module.scores([image], 1, "centres") == {"F1": pytest.approx(2 / 3), "on other": 0, "cells": 1}
    assert module.scores([image], 1)["F1"] == 0  # the box of the core is another than the cell's


def test_by_centres_a_cell_is_found_once_and_by_its_own_kind_first():
    image = _found([(0, 0), (6, 1)], [(3, 1, 0.9), (2, 0, 0.8), (4, 0, 0.7)])
    assert image.matched(image.candidates, [1, 0, 0], "centres").tolist() == [1, 0, -1]


def test_calibration_is_the_gap_between_what_is_told_and_what_is_right(image):
    tables = [module.reliability([image], kind) for kind in (0, 1)]
    assert {name: row for name, row in tables[0].items() if row["instances"]} == {
        "0.8-1.0": {"instances": 1, "probability": pytest.approx(0.9), "right": 1}
    }
    assert module.calibration(tables[0]) == pytest.approx(0.1)
    # 0.8 wrong, alone in its bin; 0.7 right and 0.5 wrong in bins of their own.
    assert [row["right"] for row in tables[1].values() if row["instances"]] == [0, 1, 0]
    assert module.calibration(tables[1]) == pytest.approx((0.8 + 0.3 + 0.5) / 3)
    assert np.isnan(module.calibration(module.reliability([], 0)))


def test_corrections_are_drawn_of_each_kind_and_of_nothing(image):
    traits, kinds = _corrections([image], 2, 1, np.arange(100))
    assert kinds.tolist() == [0, 1, 2]
    assert traits[:, 0].tolist() == [0, 2, 4]  # the first of each; what lies on a crowd is none
    _, all_kinds = _corrections([image], 2, 9, np.arange(100))
    assert all_kinds.tolist() == [0, 0, 1, 2]


def _source(count, categories=(1, 2)):
    size, images, annotations = (60, 80), [], []
    for number in range(count):
        masks = [disc(size, 20, 20, 9), disc(size, 55, 35, 9)]
        image = np.where(masks[0], 220, np.where(masks[1], 120, 20)).astype(np.uint8)
        images.append(image)
        annotations.append(annotate(masks, list(categories), size=size, image_id=1 + number))
    return MemorySource(images, annotations)


def test_groups_are_kinds_that_are_shown_together():
    assert kind_groups(_source(2), (1, 2)) == [[1, 2]]
    with pytest.raises(FsisError, match="no test image shows two of the kinds"):
        kind_groups(_source(2), (1,))


def test_a_whole_test_has_every_number(quick_compile):
    model = untrained(tiny.get_config())
    model = model.with_options(min_score=0.0)
    results = summarise([measure_kinds(model, _source(2), _source(3), (1, 2), shots=1, seed=0)])
    for values in results["mean"]["kinds"].values():
        assert {*values} == {
            *(
                "F1",
                "on other",
                "cells",
                "F1 alone",
                "on other alone",
                "F1 told",
                "AP50",
                "ECE",
                "F1 centres",
                "on other centres",
            ),
            *(f"F1 after {count}" for count in (5, 10, 20)),
        }
        assert values["cells"] == 2
        assert all(0 <= values[name] <= 1 for name in values if name.startswith("F1"))
        assert values["F1 told"] >= values["F1"]
    table = format_kinds(results)
    assert table.startswith("kind ")
    assert "are the probabilities the shares that are right?" in table
    assert "nothing, of" in table
