"""Keypoints from a COCO file to the batch: read, stored, cropped, scaled, turned; and the stick figures."""

import dataclasses
import json
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
from coco_folder import annotation, write_folder, write_json
from figures import KEYPOINTS, generate_figures

from fsis_jax.data import prepared
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.episodes import Episode, ReferenceBox
from fsis_jax.data.examples import ImageCache, training_example
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.keypoints import keypoints_to_coco, mirrored, read_names, turned, within
from fsis_jax.preprocess.records import Source, Subset
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import Orientation

NAMES = ["nose", "left_eye", "right_eye"]
CONFIG = TransformConfig(
    scale="shortest_side", shortest_side=64, longest_side=64, reference_size=16, mask_size=8, max_instances=4, flip=0.0
)


def folder_with(root: pathlib.Path, annotations: list[dict[str, Any]], names: Any = NAMES) -> pathlib.Path:
    """The first of two categories has keypoints."""
    folder = write_folder(root, annotations)
    file = folder / "annotations/train.json"
    data = json.loads(file.read_text())
    data["categories"][0]["keypoints"] = names
    write_json(file, data)
    return folder


def test_reading(tmp_path: pathlib.Path) -> None:
    """COCO's coordinates name pixels, ours their middle; an annotation without keypoints has none labelled."""
    rows = [
        annotation(1, keypoints=[4, 8, 2, 6.25, 9, 1, 77, 77, 0]),
        annotation(2),
        annotation(3, category_id=2, keypoints=[1] * 9),
    ]
    source = CocoSource(folder_with(tmp_path / "data", rows), "train")
    record, empty = source.annotations
    assert record.keypoint_names == empty.keypoint_names == tuple(NAMES)
    assert record.keypoints.dtype == np.float32
    np.testing.assert_array_equal(record.keypoints[0], [[4.5, 8.5, 2], [6.75, 9.5, 1], [0, 0, 0]])
    assert not record.keypoints[1:].any()
    assert (record.keypoints.shape, empty.keypoints.shape) == ((3, 3, 3), (0, 3, 3))
    assert not source.problems
    subset = Subset(source, [1, 0])
    np.testing.assert_array_equal(subset.annotations[1].keypoints, record.keypoints)
    assert keypoints_to_coco(record.keypoints[:1])[0][:6] == [4, 8, 2, 6.25, 9, 1]


@pytest.mark.parametrize("value", [[1, 2, 2], [1, 2, 3] * 3, [float("nan"), 2, 2] * 3, "none", {}])
def test_damaged_keypoints_are_told_and_not_used(tmp_path: pathlib.Path, value: object) -> None:
    source = CocoSource(folder_with(tmp_path / "data", [annotation(5, keypoints=value)]), "train")
    (problem,) = source.problems
    assert not problem.skipped
    assert "annotation 5: keypoints that are not x, y and 0, 1 or 2 for each of 3 names" in str(problem)
    assert not source.annotations[0].keypoints.any()
    assert len(source.annotations[0].boxes) == 1


def test_without_names_there_are_no_keypoints(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "data", [annotation(1, keypoints=[4, 8, 2])])
    assert CocoSource(folder, "train").annotations[0].keypoints.shape == (1, 0, 3)
    assert read_names([{"id": 1, "keypoints": "nose"}]) == ((), frozenset())
    rows = [{"id": 1}, {"id": 4, "keypoints": ["a"]}, {"id": 5, "keypoints": ["b"]}, {"id": 6, "keypoints": ["a"]}]
    assert read_names(rows) == (("a",), frozenset({4, 6}))


def test_prepared_data_sets_hold_the_same(tmp_path: pathlib.Path) -> None:
    folder = folder_with(tmp_path / "data", [annotation(1, keypoints=[4, 8, 2] * 3), annotation(2)])
    root = prepared.prepare(folder, tmp_path / "prepared")
    for split in ("train", "test"):  # the test file names no keypoints
        expected = CocoSource(folder, split)
        found = pickle.loads(pickle.dumps(open_source(root, split)))
        for a, b in zip(found.annotations, expected.annotations, strict=True):
            assert a.keypoint_names == b.keypoint_names
            assert a.keypoints.dtype == b.keypoints.dtype
            np.testing.assert_array_equal(a.keypoints, b.keypoints)


