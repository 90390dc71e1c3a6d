"""Makes files that would take gigabytes or minutes; opens each, and prints what that took: what test_bombs.py runs.

python tests/io/bombs.py make|open FOLDER
"""

import io
import json
import pathlib
import resource
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
import zarr

from fsis_jax.checkpoints.weights import load_weights
from fsis_jax.conversion.detectron.yaml_file import import_yaml
from fsis_jax.errors import FsisError
from fsis_jax.io.rois import read_roi_boxes
from fsis_jax.io.source import open_image

_ZEROS = bytes(1 << 20)


def _png(path: pathlib.Path) -> None:
    header = struct.pack(">IIBBBBB", 16384, 16384, 16, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", bytes(2 << 20)), (b"IEND", b""))
    parts = [struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _tile(path: pathlib.Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), compression="jpeg", photometric="rgb")
    data = path.read_bytes()
    start = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:start] + struct.pack(">HH", 65500, 65500) + data[start + 4 :])


def _zarr(path: pathlib.Path, zarr_format: int, shards: tuple[int, int] | None = None) -> None:
    group = zarr.create_group(path, zarr_format=zarr_format)
    array = group.create_array("0", shape=(64, 64), chunks=(32, 32), shards=shards, dtype="u1")
    array[...] = 1
    ome = {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if zarr_format == 3 else ome)
    large = imagecodecs.zstd_encode(_ZEROS * 300)
    file = sorted(file for file in (path / "0").rglob("*") if file.is_file() and file.name[0].isdigit())[0]
    if shards:
        index = np.full((4, 2), -1, "<i8")
        index[0] = 0, len(large)
        large += index.tobytes() + struct.pack("<I", _crc32c(index.tobytes()))
    file.write_bytes(large)


def _crc32c(data: bytes) -> int:
    """The checksum of a shard's index."""
    import google_crc32c

    return int(google_crc32c.value(data))


def _ome(path: pathlib.Path, old: str, new: str) -> None:
    tifffile.imwrite(path, np.zeros((4, 8, 8), np.uint8), ome=True, metadata={"axes": "TYX"}, description="")
    with tifffile.TiffFile(path) as tiff:
        text = tiff.ome_metadata
    changed = text.replace(old, new)
    assert changed != text
    tifffile.imwrite(path, np.zeros((4, 8, 8), np.uint8), description=changed, metadata=None, contiguous=False)


def _roi(path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.roi", "w") as entry,
    ):
        for _ in range(300):
            entry.write(_ZEROS)
    data, size = buffer.getvalue(), struct.pack("<I", 300 << 20)
    path.write_bytes(data.replace(size, struct.pack("<I", 1024)))


def _weights(path: pathlib.Path) -> None:
    meta = {"format": 1, "config": {"model": {"mask_head": {"convs": 100_000}}}, "validation": {}, "learnt": None}
    with path.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)))


def _read(path: pathlib.Path) -> None:
    with open_image(path, page=1, where_there=True) as image:
        np.asarray(image)


def main(what: str, folder: pathlib.Path) -> None:
    """The files, or a line of JSON: kind -> message, seconds, megabytes."""
    warnings.simplefilter("ignore")  # of zarr, and of a zip that declares less than it has
    cases: dict[str, tuple[str, Callable[[pathlib.Path], None], Callable[[pathlib.Path], object]]] = {
        "tile": ("x.tif", _tile, _read),
        "zarr3": ("x.zarr", lambda path: _zarr(path, 3), _read),
        "zarr2": ("y.zarr", lambda path: _zarr(path, 2), _read),
        "shard": ("z.zarr", lambda path: _zarr(path, 3, (64, 64)), _read),
        "SizeT": ("t.tif", lambda path: _ome(path, 'SizeT="4"', 'SizeT="300000000"'), _read),
        "PlaneCount": ("p.tif", lambda path: _ome(path, 'PlaneCount="4"', 'PlaneCount="1000000000"'), _read),
        "roi": ("x.zip", _roi, read_roi_boxes),
        "classes": ("x.yaml", lambda path: path.write_text(_yaml("{NUM_CLASSES: 1000000000", "")), import_yaml),
        "steps": ("y.yaml", lambda path: path.write_text(_yaml("{NUM_CLASSES: 81", _STEPS)), import_yaml),
        "convs": ("x.npz", _weights, load_weights),
        "png": ("x.png", _png, _read),
    }
    if what == "make":
        for name, make, _ in cases.values():
            make(folder / name)
        _sound(folder / "sound.tif")
        return
    _read(folder / "sound.tif")  # so that what reading imports is there
    told = {}
    for kind, (name, _, read) in cases.items():
        start, before = time.process_time(), _peak()
        try:
            read(folder / name)
            line = "read"
        except FsisError as error:
            line = str(error)
        told[kind] = line, time.process_time() - start, _peak() - before
    print(json.dumps(told))


_STEPS = "SOLVER: {LR_POLICY: step, STEP_SIZE: 1, MAX_ITER: 1000000000}"


def _yaml(model: str, more: str) -> str:
    body = "CONV_BODY: FPN.add_fpn_ResNet50_conv5_body, FASTER_RCNN: true}"
    fast = "FAST_RCNN: {ROI_BOX_HEAD: roi_2mlp_head, ROI_XFORM_METHOD: RoIAlign}"
    fpn = "FPN: {FPN_ON: true, MULTILEVEL_ROIS: true, MULTILEVEL_RPN: true}"
    return f"MODEL: {model}, TYPE: generalized_rcnn, {body}\n{fast}\n{fpn}\n{more}\n"


def _sound(path: pathlib.Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), compression="jpeg", photometric="rgb")


def _peak() -> float:
    """Megabytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
