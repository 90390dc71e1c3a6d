"""The FIS-Cell data set: its file names, its 14 categories and its 5 folds.

Follows `lib/datasets/dataset_catalog.py` of the PyTorch project: annotation files lie in the root folder, and the
file names of images are relative to it.
"""

FOLDERS = ("fis_cell", "fss_cell")
"""Names of the root folder: ours, and that of the PyTorch project."""

CATEGORIES = {
    1: "BBBC039",
    2: "ClusterNuclei",
    3: "BBBC020_nuclei",
    4: "BBBC020_cell",
    5: "TNBC",
    6: "MicroNet",
    7: "BBBC018_nuclei",
    8: "BBBC018_cell",
    9: "NucleiSeg",
    10: "MoNuSeg",
    11: "ISBI2009",
    12: "BBBC007_nuclei",
    13: "BBBC007_cell",
    14: "Hela",
}
"""Category id -> name."""

FOLDS: dict[int, tuple[int, ...]] = {1: (1, 2), 2: (3, 4, 5), 3: (6, 7, 8), 4: (9, 10), 5: (11, 12, 13, 14)}
"""Fold number -> ids of the categories that it holds out."""

ANNOTATION_FILES = {
    "train": "instances_fss_cell_poly_train_val.json",
    "train_only": "instances_fss_cell_poly_train.json",
    "val": "instances_fss_cell_poly_val.json",
    "test": "instances_fss_cell_poly_test.json",
}
"""Split -> file. "train" is train_val, as in the PyTorch project; its parts are "train_only" and "val"."""
