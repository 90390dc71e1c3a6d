"""Label images of OME-Zarr: the numbers of the other results, on several levels, in chunks that are written once."""

import json
import pathlib

import numpy as np
import pytest
import zarr

from fsis_jax.errors import FsisError, OutputError
from fsis_jax.inference.instances import Instances
from fsis_jax.io.finding import image_files
from fsis_jax.io.kinds import kind_colour
from fsis_jax.io.our_zarr import is_ours
from fsis_jax.io.outputs import write_outputs
from fsis_jax.io.source import open_image
from fsis_jax.preprocess.cropped_mask import CroppedMask

KINDS = ["zarr", "zarr-0.4"]
FOLDERS = {"zarr": "a.zarr", "zarr-0.4": "a-0.4.zarr"}


def _found(size, count=40, kinds=()):
    """Squares in random places, some of which cross the borders of bands and chunks."""
    rng = np.random.default_rng(0)
    masks, taken = [], np.zeros(size, bool)
    while len(masks) < count:
        y, x, side = *(int(rng.integers(0, length - 40)) for length in size), int(rng.integers(8, 40))
        if not taken[y : y + side, x : x + side].any():
            taken[y : y + side, x : x + side] = True
            masks.append(CroppedMask(y, x, np.ones((side, side), bool)))
    boxes = np.array([crop.extent for crop in masks], np.float32).reshape(-1, 4)
    scores = np.linspace(1, 0.5, count, dtype=np.float32)
    told = {}
    if kinds:
        shares = np.full((count, len(kinds) + 1), 1 / (len(kinds) + 1), np.float32)
        told = {"classes": np.arange(count, dtype=np.int32) % 2, "names": kinds, "kind_scores": shares}
    return Instances(boxes, scores, tuple(masks), size, **told)


def _attributes(folder, kind):
    if kind == "zarr-0.4":
        return json.loads((folder / ".zattrs").read_bytes())
    ome = json.loads((folder / "zarr.json").read_bytes())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    return ome


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1100, 2300), (60, 70)])
def test_labels_on_all_levels(tmp_path, kind, size):
    found = _found(size, 40 if size[0] > 100 else 1)
    files = write_outputs(tmp_path, "a", np.zeros(size, np.uint8), found, (kind,), pixel_size=0.5)
    assert files == {kind: str(tmp_path / FOLDERS[kind])}
    folder = pathlib.Path(files[kind], "labels")
    assert _attributes(folder, kind)["labels"] == ["cell"]
    told = _attributes(folder / "cell", kind)
    (multiscale,) = told["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["y", "x"]
    assert {axis["unit"] for axis in multiscale["axes"]} == {"micrometer"}
    expected = found.labels()
    for level, dataset in enumerate(multiscale["datasets"]):
        array = zarr.open_array(folder / "cell" / dataset["path"], mode="r")
        assert array.dtype == np.uint32
        np.testing.assert_array_equal(array[...], expected[:: 2**level, :: 2**level])
        (transform,) = dataset["coordinateTransformations"]
        assert transform == {"type": "scale", "scale": [0.5 * 2**level] * 2}
        if kind == "zarr":
            assert array.shards == (512, 2048)
    assert max(array.shape) <= 256
    assert len(multiscale["datasets"]) == (5 if size[0] > 100 else 1)
    values = [[row["label-value"] for row in told["image-label"][key]] for key in ("colors", "properties")]
    assert values == [[*range(1, len(found) + 1)]] * 2
    with open_image(folder / "cell", labels=True) as labels:  # as for --reference-mask
        assert labels.pixel_size == 0.5
        np.testing.assert_array_equal(labels[:, :], expected)
    with pytest.raises(FsisError, match="labels and not an image"):
        open_image(folder / "cell")


def test_kinds_have_label_images_of_their_own(tmp_path):
    found = _found((300, 300), 10, ("living", "a/b", "none of them"))
    write_outputs(tmp_path, "a", np.zeros((300, 300), np.uint8), found, ("zarr",))
    folder = tmp_path / "a.zarr" / "labels"
    assert _attributes(folder, "zarr")["labels"] == ["living", "a_b", "none_of_them"]
    whole = found.labels()
    for row, (name, place) in enumerate([("living", "living"), ("a/b", "a_b"), ("none of them", "none_of_them")]):
        told = _attributes(folder / place, "zarr")
        own = np.flatnonzero(found.classes == row) + 1
        np.testing.assert_array_equal(zarr.open_array(folder / place / "0")[...], whole * np.isin(whole, own))
        assert told["multiscales"][0]["name"] == name
        if row == 2:
            assert "colors" not in told["image-label"]
            continue
        assert [c["label-value"] for c in told["image-label"]["colors"]] == own.tolist()
        assert {tuple(c["rgba"]) for c in told["image-label"]["colors"]} == {(*kind_colour(row), 255)}
        assert told["image-label"]["properties"][0]["p_living"] == 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_ours_is_replaced(tmp_path, kind):
    image = np.zeros((60, 70), np.uint8)
    target = tmp_path / FOLDERS[kind]
    for count in (1, 0):
        write_outputs(tmp_path, "a", image, _found((60, 70), count), (kind,))
        assert is_ours(target)
        assert zarr.open_array(target / "labels" / "cell" / "0", mode="r")[...].max() == count
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
        with pytest.raises(FsisError, match="a folder without images"):
            image_files([str(tmp_path)])
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "mine").touch()
    with pytest.raises(OutputError, match=r"b\.zarr: cannot be written .*: a folder has that name"):
        write_outputs(tmp_path, "b", image, _found((60, 70), 1), ("zarr",))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, "b.zarr"])
    assert image_files([str(tmp_path)]) == [str(tmp_path / "b.zarr")]


@pytest.mark.parametrize(("kind", "expected"), [("zarr", "../../"), ("zarr-0.4", "../../../../plate.zarr/A/1/0")])
def test_an_image_of_zarr_is_named_from_the_place_of_its_labels(tmp_path, kind, expected):
    """Labels of the same version lie inside of it (`test_zarr_plates.py`)."""
    group = zarr.create_group(tmp_path / "plate.zarr" / "A" / "1" / "0", zarr_format=3)
    group.create_array("0", shape=(60, 70), dtype="u2", chunks=(60, 70))
    axes = [{"name": name, "type": "space"} for name in "yx"]
    transform = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": transform}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    with open_image(tmp_path / "plate.zarr" / "A" / "1" / "0") as image:
        found = _found((60, 70), 1)
        write_outputs(tmp_path / "out" / "a.partial", "a", image, found, (kind,), place=tmp_path / "out")
    told = _attributes(tmp_path / "out" / "a.partial" / FOLDERS[kind] / "labels" / "cell", kind)
    assert told["image-label"]["source"]["image"] == expected