def test_names_of_the_other_side() -> None:
    assert mirrored(("nose", "left_eye", "right_eye", "tail_right", "left_horn")).tolist() == [0, 2, 1, 3, 4]
    assert mirrored(()).tolist() == []


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_keypoints_turn_with_the_image(flip: bool, turns: int) -> None:
    """Three single pixels of different values are found where their keypoints say."""
    image = np.zeros((30, 50), np.uint8)
    places = [(3, 4), (20, 9), (41, 28)]
    for value, (x, y) in enumerate(places, start=1):
        image[y, x] = value
    keypoints = np.array([[(x + 0.5, y + 0.5, 2) for x, y in places], [(1.5, 1.5, 1), (0, 0, 0), (9.5, 2.5, 2)]])
    orientation = Orientation(flip, turns)
    found = turned(keypoints.astype(np.float32), orientation, (30, 50), tuple(NAMES))
    image = orientation.image(image)
    values = [int(image[int(y), int(x)]) for x, y, _ in found[0]]
    assert values == ([1, 3, 2] if flip else [1, 2, 3])
    assert found[1, :, 2].tolist() == ([1, 2, 0] if flip else [1, 0, 2])
    assert not found[1, 2 if flip else 1].any()
    assert found.dtype == np.float32


def test_keypoints_outside_are_not_labelled() -> None:
    keypoints = np.array([[[0, 0, 1], [20, 10, 2], [20.5, 3, 2], [3, -0.5, 2]]], np.float32)
    np.testing.assert_array_equal(within(keypoints, (10, 20))[0, :, 2], [1, 2, 0, 0])
    assert not within(keypoints, (10, 20))[0, 2:].any()


def example(source: Source, config: TransformConfig, *, canvas: tuple[int, int] = (64, 64), seed: int = 0) -> dict:
    record = source.annotations[0]
    episode = Episode(0, "present", 1, (ReferenceBox(0, tuple(record.boxes[0].tolist())),))
    rng = np.random.default_rng(seed)
    return training_example(ImageCache(source, config), episode, config, canvas=canvas, trainable=(1,), rng=rng)


def test_a_scaled_target(tmp_path: pathlib.Path) -> None:
    """24 x 32 pixels to 48 x 64: the middle of pixel (4, 8) is at (9, 17)."""
    folder = folder_with(tmp_path / "data", [annotation(1, keypoints=[4, 8, 2, 9, 13, 1, 0, 0, 0])])
    source = CocoSource(folder, "train")
    found = example(source, CONFIG)["gt_keypoints"]
    assert found.shape == (4, 3, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [[9, 17, 2], [19, 27, 1], [0, 0, 0]])
    assert not found[1:].any()
    flipped = example(source, dataclasses.replace(CONFIG, flip=1.0))["gt_keypoints"][0]
    np.testing.assert_allclose(flipped, [[64 - 9, 17, 2], [0, 0, 0], [64 - 19, 27, 1]])


def test_a_source_without_keypoints_gives_empty_arrays(tmp_path: pathlib.Path) -> None:
    source = CocoSource(write_folder(tmp_path / "data", [annotation(1)]), "train")
    assert example(source, CONFIG)["gt_keypoints"].shape == (4, 0, 3)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return generate_figures(tmp_path_factory.mktemp("data") / "figures", images=6, seed=1, size=96)


def test_figures(figures: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = open_source(figures, "train")
    assert (len(source), len(open_source(figures, "test"))) == (6, 1)
    assert dict(source.categories) == {1: "person"}
    assert not CocoSource(figures, "train").problems
    for record in source.annotations:
        assert record.keypoint_names == KEYPOINTS
        for box, points in zip(record.boxes, record.keypoints, strict=True):
            visible = points[points[:, 2] == 2]
            assert (points[:, 2] > 0).all()
            assert len(visible) >= 3
            assert (visible[:, :2] > box[:2]).all()
            assert (visible[:, :2] < box[2:]).all()
            assert (points[2::2, 0] > points[3::2, 0]).all()  # left is to the right
    again = generate_figures(tmp_path / "again", images=6, seed=1, size=96)
    for path in sorted(figures.rglob("*.*")):
        assert path.read_bytes() == (again / path.relative_to(figures)).read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_keypoints_lie_on_their_figures_whatever_the_crop_and_the_turn(figures: pathlib.Path, seed: int) -> None:
    """A crop of a magnified image: a visible keypoint is on the bright figure, and none is outside."""
    config = dataclasses.replace(CONFIG, shortest_side=192, longest_side=192, flip=0.5, rot90=True)
    source = Subset(open_source(figures, "train"), [seed])
    found = example(source, config, canvas=(128, 128), seed=seed)
    points = found["gt_keypoints"]
    points = points[points[..., 2] == 2]
    assert len(points)
    assert (points[:, :2] <= found["image_sizes"][::-1]).all()
    x, y = np.minimum(points[:, :2], 127).astype(int).T
    assert (found["images"][y, x].max(-1) > 100).all()


def test_bad_arguments_of_the_figures(tmp_path: pathlib.Path) -> None:
    for changes in ({"images": 0}, {"size": 32}, {"seed": -1}):
        with pytest.raises(FsisError, match="give at least 1, 64 and 0"):
            generate_figures(tmp_path / "new", **changes)
    with pytest.raises(FsisError, match="exists already"):
        generate_figures(tmp_path.parent)
