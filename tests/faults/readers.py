"""What is fuzzed: files of every kind that fsis reads, as our own writers and the common libraries make them."""

import dataclasses
import importlib.util
import io
import json
import pathlib
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator

import cv2
import mutations
import numpy as np
import tifffile
import yaml
import zarr
from mutations import Damage
from PIL import Image
from roifile import ImagejRoi

from fsis_jax.checkpoints import config_file
from fsis_jax.checkpoints.weights import load_weights
from fsis_jax.conversion.detectron.yaml_file import import_yaml
from fsis_jax.conversion.sources import read_source
from fsis_jax.conversion.torch_file import read_file
from fsis_jax.data.check import check
from fsis_jax.inference.finished_images import FinishedImages
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.references import References
from fsis_jax.inference.references_file import load_references
from fsis_jax.io.coco_boxes import is_coco, read_coco_boxes
from fsis_jax.io.geojson import read_geojson_boxes
from fsis_jax.io.rois import read_roi_boxes
from fsis_jax.io.source import open_image
from fsis_jax.recipes import compact_config
from fsis_jax.synthetic.generate import generate

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "io"))
from vendor_files import write_czi, write_ims, write_lif, write_nd2

Read = Callable[[pathlib.Path], object]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file, or of folder, that is read."""

    name: str
    path: pathlib.Path
    """A sound one."""
    read: Read
    damage: Damage
    files: tuple[pathlib.Path, ...] = ()
    """Of a folder: those of its files that are damaged."""


def image(path: pathlib.Path) -> object:
    """All pixels of the first plane, and what the file tells."""
    with open_image(path, channel=1, page=1, series=1, where_there=True) as opened:
        return np.asarray(opened).sum(), opened.pixel_size


def kinds(folder: pathlib.Path) -> Iterator[Kind]:
    """Writes a sound file of each kind; the names of the files tell their formats."""
    rng = np.random.default_rng(0)
    grey = cv2.GaussianBlur(rng.integers(0, 256, (96, 130), np.uint8), (0, 0), 2)
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], -1)

    def written(name: str, data: bytes) -> pathlib.Path:
        (folder / name).write_bytes(data)
        return folder / name

    def pillow(pixels: np.ndarray, suffix: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, suffix, **options)
        return buffer.getvalue()

    def tiff(name: str, pixels: np.ndarray, **options: object) -> pathlib.Path:
        tifffile.imwrite(folder / name, pixels, **options)
        return folder / name

    plain = mutations.any_of(*mutations.PLAIN)
    mixed = mutations.any_of(*mutations.PLAIN, mutations.words, mutations.words)
    text = mutations.any_of(*mutations.TEXT)
    palette = Image.fromarray(grey).convert("P")
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    yield Kind("PNG", written("grey.png", pillow(grey, "PNG")), image, mutations.png)
    yield Kind("PNG", written("colour.png", cv2.imencode(".png", colour.astype(np.uint16))[1].tobytes()), image, plain)
    yield Kind("PNG", written("palette.png", buffer.getvalue()), image, mutations.png)
    yield Kind("JPEG", written("baseline.jpg", pillow(colour, "JPEG")), image, plain)
    yield Kind("JPEG", written("progressive.jpg", pillow(colour, "JPEG", progressive=True)), image, plain)
    yield Kind("TIFF", tiff("plain.tif", grey), image, plain)
    yield Kind("TIFF", tiff("deflate.tif", grey.astype(np.uint16), tile=(32, 32), compression="zlib"), image, plain)
    yield Kind("TIFF", tiff("lzw.tif", grey, compression="lzw", predictor=True), image, plain)
    tiled = {"tile": (32, 32), "compression": "jpeg", "photometric": "rgb"}
    yield Kind("TIFF", tiff("jpeg.tif", colour, **tiled), image, plain)
    stack = np.stack([grey, grey // 2, grey // 3])
    yield Kind("TIFF", tiff("imagej.tif", stack, imagej=True, metadata={"axes": "ZYX", "unit": "um"}), image, mixed)
    channels = {"axes": "CYX", "Channel": {"Name": ["a", "b", "c"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    yield Kind("OME-TIFF", tiff("a.ome.tif", stack, metadata=channels), image, mixed)
    wide = grey.astype(np.uint16)
    tiles = [(wide[:, x : x + 65], {"X": x, "Y": 0, "M": x // 65}, 5) for x in (0, 65)]
    yield Kind("CZI", write_czi(folder / "a.czi", tiles), image, mixed)
    for name, package, write in (
        ("a.nd2", "nd2", lambda path: write_nd2(path, wide[None, ..., None], micrometres=0.5)),
        ("a.lif", "liffile", lambda path: write_lif(path, {"a": (wide, "YX")})),
        ("a.ims", "h5py", lambda path: write_ims(path, wide[None, None, None])),
    ):
        if importlib.util.find_spec(package):
            yield Kind(name[2:].upper(), write(folder / name), image, mixed)
    for zarr_format in 2, 3:
        path = _zarr(folder / f"{zarr_format}.zarr", grey, zarr_format)
        files = tuple(sorted(file for file in path.rglob("*") if file.is_file()))
        yield Kind("OME-Zarr", path, image, text, files)
    roi = ImagejRoi.frompoints(np.array([(3, 3), (30, 3), (30, 25), (3, 25)]), name="a")
    yield Kind("ImageJ ROI", written("a.roi", roi.tobytes()), read_roi_boxes, plain)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.roi", roi.tobytes())
    yield Kind("ImageJ ROI", written("a.zip", buffer.getvalue()), read_roi_boxes, mutations.archive)
    ring = [[3, 3], [30, 3], [30, 25], [3, 3]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    collection = {"type": "FeatureCollection", "features": [feature] * 2}
    yield Kind("GeoJSON", written("a.geojson", json.dumps(collection).encode()), read_geojson_boxes, text)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 3, 20, 20.5], "iscrowd": 0}] * 2,
        "categories": [{"id": 1, "name": "cell"}],
    }

    def coco(path: pathlib.Path) -> object:
        return is_coco(path) and read_coco_boxes(path, "a.png", (64, 64))

    yield Kind("COCO boxes", written("instances.json", json.dumps(content).encode()), coco, text)
    features = {level: np.ones((1, 4, 4, 8), np.float32) for level in (2, 3)}
    sides, crops = np.full((2, 2), 20, np.float32), np.zeros((2, 32, 32, 3), np.uint8)
    References({k: _jax(v) for k, v in features.items()}, sides, crops, 0.5, "abc").save(folder / "a.refs")
    yield Kind("references", folder / "a.refs", load_references, mutations.archive)
    yield from _models(folder, written, plain, text)
    yield from _records(folder, written, plain, text)


def _jax(array: np.ndarray) -> object:
    import jax.numpy as jnp

    return jnp.asarray(array)


def _zarr(path: pathlib.Path, pixels: np.ndarray, zarr_format: int) -> pathlib.Path:
    group = zarr.create_group(path, zarr_format=zarr_format)
    array = group.create_array("0", shape=pixels.shape, chunks=(32, 32), dtype=pixels.dtype)
    array[...] = pixels
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    ome = {"multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if zarr_format == 3 else ome)
    return path


def _models(
    folder: pathlib.Path, written: Callable[[str, bytes], pathlib.Path], plain: Damage, text: Damage
) -> Iterator[Kind]:
    config = config_file.plain_config(compact_config())
    yield Kind("config.json", written("config.json", json.dumps(config).encode()), config_file.read_config, text)
    arrays = {"backbone/stem/kernel": np.zeros((3, 3, 3, 8), np.float16)}
    meta = {"format": 1, "config": config, "validation": {"min_score": 0.5}, "learnt": None}
    with (folder / "a.npz").open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
    yield Kind("weights", folder / "a.npz", load_weights, mutations.archive)
    settings = {
        "MODEL": {
            "TYPE": "generalized_rcnn",
            "CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body",
            "NUM_CLASSES": 81,
            "FASTER_RCNN": True,
        },
        "SOLVER": {"BASE_LR": 0.02, "LR_POLICY": "steps_with_decay", "MAX_ITER": 90000, "STEPS": [0, 60000, 80000]},
        "FPN": {"FPN_ON": True, "MULTILEVEL_ROIS": True, "MULTILEVEL_RPN": True},
        "FAST_RCNN": {"ROI_BOX_HEAD": "roi_2mlp_head", "ROI_XFORM_METHOD": "RoIAlign"},
        "TRAIN": {"SCALES": "(800,)", "MAX_SIZE": 1333},
    }
    yield Kind("Detectron's YAML", written("a.yaml", yaml.safe_dump(settings).encode()), import_yaml, text)
    blobs = {"blobs": {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "res2_0_branch2a_w": np.ones((4, 4), np.float32)}}

    def weights(path: pathlib.Path) -> object:
        return read_source(read_file(path), "auto", path)

    for protocol in 2, 4:
        name = f"{protocol}.pkl"
        yield Kind("PyTorch, pickle", written(name, pickle.dumps(blobs, protocol)), weights, plain)
    buffer = io.BytesIO()
    program = pickle.dumps({"model": {"layer1.0.conv1.weight": 1}}, 2)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", bytes(24))
        archive.writestr("archive/version", "3\n")
    yield Kind("PyTorch, pickle", written("a.pth", buffer.getvalue()), weights, mutations.archive)


def _records(
    folder: pathlib.Path, written: Callable[[str, bytes], pathlib.Path], plain: Damage, text: Damage
) -> Iterator[Kind]:
    root = folder / "coco"
    generate(root, images_per_category=2, two_category_images=0, sides=(64, 64))
    files = (*sorted(root.glob("annotations/*.json")), root / "folds.json", *sorted(root.glob("images/*"))[:2])
    yield Kind("COCO folder", root, lambda path: check(path).problems, text, files)
    out = folder / "out"
    out.mkdir()
    line = {"name": "a", "path": "/a.png", "key": "k", "files": {"labels": "a.tif"}, "cells": 3, "pixel_size": 0.5}
    (out / "images.jsonl").write_text(f"{json.dumps(line)}\n" * 3)
    yield Kind("images.jsonl", out, lambda path: FinishedImages(path).lines, text, (out / "images.jsonl",))
    masks = np.zeros((0, 4), np.float32)
    for tile in range(3):
        journal = Journal(folder / "journal", "key")
        journal.add(tile, Instances(masks, np.zeros(0, np.float32), (), (64, 64)))
        journal.close()
    yield Kind("journal", folder / "journal", lambda path: Journal(path, "key").finished, plain)


warnings.simplefilter("ignore")
