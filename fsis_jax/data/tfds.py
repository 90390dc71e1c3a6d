"""The data sets of tensorflow-datasets: importing this module registers `fis_cell` and `fsis_coco`.

A record holds the image file's own bytes and its checked annotations, so nothing is decoded or checked again, and
thousands of small files become a few large ones (array_record). Records keep the order of the folder's source.
TensorFlow is not needed: where it is not installed, `tfds.load` gives what `tfds.data_source` gives, random access to
the records.
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fsis_jax.data.coco import CocoSource
from fsis_jax.data.coco_files import annotation_files, find_layout
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.records import Source


def features() -> tfds.features.FeaturesDict:
    """What a record holds."""
    of = tfds.features
    return of.FeaturesDict(
        {
            # Ids are text, since they may be of any size.
            # Any image format: features.Image would take 8-bit PNG and JPEG only, and decode them.
            "encoded": of.Tensor(shape=(), dtype=np.object_),
            "image_id": of.Text(),
            "file_name": of.Text(),
            "height": of.Tensor(shape=(), dtype=np.int64),
            "width": of.Tensor(shape=(), dtype=np.int64),
            "boxes": of.Tensor(shape=(None, 4), dtype=np.float32),
            "classes": of.Tensor(shape=(None,), dtype=np.int64),
            "crowd": of.Tensor(shape=(None,), dtype=np.bool_),
            "areas": of.Tensor(shape=(None,), dtype=np.float32),
            "annotation_ids": of.Tensor(shape=(None,), dtype=np.object_),
            "rles": of.Tensor(shape=(None,), dtype=np.object_),
            "keypoints": of.Tensor(shape=(None,), dtype=np.float32),
        }
    )


class FsisCoco(tfds.core.GeneratorBasedBuilder):
    """`fsis_coco`: any folder that `fsis data check` passes, one split for each of its annotation files.

    Args:
        root: the folder, which only making the data set needs; without it, the download config's `manual_dir`.
        options: those of every builder: `data_dir`, `version` ...

    Raises:
        FsisError: what is in `data_dir` was made of another folder than `root`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Bytes of images, boxes, masks as run lengths, keypoints."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give a folder with COCO annotations, as `root` or as `manual_dir`."
    LAYOUTS: tuple[str, ...] = ("coco", "fis_cell")
    """Of the folders that it reads."""
    ABOUT: ClassVar[dict[str, str]] = {
        "description": "Images with boxes, instance masks and keypoints, of a folder with COCO annotations."
    }

    def __init__(self, *, root: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._root = root
        super().__init__(**{"file_format": "array_record"} | options)
        prepared = (self.info.metadata or {}).get("sources")
        if root is not None and prepared not in (None, _digests(root)):
            raise FsisError(
                f"{self.data_dir}: made of another folder than {os.fspath(root)}, or of other annotations: give "
                "another data_dir, or remove that one"
            )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=features(),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
            **self.ABOUT,
        )

    def as_dataset(self, split: Any = None, **options: Any) -> Any:
        """A `tf.data.Dataset`; without TensorFlow, random access to the records, as `as_data_source`.

        Raises:
            FsisError: options that only TensorFlow has, without it.
        """
        if importlib.util.find_spec("tensorflow") is not None:
            return super().as_dataset(split, **options)
        decoders = options.pop("decoders", None)
        asked = ", ".join(name for name, value in options.items() if value)
        if asked:
            raise FsisError(f"{self.name}: {asked} of tfds.load need TensorFlow: install it, or leave them out")
        return self.as_data_source(split, decoders=decoders)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        root = dl_manager.manual_dir if self._root is None else self._root
        sources = _open_splits(root, self.LAYOUTS)
        # JSON has no whole numbers as keys, hence pairs.
        self.info.metadata.update(
            {
                "categories": {
                    split: [[category, name] for category, name in source.categories.items()]
                    for split, source in sources.items()
                },
                "folds": {
                    split: [[fold, list(ids)] for fold, ids in source.folds.items()]
                    for split, source in sources.items()
                },
                "keypoint_names": {
                    split: list(source.annotations[0].keypoint_names) for split, source in sources.items()
                },
                "sources": _digests(root),
            }
        )
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def _generate_examples(self, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
        for position in range(len(source)):
            record = source[position]
            annotations = record.annotations
            yield (
                position,
                {
                    "encoded": record.encoded,
                    "image_id": str(annotations.image_id),
                    "file_name": annotations.file_name,
                    "height": annotations.height,
                    "width": annotations.width,
                    "boxes": annotations.boxes,
                    "classes": annotations.classes,
                    "crowd": annotations.crowd,
                    "areas": annotations.areas,
                    "annotation_ids": np.array([b"%d" % one for one in annotations.annotation_ids], dtype=object),
                    "rles": np.array(annotations.rles, dtype=object),
                    "keypoints": annotations.keypoints.ravel(),
                },
            )


class FisCell(FsisCoco):
    """`fis_cell`: FIS-Cell, 14 categories of cells in 5 folds, from a folder of its layout."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give the folder of FIS-Cell (data/fss_cell there), as `root` or as `manual_dir`."
    LAYOUTS = ("fis_cell",)
    ABOUT: ClassVar[dict[str, str]] = {
        "description": "FIS-Cell: images of 14 categories of cells with instance masks, in 5 folds.",
        "citation": "FIS-Cell, of the PyTorch project CA_FSIS_Cell. Cite it, and the collections that its categories "
        "come from (BBBC, TNBC, MicroNet, NucleiSeg, MoNuSeg, ISBI 2009, Hela).",
    }


def _digests(root: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of the annotation file of each split of a folder."""
    digests = {}
    for split, path in annotation_files(root).items():
        with open(path, "rb") as file:
            digests[split] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _open_splits(root: str | os.PathLike[str], layouts: tuple[str, ...]) -> Mapping[str, Source]:
    """The splits of a folder, "train" first.

    Raises:
        FsisError: the folder cannot be used (see `CocoSource`), or is of another layout.
    """
    if (layout := find_layout(root)) not in layouts:
        if layout == "prepared":
            raise FsisError(f"{os.fspath(root)}: is a prepared data set already: give the folder with the images")
        raise FsisError(f"{os.fspath(root)}: not in the layout of FIS-Cell: use the data set fsis_coco")
    sources = {split: CocoSource(root, split) for split in annotation_files(root)}
    for split, source in sources.items():
        if not re.fullmatch(r"[A-Za-z]\w*", split):
            raise FsisError(f"{source.file}: cannot be a split's name: rename it, letters, digits and _ only")
        if len(source) == 0:
            raise FsisError(f"{source.file}: lists no image: add some or remove the file")
    return sources
