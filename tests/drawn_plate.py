"""A drawn plate of OME-Zarr, as converters of microscopes write it: 2 x 2 wells of two fields, with two channels."""

import pathlib

import cv2
import numpy as np
import zarr

WELLS = ("A/1", "A/2", "B/1", "B/2")
FIELDS = tuple(f"{well}/{field}" for well in WELLS for field in "01")
MOVED = {"type": "translation", "translation": [0.0, 0.0, 7.0, 5.0]}


def draw_plate(path: pathlib.Path, version: str, size: tuple[int, int] = (60, 70)) -> str:
    """Write it. The first channel has discs."""
    rng = np.random.default_rng(0)
    root = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)

    def tell(group: zarr.Group, **told: object) -> None:
        group.attrs.update({"ome": {"version": version, **told}} if version == "0.5" else told)

    places = [{"path": well, "rowIndex": "AB".index(well[0]), "columnIndex": int(well[2]) - 1} for well in WELLS]
    rows, columns = [{"name": "A"}, {"name": "B"}], [{"name": "1"}, {"name": "2"}]
    tell(root, plate={"name": "drawn", "rows": rows, "columns": columns, "wells": places, "version": version})
    for well in WELLS:
        tell(root.require_group(well), well={"images": [{"path": "0"}, {"path": "1"}], "version": version})
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx")]
    datasets = [
        {"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0, *finest]}, MOVED]}
        for level, finest in enumerate([(0.5, 0.25), (1.0, 0.5)])
    ]
    for field in FIELDS:
        pixels = rng.integers(0, 60, (2, 1, *size), np.uint8)
        for y, x in zip(rng.integers(9, size[0] - 9, 9), rng.integers(9, size[1] - 9, 9), strict=True):
            cv2.circle(pixels[0, 0], (int(x), int(y)), 9, int(rng.integers(150, 250)), -1)
        group = root.create_group(field)
        told = {"axes": axes, "datasets": datasets, "name": field, "version": version}
        tell(group, multiscales=[told], omero={"channels": [{"label": "DAPI"}, {"label": "other"}]})
        for level, dataset in enumerate(datasets):
            array = pixels[:, :, :: 2**level, :: 2**level]
            separator = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == "0.4" else {}
            group.create_array(dataset["path"], data=array, chunks=(1, 1, 64, 64), **separator)
    return str(path)
