"""References of several kinds, on a barely trained detector: competition, what is not wanted, tiles, files."""

import dataclasses

import cv2
import numpy as np
import pytest
from seen import candidates

from fsis_jax.errors import FsisError
from fsis_jax.inference.example_cells import box_example, encode_examples
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.references import References
from fsis_jax.inference.references_file import load_references
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tidying import Tidying
from fsis_jax.inference.tile_plan import size_groups
from fsis_jax.inference.tiling import Tile, merge_tiles
from fsis_jax.inference.traits import TRAITS
from fsis_jax.io.source import open_image
from fsis_jax.preprocess.windows import Window

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def image():
    """(60, 80) uint8 with two bright discs, and two dim ones."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    image = rng.integers(0, 40, (60, 80))
    for y, x, light in ((15, 20, 200), (40, 30, 90), (30, 60, 200), (48, 66, 90)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < 81] += light
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def kinds(segmenter, image):
    """References of a bright disc and of a dim one."""

    def shown(x, y):
        return segmenter.encode_boxes(image, [(x - 9, y - 9, x + 9, y + 9)])

    return {"bright": shown(20, 15), "dim": shown(30, 40)}


def test_boxes_are_crops_with_the_stretch_of_their_image(segmenter, image, tmp_path, monkeypatch):
    boxes = [(11, 6, 29, 24), (20.5, 30, 39, 50)]
    found = segmenter.encode_boxes(image, boxes, pixel_size=0.5)
    sides = np.array([[18, 18], [20, 18.5]], np.float32)
    crops = [image[6:24, 11:29], image[30:50, 20:39]]
    stretches = [segmenter.stretch_of(image, sides)] * 2
    assert found.digest == segmenter.encode_references(crops, sides=sides, pixel_size=0.5, stretches=stretches).digest
    assert np.isfinite(found.traits).all()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    monkeypatch.setattr(Segmenter, "compares_brightness", True)  # else the command leaves the stretch out
    examples = [box_example(f"{tmp_path / 'a.png'}:{','.join(map(str, box))}", open_image) for box in boxes]
    assert encode_examples(segmenter, examples).digest == segmenter.encode_boxes(tmp_path / "a.png", boxes).digest


def test_what_stands_out_less_than_the_references_scores_less(segmenter, image, monkeypatch):
    boxed = segmenter.encode_boxes(image, [(21, 31, 39, 49)])
    crops = segmenter.encode_references([image[31:49, 21:39]])
    before, of_crops = candidates(segmenter, image, boxed), candidates(segmenter, image, crops)
    monkeypatch.setitem(segmenter.config.model.detections, "faintness", 2.0)
    after = candidates(segmenter, image, boxed)
    np.testing.assert_array_equal(candidates(segmenter, image, crops).scores, of_crops.scores)
    scores = {tuple(box): score for box, score in zip(before.boxes.tolist(), before.scores.tolist(), strict=True)}
    again = zip(after.boxes.tolist(), after.scores.tolist(), strict=True)
    # Another one may be left of two that are the same cell.
    ratios = [score / scores[tuple(box)] for box, score in again if tuple(box) in scores]
    assert len(ratios) > 0.8 * len(before)
    assert max(ratios) == 1  # what is as bright as the reference
    assert min(ratios) < 0.9
    assert after.kind_scores is None


@pytest.mark.parametrize(
    ("boxes", "problem"),
    [
        ([], "boxes of shape"),
        ([1, 2, 3, 4], "boxes of shape"),
        ([(1, 2, "x", 4)], "boxes .*: give a list"),
        ([(5, 5, 20, 20), (9, 9, 9, 20)], "box 2: a box without an area"),
        ([(60, 5, 81, 20)], "box 1: the box 60,5,81,20 is not inside the image of 80x60 pixels: give pixels of the im"),
    ],
)
def test_boxes_that_show_no_cell_are_refused(segmenter, image, boxes, problem):
    with pytest.raises(FsisError, match=problem):
        segmenter.encode_boxes(image, boxes)


def test_every_instance_has_a_probability_of_each_kind_and_of_none(segmenter, image, kinds):
    found = candidates(segmenter, image, References.of_kinds(kinds))
    assert len(found) > 0
    assert found.names == ("bright", "dim")
    assert found.kind_scores.shape == (len(found), 3)
    np.testing.assert_allclose(found.kind_scores.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found.scores, 1 - found.kind_scores[:, -1], atol=1e-6)
    assert found.categories == tuple(found.names[row] for row in found.kind_scores[:, :-1].argmax(1))


def test_bright_and_dim_cells_are_told_apart(segmenter, image, kinds):
    """The network is barely trained: what holds is that it takes bright discs for bright ones rather than dim ones."""
    found = candidates(segmenter, image, References.of_kinds(kinds))
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    bright = found.kind_scores[:, 0] / found.kind_scores[:, :2].sum(1)
    shares = {}
    for name, places in {"bright": ((20, 15), (60, 30)), "dim": ((30, 40), (66, 48))}.items():
        near = np.min([np.hypot(*(centres - place).T) for place in places], axis=0) < 9
        shares[name] = bright[near].mean()
    assert shares["bright"] > shares["dim"], shares


def test_one_named_kind_gives_what_it_gives_without_a_name(segmenter, image, kinds):
    named = candidates(segmenter, image, References.of_kinds({"bright": kinds["bright"]}))
    plain = candidates(segmenter, image, kinds["bright"])
    np.testing.assert_array_equal(named.boxes, plain.boxes)
    np.testing.assert_allclose(named.scores, plain.scores, atol=1e-6)
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(named.masks, plain.masks, strict=True))
    assert set(named.categories) == {"bright"}


def test_what_is_not_wanted_takes_its_pixels_and_is_left_out(segmenter, image, kinds):
    both = References.of_kinds(kinds)
    one = References.of_kinds({"bright": kinds["bright"]}, {"dim": kinds["dim"]})
    every = segmenter.segment(image, both, min_score=0)
    wanted = segmenter.segment(image, one, min_score=0)
    assert wanted.unwanted == ("dim",)
    assert set(wanted.categories) <= {"bright"}
    assert len(wanted) == sum(name == "bright" for name in every.categories) < len(every)


def test_nothing_is_left_of_an_image_of_the_unwanted_alone():
    found = Instances(
        np.array([[0, 0, 4, 4]], np.float32),
        np.array([0.9], np.float32),
        (CroppedMask(0, 0, np.ones((4, 4), bool)),),
        (9, 9),
        classes=np.array([1], np.int32),
        names=("a", "b"),
        kind_scores=np.array([[0.2, 0.7, 0.1]], np.float32),
        unwanted=("b",),
    )
    assert len(Tidying()(found)) == 0
    assert len(Tidying()(Instances.none((9, 9), names=("a", "b"), measured=True))) == 0


def test_a_cell_is_of_one_kind_alone():
    mask = CroppedMask(2, 2, np.ones((4, 4), bool))
    found = Instances(
        np.array([[2, 2, 6, 6]] * 2, np.float32),
        np.array([0.9, 0.8], np.float32),
        (mask, mask),
        (9, 9),
        classes=np.array([0, 1], np.int32),
        names=("a", "b"),
        kind_scores=np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]], np.float32),
    )
    assert found.without_overlaps(0).categories == ("a",)
    closed = dataclasses.replace(found, kind_scores=None)  # of a closed-set detector
    assert closed.without_overlaps(0).categories == ("a", "b")
    tile = Tile(Window(0, 0, 9, 9), (0.0, 0.0, 9.0, 9.0), (9.0, 9.0, 0.0, 0.0))
    parts = [found.select(np.array([1])), found.select(np.array([0]))]
    merged = merge_tiles(parts, [tile, tile], (9, 9), 0.0)
    assert len(merged) == 1
    np.testing.assert_allclose(merged.kind_scores.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(1 - merged.kind_scores[:, -1], merged.scores, atol=1e-6)


def test_a_large_image_in_tiles_and_its_journal(segmenter, image, kinds, tmp_path):
    large = np.tile(image, (3, 3))
    both = References.of_kinds(kinds)
    plan = segmenter.plan(large, both)
    assert len(plan.tiles) > 1
    with_journal = Job(large, both, journal=Journal(tmp_path / "tiles", "key"))
    ((_, found),) = segmenter.candidates([with_journal])
    with_journal.journal.close()
    np.testing.assert_allclose(found.kind_scores.sum(1), 1, atol=1e-5)
    again = segmenter.found_so_far(Job(large, both, journal=Journal(tmp_path / "tiles", "key")))
    np.testing.assert_array_equal(again.kind_scores, found.kind_scores)
    assert again.names == found.names


def test_kinds_of_very_different_sizes_are_read_at_scales_of_their_own(segmenter, image, kinds):
    sides, owners = np.array([(10, 10), (12, 12), (15, 15), (40, 40)], np.float32), np.array([0, 0, 1, 2])
    groups = size_groups(sides, segmenter._transform, owners)
    assert [(rows.tolist(), kinds) for rows, kinds in groups] == [([0, 1, 2], (0, 1)), ([3], (2,))]
    traits = np.where(np.arange(len(TRAITS)) == 0, np.float32(np.log(50)), kinds["dim"].traits)
    large = dataclasses.replace(kinds["dim"], sides=np.array([[50, 50]], np.float32), traits=traits)
    found = candidates(segmenter, image, References.of_kinds({"bright": kinds["bright"], "large": large}))
    np.testing.assert_allclose(found.kind_scores.sum(1), 1, atol=1e-5)


def test_pixel_sizes_do_not_change_what_kind_a_cell_is(segmenter, image, kinds):
    """In an image of half the size per pixel, references are told to be half as large in it, and so are the traits."""
    both = References.of_kinds(kinds)
    traits = both.traits - np.eye(1, len(TRAITS), dtype=np.float32) * np.log(2)
    known = dataclasses.replace(both, sides=both.sides / 2, pixel_size=1.0, traits=traits)
    plain = candidates(segmenter, image, both)
    (told,) = (found for _, found in segmenter.candidates([Job(image, known, pixel_size=0.5)]))
    np.testing.assert_allclose(told.kind_scores, plain.kind_scores, atol=1e-5)


def test_a_file_keeps_kinds(kinds, tmp_path):
    panel = References.of_kinds({"bright": kinds["bright"]}, {"not": kinds["dim"]})
    panel.save(tmp_path / "panel.refs")
    again = load_references(tmp_path / "panel.refs")
    assert (again.kinds, again.unwanted) == (("bright", "not"), ("not",))
    np.testing.assert_array_equal(again.owners, [0, 1])
    np.testing.assert_array_equal(again.traits, panel.traits)
    assert again.digest == panel.digest
    assert again.digest != dataclasses.replace(panel, unwanted=()).digest


def test_what_is_refused(kinds):
    bright, dim = kinds["bright"], kinds["dim"]
    cases = [
        ({}, {"dust": dim}, "no kind that is wanted"),
        ({"a": bright, "A ": dim}, {}, "kind 'A ' is given twice"),
        ({"a": bright}, {"a": dim}, "kind 'a' is given twice"),
        ({"a": bright, "b": bright}, {}, "the same example is shown as 'a' and as 'b'"),
        ({"a,b": bright}, {}, "kind 'a,b': give a name without commas"),
        ({"a\nb": bright}, {}, "give a name without commas"),
        ({"-x": bright}, {}, "kind '-x': give a name without"),
        ({" ": bright}, {}, "give a name"),
        ({"none": bright}, {}, "tables have that name"),
        (
            {"a": bright, "b": dataclasses.replace(dim, model="other")},
            {},
            "kind 'b': encoded by another model than 'a'",
        ),
        ({"a": References.of_kinds({"x": bright})}, {}, "its references have kinds already"),
    ]
    for wanted, unwanted, message in cases:
        with pytest.raises(FsisError, match=message):
            References.of_kinds(wanted, unwanted)
