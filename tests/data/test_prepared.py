"""The array_record data set holds exactly what the folder holds, and is made without TensorFlow."""

import json
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from coco_folder import annotation, write_folder, write_json

from fsis_jax.data import prepared
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.records import Source
from fsis_jax.synthetic.generate import generate


def _assert_same(found: Source, expected: Source) -> None:
    assert len(found) == len(expected)
    assert dict(found.categories) == dict(expected.categories)
    assert dict(found.folds) == dict(expected.folds)
    for position in range(len(expected)):
        a, b = found[position], expected[position]
        assert a.encoded == b.encoded
        fields, wanted = vars(a.annotations), vars(b.annotations)
        assert fields.keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, np.ndarray):
                assert fields[name].dtype == value.dtype, name
                np.testing.assert_array_equal(fields[name], value, err_msg=name)
            else:
                assert fields[name] == value, name
                assert type(fields[name]) is type(value)


def test_every_record_of_real_images(cells_tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = prepared.prepare(cells_tiny, tmp_path / "prepared")
    for split in ("train", "test"):
        _assert_same(open_source(root, split), CocoSource(cells_tiny, split))


def test_every_record_of_fis_cell_layout(tmp_path: pathlib.Path) -> None:
    folder = generate(tmp_path / "fis_cell", layout="fis_cell", images_per_category=3, two_category_images=2)
    root = prepared.prepare(folder, tmp_path / "prepared")
    for split in ("train", "train_only", "val", "test"):
        _assert_same(open_source(root, split), CocoSource(folder, split))


def test_empty_image_crowd_and_pickle(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "data", [annotation(3, iscrowd=1)])
    root = prepared.prepare(folder, tmp_path / "prepared")
    source = pickle.loads(pickle.dumps(open_source(root, "train")))
    _assert_same(source, CocoSource(folder, "train"))
    assert not list(tmp_path.glob(".*.tmp"))


def test_tensorflow_is_not_imported(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "data", [annotation(1)])
    program = (
        "import sys; from fsis_jax.data.prepared import prepare; from fsis_jax.data.opening import open_source; "
        f"prepare({str(folder)!r}, {str(tmp_path / 'out')!r}); open_source({str(tmp_path / 'out')!r}, 'train')[0]; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, capture_output=True)


def test_bad_input(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "data", [annotation(1)])
    root = prepared.prepare(folder, tmp_path / "prepared")
    cases: Mapping[str, tuple[pathlib.Path, pathlib.Path]] = {
        "exists already": (folder, root),
        "is a prepared data set already": (root, tmp_path / "other"),
        "no such data folder": (tmp_path / "nowhere", tmp_path / "other"),
    }
    for message, (source, output) in cases.items():
        with pytest.raises(FsisError, match=message):
            prepared.prepare(source, output)
    write_json(folder / "annotations/test.json", {"images": [], "annotations": [], "categories": []})
    with pytest.raises(FsisError, match=r"test\.json: lists no image"):
        prepared.prepare(folder, tmp_path / "other")
    with pytest.raises(FsisError, match="no split 'val', only: test, train"):
        open_source(root, "val")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "prepared"]


def test_failed_write_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "data", [annotation(1)])

    def full_disk(self: object) -> None:
        raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr(prepared.FsisCoco, "download_and_prepare", full_disk)
    with pytest.raises(FsisError, match="No space left on device"):
        prepared.prepare(folder, tmp_path / "prepared")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_damaged_files(tmp_path: pathlib.Path) -> None:
    root = prepared.prepare(write_folder(tmp_path / "data", [annotation(1)]), tmp_path / "prepared")
    (root / "features.json").write_text("{")
    with pytest.raises(FsisError, match="cannot be read as prepared data") as caught:
        open_source(root, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_features_of_a_stranger_import_nothing(tmp_path: pathlib.Path, key: str) -> None:
    root = prepared.prepare(write_folder(tmp_path / "data", [annotation(1)]), tmp_path / "prepared")
    text = (root / "features.json").read_text()
    whole = json.loads(text)
    feature = whole["featuresDict"]["features"]["image_id"]
    feature[key] = "fsis_hostile.Zen"
    if key != "pythonClassName":
        del feature["pythonClassName"]
    (root / "features.json").write_text(json.dumps(whole))
    (tmp_path / "fsis_hostile.py").write_text("raise SystemExit('imported')")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(FsisError, match=r"cannot be read as prepared data \(features.json describes another kind"):
            open_source(root, "train")
    (root / "features.json").write_text(text)
    assert len(open_source(root, "train"))
