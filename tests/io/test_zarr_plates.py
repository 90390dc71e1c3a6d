"""Results of a plate's fields are a plate, in which labels lie inside of their image, as NGFF has it."""

import errno
import json
import os
import pathlib

import numpy as np
import pytest
import zarr
from drawn_plate import FIELDS, WELLS, draw_plate

from fsis_jax.inference.instances import Instances
from fsis_jax.io.finding import image_files
from fsis_jax.io.outputs import image_name, write_outputs
from fsis_jax.io.source import open_image
from fsis_jax.io.zarr_plates import write_plates
from fsis_jax.preprocess.cropped_mask import CroppedMask

SIZE = (60, 70)
KINDS = {"0.5": "zarr", "0.4": "zarr-0.4"}
PLATES = {"0.5": "plate.zarr", "0.4": "plate-0.4.zarr"}
versions = pytest.mark.parametrize("version", KINDS)


def _found():
    """Two squares."""
    masks = (CroppedMask(3, 40, np.ones((20, 9), bool)), CroppedMask(30, 10, np.ones((7, 7), bool)))
    boxes = np.array([mask.extent for mask in masks], np.float32)
    return Instances(boxes, np.array([0.9, 0.8], np.float32), masks, SIZE)


def _segmented(plate, fields, output, kind):
    """Path of each field -> the folder of its results, written as a run does."""
    written = {}
    for field in fields:
        path = f"{plate}/{field}"
        with open_image(path, channel="DAPI") as image:
            files = write_outputs(output, image_name(path), image, _found(), (kind,))
        written[path] = files[kind]
    return written


def _told(group, version):
    attributes = group.attrs.asdict()
    if version == "0.4":
        return attributes
    assert attributes["ome"]["version"] == "0.5"
    return attributes["ome"]


def _check_plate(folder, version, fields):
    """By the words of the specification, from the plate to the pixels; nothing of ours reads."""
    root = zarr.open_group(folder, mode="r")
    assert root.metadata.zarr_format == (3 if version == "0.5" else 2)
    plate = _told(root, version)["plate"]
    rows, columns = ([row["name"] for row in plate[key]] for key in ("rows", "columns"))
    for well in plate["wells"]:
        assert well["path"] == f"{rows[well['rowIndex']]}/{columns[well['columnIndex']]}"
    found = []
    for well in plate["wells"]:
        for image in _told(root[well["path"]], version)["well"]["images"]:
            field = f"{well['path']}/{image['path']}"
            found.append(field)
            _check_image(root[field], version)
    assert found == list(fields)


def _check_image(group, version):
    (image,) = _told(group, version)["multiscales"]
    arrays = [group[dataset["path"]] for dataset in image["datasets"]]
    assert [array.shape for array in arrays] == [(2, 1, 60, 70), (2, 1, 30, 35)]
    assert np.asarray(arrays[0]).max() > 100
    assert _told(group["labels"], version)["labels"] == ["cell"]
    told = _told(group["labels/cell"], version)
    assert told["image-label"]["source"]["image"] == "../../"
    (labels,) = told["multiscales"]
    assert labels["axes"] == image["axes"][-2:]
    assert len(labels["datasets"]) == len(arrays)
    for level, dataset in enumerate(labels["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [0.5 * 2**level, 0.25 * 2**level]}
        assert translation == {"type": "translation", "translation": [7.0, 5.0]}
        pixels = np.asarray(group["labels/cell"][dataset["path"]])
        np.testing.assert_array_equal(pixels, _found().labels()[:: 2**level, :: 2**level])


@versions
def test_results_are_a_plate_of_labels_in_their_images(tmp_path, version):
    study, kind = tmp_path / "study", KINDS[version]
    plate, out = draw_plate(study / "plate.zarr", version), study / "out"
    before = sorted(study.rglob("*"))
    write_plates(out, _segmented(plate, FIELDS[:3], out, kind), kind, "")
    _check_plate(out / PLATES[version], version, FIELDS[:3])
    results = _segmented(plate, FIELDS, out, kind)
    for _ in range(2):
        write_plates(out, results, kind, "")
        _check_plate(out / PLATES[version], version, FIELDS)
    assert sorted(path for path in study.rglob("*") if out not in path.parents) == sorted([*before, out])
    assert image_files([f"{study}/**"]) == [f"{plate}/{field}" for field in FIELDS]  # none of the results
    link = out / PLATES[version] / "A" / "1" / "0"
    assert link.resolve() == pathlib.Path(results[f"{plate}/A/1/0"])
    study.rename(tmp_path / "moved")
    _check_plate(tmp_path / "moved" / "out" / PLATES[version], version, FIELDS)


@versions
def test_labels_of_another_version_stay_alone(tmp_path, version, caplog):
    (other,) = KINDS.keys() - {version}
    plate, out, kind = draw_plate(tmp_path / "plate.zarr", version), tmp_path / "out", KINDS[other]
    results = _segmented(plate, FIELDS[:2], out, kind)
    write_plates(out, results, kind, "")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        f"{plate}: of another version than --save {kind}: --save {KINDS[version]} shows labels on the images"
    )
    assert not (out / PLATES[other]).exists()
    for folder in results.values():
        assert [path.name for path in pathlib.Path(folder).iterdir() if path.is_dir()] == ["labels"]


def test_without_symbolic_links_labels_are_written_all_the_same(tmp_path, monkeypatch, caplog):
    plate = draw_plate(tmp_path / "plate.zarr", "0.5")

    def refuse(source, link, **_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), link)

    monkeypatch.setattr(os, "symlink", refuse)
    (folder,) = _segmented(plate, FIELDS[:1], tmp_path / "out", "zarr").values()
    assert f"{folder}: labels without their image: no symbolic links there" in caplog.text
    labels = zarr.open_group(pathlib.Path(folder, "labels", "cell"), mode="r")
    np.testing.assert_array_equal(np.asarray(labels["0"]), _found().labels())
    assert _told(labels, "0.5")["image-label"]["source"]["image"] == "../../../../plate.zarr/A/1/0"


@pytest.mark.parametrize("place", ["../../..", "/tmp", "labels/x", ""])
def test_arrays_in_odd_places_are_not_linked(tmp_path, place):
    plate = pathlib.Path(draw_plate(tmp_path / "plate.zarr", "0.5"))
    with open_image(plate / "A" / "1" / "0", channel="DAPI") as image:
        metadata = json.loads((plate / "A" / "1" / "0" / "zarr.json").read_bytes())
        metadata["attributes"]["ome"]["multiscales"][0]["datasets"][1]["path"] = place
        (plate / "A" / "1" / "0" / "zarr.json").write_text(json.dumps(metadata))
        write_outputs(tmp_path, "a", image, _found(), ("zarr",))
    assert sorted(path.name for path in (tmp_path / "a.zarr").iterdir()) == ["labels", "zarr.json"]


def test_a_plate_that_is_not_ours_stays(tmp_path, caplog):
    plate = draw_plate(tmp_path / "plate.zarr", "0.5")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "plate.zarr").rglob("*")}
    write_plates(tmp_path, _segmented(plate, FIELDS[:1], tmp_path, "zarr"), "zarr", "")
    assert f"{plate}: not made by fsis, so it stays" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "plate.zarr").rglob("*")} == before
    assert len(WELLS) == len([*(tmp_path / "plate.zarr").glob("?/?")])
