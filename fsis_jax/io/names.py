"""Names of files that we write. Nothing is imported here, so that a help text need not wait for what reads images."""

FILES = {
    "labels": "{}-labels.tif",
    "coco": "{}-coco.json",
    "geojson": "{}.geojson",
    "rois": "{}-rois.zip",
    "table": "{}-table.csv",
    "overlay": "{}-overlay.png",
}
"""Kind of result -> file of an image NAME."""
ZARR = {"zarr": "{}.zarr", "zarr-0.4": "{}-0.4.zarr"}
"""Kind of result -> folder, of NGFF 0.5 and 0.4."""
RESULTS = {**FILES, **ZARR}
DEFAULT = ("labels", "table", "overlay")
"""What is written where nothing else is said."""
REFERENCES_SUFFIX = ".refs"
"""Of files of encoded references."""
WEIGHTS_SUFFIX = ".npz"
"""Of files of weights."""
