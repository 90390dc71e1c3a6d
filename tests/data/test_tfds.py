"""The data sets of tensorflow-datasets, as its users type it, without TensorFlow."""

import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from coco_folder import annotation, write_folder

import fsis_jax.data.tfds  # registers the data sets
from fsis_jax.data.coco import CocoSource
from fsis_jax.data.opening import open_source
from fsis_jax.errors import FsisError
from fsis_jax.fis_cell import CATEGORIES, FOLDS
from fsis_jax.synthetic.generate import generate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A folder in the layout of FIS-Cell, and the `data_dir` with the data set made of it."""
    folder = tmp_path_factory.mktemp("tfds")
    root = generate(folder / "fss_cell", layout="fis_cell", images_per_category=3, two_category_images=1)
    tfds.builder("fis_cell", data_dir=folder / "made", root=root).download_and_prepare()
    return root, folder / "made"


def test_fis_cell_is_loaded_by_its_name(made: tuple[pathlib.Path, pathlib.Path]) -> None:
    root, data_dir = made
    assert importlib.util.find_spec("tensorflow") is None  # where it is, tfds.load gives tf.data
    loaded, info = tfds.load("fis_cell", data_dir=data_dir, download=False, with_info=True)
    assert set(loaded) == {"train", "train_only", "val", "test"} == set(info.splits)
    source = CocoSource(root, "train")
    assert len(loaded["train"]) == len(source) == info.splits["train"].num_examples
    example, record = loaded["train"][1], source[1]
    assert example["encoded"] == record.encoded
    np.testing.assert_array_equal(example["boxes"], record.annotations.boxes)
    assert info.features["boxes"].shape == (None, 4)
    assert str(info.version) == "1.0.0"
    assert "FIS-Cell" in info.citation
    assert dict(info.metadata["categories"]["train"]) == CATEGORIES
    assert {fold: tuple(ids) for fold, ids in info.metadata["folds"]["train"]} == FOLDS
    data_source = tfds.data_source("fis_cell", data_dir=data_dir, split="test", download=False)
    assert data_source[0]["encoded"] == CocoSource(root, "test")[0].encoded


def test_the_pipeline_reads_the_same_files(made: tuple[pathlib.Path, pathlib.Path]) -> None:
    root, data_dir = made
    for split in ("train", "test"):
        found, expected = open_source(data_dir / "fis_cell/1.0.0", split), CocoSource(root, split)
        assert dict(found.categories) == dict(expected.categories)
        assert [record.encoded for record in found] == [record.encoded for record in expected]


def test_any_coco_folder(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "data", [annotation(1), annotation(2)])
    builder = tfds.builder("fsis_coco", data_dir=tmp_path / "made")
    by_hand = tfds.download.DownloadConfig(manual_dir=folder)
    builder.download_and_prepare(download_config=by_hand)
    train = builder.as_data_source("train")
    assert [example["file_name"].decode() for example in train] == [
        one.file_name for one in CocoSource(folder, "train").annotations
    ]
    assert len(tfds.builder("fsis_coco", data_dir=tmp_path / "made", root=folder).as_data_source("train")) == len(train)
    another = write_folder(tmp_path / "another", [annotation(1)])
    with pytest.raises(
        FsisError, match=r"1\.0\.0: made of another folder than .*another, or of other annotations: give"
    ):
        tfds.builder("fsis_coco", data_dir=tmp_path / "made", root=another)
    with pytest.raises(FsisError, match=r"batch_size of tfds\.load need TensorFlow: install it, or leave them out"):
        tfds.load("fsis_coco", data_dir=tmp_path / "made", download=False, batch_size=2)
    with pytest.raises(FsisError, match="not in the layout of FIS-Cell: use the data set fsis_coco"):
        tfds.builder("fis_cell", data_dir=tmp_path / "other", root=folder).download_and_prepare()
    assert fsis_jax.data.tfds.FsisCoco.name == "fsis_coco"
