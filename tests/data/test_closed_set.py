"""Training data of closed-set detectors: no references, and classes by name."""

import dataclasses

import numpy as np
import pytest
import tiny
from coco_folder import annotation, content, square, write_folder, write_json
from memory_source import MemorySource, annotate, disc

from fsis_jax.config_check import check_config
from fsis_jax.data.closed_set import ClosedSetSampler, class_ids, class_numbers
from fsis_jax.data.episodes import Episode
from fsis_jax.data.examples import ImageCache, training_example
from fsis_jax.data.from_config import open_splits, seen_and_unseen, training_batches
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.transform_config import TransformConfig

NAMES = {3: "round", 5: "long", 9: "star"}


@pytest.fixture
def config():
    """A closed-set detector of two of the kinds of synthetic cell, not in their order."""
    config = tiny.get_config()
    config.model.classes = ("tissue_spindles", "fluo_discs")
    config.model.matching.kind = "none"
    config.model.relation = "none"
    config.data.fold = 0
    config.data.transform.scale = "shortest_side"
    config.data.transform.shortest_side = 64
    config.data.transform.longest_side = 96
    config.data.transform.max_instances = 64
    config.data.train_canvases = ((64, 96), (96, 64), (96, 96))
    check_config(config)
    return config


def test_classes_are_found_by_name():
    assert class_ids(NAMES, ("star", "round")) == (9, 3)
    with pytest.raises(
        FsisError, match=r"classes has 'cat', but the data set no such category; it has: round, long, star$"
    ):
        class_ids(NAMES, ("star", "cat"))
    with pytest.raises(FsisError, match=r"classes has 'round': 2 categories of that name; rename them$"):
        class_ids({**NAMES, 10: "round"}, ("round",))


def test_classes_are_numbered_in_the_order_of_their_names():
    numbers = class_numbers(np.array([3, 5, 9, 9, 3], np.int32), (9, 3))
    np.testing.assert_array_equal(numbers, [2, 0, 1, 1, 2])
    assert numbers.dtype == np.int32
    assert class_numbers(np.zeros(0, np.int32), (9, 3)).shape == (0,)


def test_an_episode_is_a_target_alone():
    sampler = ClosedSetSampler([4, 7, 9])
    assert sampler.targets == (4, 7, 9)
    assert sampler.episode(11, 7) == Episode(7, "plain", None, ())
    with pytest.raises(FsisError, match="no target image to train on"):
        ClosedSetSampler([])


def test_every_named_instance_is_a_positive_and_others_are_ignored():
    size = (64, 64)
    masks = [disc(size, x, y, 6) for x, y in ((16, 16), (48, 16), (16, 48), (48, 48))]
    record = annotate(masks, [9, 5, 3, 9], size=size, crowd=[False, False, False, True])
    source = MemorySource([np.full(size, 20, np.uint8)], [record])
    config = TransformConfig(
        scale="shortest_side", shortest_side=64, longest_side=64, reference_size=32, max_instances=6, flip=0.0
    )
    example = training_example(
        ImageCache(source, config),
        Episode(0, "plain", None, ()),
        config,
        canvas=(64, 64),
        trainable=(9, 3),
        rng=np.random.default_rng(0),
    )
    assert example["references"].shape == example["contrast_references"].shape == (0, 32, 32, 3)
    assert example["references"].dtype == np.uint8
    assert example["reference_present"]
    np.testing.assert_array_equal(example["gt_classes"], [1, 0, 2, 1, 0, 0])
    np.testing.assert_array_equal(example["gt_matches"], [True, False, True, True, False, False])
    np.testing.assert_array_equal(example["gt_ignore"], [False, True, False, True, False, False])
    np.testing.assert_array_equal(example["gt_valid"], [True] * 4 + [False] * 2)
    nothing = dataclasses.replace(record, classes=np.full(4, 5, np.int32))
    empty = training_example(
        ImageCache(MemorySource([np.full(size, 20, np.uint8)], [nothing]), config),
        Episode(0, "plain", None, ()),
        config,
        canvas=(64, 64),
        trainable=(9, 3),
        rng=np.random.default_rng(0),
    )
    assert empty["reference_present"]  # its background counts
    assert not empty["gt_matches"].any()


def test_batches_of_a_folder(config, tiny_data):
    config.data.root = str(tiny_data)
    splits = open_splits(config)
    names = {name: category for category, name in splits.train.categories.items()}
    assert splits.seen == (names["tissue_spindles"], names["fluo_discs"])
    assert splits.unseen == ()
    records = dict(enumerate(splits.train.annotations))
    shown = {image: set(annotations.classes.tolist()) for image, annotations in records.items()}
    assert all(classes & set(splits.seen) for classes in shown.values())
    assert any(classes - set(splits.seen) for classes in shown.values())
    used = set()
    with training_batches(config, splits, 8) as batches:
        for batch in batches:
            assert batch.references.shape == (4, 0, 32, 32, 3)
            assert batch.reference_present.all()
            np.testing.assert_array_equal(batch.gt_matches, batch.gt_classes > 0)
            np.testing.assert_array_equal(batch.gt_ignore & ~batch.gt_matches, batch.gt_valid & (batch.gt_classes == 0))
            for row, image in enumerate(batch.targets.tolist()):
                found = set(batch.gt_classes[row][batch.gt_valid[row]].tolist())
                ids = {splits.seen[number - 1] for number in found - {0}}
                assert ids == shown[image] & set(splits.seen)
            used |= set(batch.targets.tolist())
    assert used == set(records)


def test_images_without_an_instance_of_a_class_are_left_out(config, tmp_path):
    rows = [annotation(1), annotation(2, image_id=2, category_id=2), annotation(3, image_id=3, category_id=2)]
    crowd = annotation(4, image_id=4, iscrowd=1, segmentation={"size": [24, 32], "counts": [100, 20, 648]})
    rows += [crowd, annotation(5, image_id=3, segmentation=square(20, 2, 5), bbox=[20, 2, 5, 5])]
    folder = write_folder(tmp_path / "data", [])
    write_json(folder / "annotations/train.json", content(rows, images=5))
    for number in (4, 5):
        (folder / "images" / f"{number}.png").write_bytes((folder / "images/3.png").read_bytes())
    config.data.root = str(folder)
    config.data.validation_fraction = 0.0
    config.model.classes = ("round",)
    splits = open_splits(config)
    assert [annotations.image_id for annotations in splits.train.annotations] == [1, 3]
    assert splits.seen == (1,)
    write_json(folder / "annotations/train.json", content([rows[1], crowd], images=5))
    with pytest.raises(FsisError, match=r"data: no training image shows one of config\.model\.classes$"):
        open_splits(config)


def test_names_that_the_data_set_does_not_have(config, tiny_data):
    config.data.root = str(tiny_data)
    config.model.classes = ("person", "fluo_discs")
    with pytest.raises(FsisError, match=r"^config\.model\.classes has 'person', but .*; it has: fluo_discs, fluo_"):
        open_splits(config)


def test_without_names_the_fold_decides():
    config = tiny.get_config()
    source = MemorySource([], [])
    source.categories, source.folds = NAMES, {1: (5,)}
    assert seen_and_unseen(config, source) == ((3, 9), (5,))
    config.model.classes = ("long", "round")
    assert seen_and_unseen(config, source) == ((5, 3), ())
