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
DEFAULT = ("labels", "table", "overlay")
"""What is written where nothing else is said."""
REFERENCES_SUFFIX = ".refs"
"""Of files of encoded references."""
