import collections
import dataclasses

import numpy as np
import pytest
from memory_source import annotate, disc, disc_source

from fsis_jax.data.episodes import EpisodeSampler, background_patches, evaluation_references, shuffled
from fsis_jax.errors import FsisError


def _sampler(annotations, **options):
    defaults = {"categories": {1, 2}, "targets": range(len(annotations)), "shots": 2, "seed": 3}
    return EpisodeSampler(annotations, **({"scale_of": lambda _: 2.0} | defaults | options))


@pytest.fixture(scope="module")
def annotations():
    return disc_source(8).annotations


def test_an_episode_is_a_pure_function_of_seed_and_index(annotations):
    first, second = _sampler(annotations), _sampler(annotations)
    assert [first(i) for i in range(40)] == [second(i) for i in reversed(range(40))][::-1]
    assert [first(i) for i in range(40)] != [_sampler(annotations, seed=4)(i) for i in range(40)]


def test_every_epoch_is_another_permutation_of_the_targets(annotations):
    targets = [_sampler(annotations, targets=[1, 2, 5, 7])(i).target for i in range(40)]
    epochs = [targets[i : i + 4] for i in range(0, 40, 4)]
    assert all(sorted(epoch) == [1, 2, 5, 7] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    assert targets[:3] == [shuffled([1, 2, 5, 7], i, seed=3) for i in range(3)]


def test_kinds_come_with_their_probabilities_and_references_fit_them(annotations):
    sampler = _sampler(annotations)
    kinds = collections.Counter()
    for index in range(1000):
        episode = sampler(index)
        kinds[episode.kind] += 1
        assert len(episode.references) == 2
        own = set(annotations[episode.target].classes.tolist())
        for reference in episode.references:
            if episode.kind == "background":
                assert reference.record == episode.target
                assert episode.category is None
                continue
            assert reference.record != episode.target
            record = annotations[reference.record]
            row = np.flatnonzero((record.boxes == np.array(reference.box, np.float32)).all(axis=1))
            assert record.classes[row] == episode.category
            assert (episode.category in own) == (episode.kind == "present")
    assert 0.76 < kinds["present"] / 1000 < 0.84
    assert 0.07 < kinds["background"] / 1000 < 0.13
    assert 0.07 < kinds["absent"] / 1000 < 0.13


def test_contrast_shows_another_category(annotations):
    """As many references, of another category than the episode's, and nothing else of the episode changes."""
    plain, sampler = _sampler(annotations), _sampler(annotations, contrast=True)
    for index in range(200):
        episode = sampler(index)
        assert dataclasses.replace(episode, contrast_category=None, contrast=()) == plain(index)
        assert episode.contrast_category in {1, 2} - {episode.category}
        assert len(episode.contrast) == 2
        for reference in episode.contrast:
            record = annotations[reference.record]
            row = np.flatnonzero((record.boxes == np.array(reference.box, np.float32)).all(axis=1))
            assert record.classes[row] == episode.contrast_category
    alone = _sampler(annotations, contrast=True, categories={1})
    assert all(alone(index).contrast == () for index in range(20))


def test_rare_categories_are_chosen_more_often_where_several_are_present():
    size = (64, 64)
    both = [disc(size, 16, 16, 8), disc(size, 48, 48, 8)]
    annotations = [annotate(both, [1, 2], size=size, image_id=1), annotate(both, [1, 2], size=size, image_id=2)]
    annotations += [annotate(both, [1, 1], size=size, image_id=3 + i) for i in range(4)]
    sampler = _sampler(annotations, present=1.0, background=0.0)
    drawn = [sampler.episode(i, 0).category for i in range(600)]
    assert 0.69 < drawn.count(2) / 600 < 0.81  # 1/2 against 1/6


def test_references_are_distinct_until_there_are_too_few(annotations):
    sampler = _sampler(annotations, shots=5, present=1.0, background=0.0)
    assert all(len(set(sampler(i).references)) == 5 for i in range(20))
    few = _sampler(annotations[:3], shots=6, present=1.0, background=0.0)  # one other image, four cells
    assert {len(set(few(i).references)) for i in range(3) if few(i).category == 1} == {4}


def test_the_target_gives_references_only_where_it_must_or_is_asked_to(annotations):
    alone = _sampler(annotations[:2], present=1.0, background=0.0)  # one image per category
    assert all(reference.record == alone(i).target for i in range(10) for reference in alone(i).references)
    asked = _sampler(annotations, present=1.0, background=0.0, reference_source="target")
    assert all(reference.record == asked(i).target for i in range(20) for reference in asked(i).references)
    either = _sampler(annotations, present=1.0, background=0.0, reference_source="any")
    assert len({reference.record == either(i).target for i in range(40) for reference in either(i).references}) == 2


def test_only_trainable_categories_of_the_targets_give_references(annotations):
    sampler = _sampler(annotations, categories={1}, targets=[0, 2, 3])
    for index in range(200):
        episode = sampler(index)
        assert episode.category in (1, None)
        assert all(reference.record in (0, 2, 3) for reference in episode.references)
        if episode.target == 3:  # holds category 2 only
            assert episode.kind != "present"


def test_small_crowd_and_cut_instances_give_no_references():
    size = (64, 64)
    masks = [disc(size, 20, 20, 8), disc(size, 44, 44, 2), disc(size, 44, 20, 8), disc(size, 0, 44, 8)]
    record = annotate(masks, [1, 1, 1, 1], size=size, crowd=[False, False, True, False])
    sampler = _sampler([record], shots=3)
    boxes = {r.box for i in range(50) if sampler(i).kind == "present" for r in sampler(i).references}
    assert boxes == {tuple(record.boxes[0].tolist())}
    cut = annotate(masks[3:], [1], size=size)
    assert _sampler([cut], present=1.0, background=0.0)(0).references[0].box == tuple(cut.boxes[0].tolist())


def test_another_kind_takes_the_place_of_an_impossible_one():
    size = (40, 40)
    full = annotate([disc(size, 20, 20, 18)], [1], size=size)
    only = _sampler([full], scale_of=lambda _: 1.0)  # neither background nor another category
    assert {only(i).kind for i in range(100)} == {"present"}
    empty = annotate([], [], size=size, image_id=2)
    with_empty = _sampler([full, empty], shots=1, scale_of=lambda _: 1.0)
    assert {with_empty.episode(i, 1).kind for i in range(100)} == {"absent", "background"}


def test_background_patches_touch_no_dilated_instance():
    size = (96, 128)
    mask = disc(size, 64, 48, 20)
    record = annotate([mask], [1], size=size)
    near = np.zeros(size, bool)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near |= np.roll(mask, (dy, dx), (0, 1))
    for seed in range(20):
        patches = background_patches(np.random.default_rng(seed), record, 3, scale=2.0)
        taken = np.zeros(size, int)
        for x1, y1, x2, y2 in np.array(patches, int):
            assert x2 - x1 == y2 - y1
            assert x2 - x1 in (16, 32)
            assert not near[y1:y2, x1:x2].any()
            taken[y1:y2, x1:x2] += 1
        assert taken.max() == 1
    assert background_patches(np.random.default_rng(0), record, 3, scale=0.5) is None


def test_evaluation_references(annotations):
    others = disc_source(6, seed=9).annotations
    five = evaluation_references(annotations, others, 0, 1, 5, repeat=2, seed=1)
    assert five[:1] == evaluation_references(annotations, others, 0, 1, 1, repeat=2, seed=1)
    assert five != evaluation_references(annotations, others, 0, 1, 5, repeat=3, seed=1)
    assert all(others[reference.record].classes[0] == 1 for reference in five)
    own = evaluation_references(annotations, others, 4, 1, 6, source="target")
    assert {reference.record for reference in own} == {4}
    assert len(set(own)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": []}, "no target image"),
        ({"categories": {9}}, "no usable reference"),
        ({"min_reference_area": 1e6}, "no usable reference"),
    ],
)
def test_bad_arguments_are_named(annotations, options, message):
    with pytest.raises(FsisError, match=message):
        _sampler(annotations, **options)


def test_evaluation_without_a_reference_is_named(annotations):
    with pytest.raises(FsisError, match="category 7 in the train split"):
        evaluation_references(annotations, annotations, 0, 7, 1)
    with pytest.raises(FsisError, match=r"category 2 in 1\.png"):
        evaluation_references(annotations, annotations, 0, 2, 1, source="target")
    with pytest.raises(FsisError, match="'test'"):
        evaluation_references(annotations, annotations, 0, 1, 1, source="test")


def test_a_mosaic_takes_others_that_show_neither_the_targets_categories_nor_the_references():
    annotations = disc_source(24, categories=3).annotations
    plain = _sampler(annotations, categories={1, 2, 3})
    sampler = _sampler(annotations, categories={1, 2, 3}, mosaic=0.5)
    counts = collections.Counter()
    for index in range(600):
        episode = sampler(index)
        counts[len(episode.others)] += 1
        assert dataclasses.replace(episode, others=()) == plain(index)
        shown = [set(annotations[target].classes.tolist()) for target in (episode.target, *episode.others)]
        assert all(other.isdisjoint(shown[0] | {episode.category}) for other in shown[1:])
        assert len({episode.target, *episode.others}) == 1 + len(episode.others)
    assert set(counts) == {0, 1, 3}
    assert 250 < counts[0] < 350
    assert abs(counts[1] - counts[3]) < 80


def test_half_of_the_contrast_is_in_the_mosaic():
    annotations = disc_source(24, categories=3).annotations
    sampler = _sampler(annotations, categories={1, 2, 3}, mosaic=1.0, contrast=True)
    inside = []
    for index in range(400):
        episode = sampler(index)
        shown = set().union(*(annotations[target].classes.tolist() for target in (episode.target, *episode.others)))
        inside.append(episode.contrast_category in shown)
    assert np.mean(inside) > 0.82  # 0.74 by chance


def test_without_others_there_is_no_mosaic(annotations):
    one = [a for a in annotations if 1 in a.classes]
    sampler = _sampler(one, categories={1}, mosaic=1.0)
    assert all(sampler(index).others == () for index in range(20))
