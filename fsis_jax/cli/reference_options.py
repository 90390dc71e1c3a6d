"""The options of `fsis segment`, `fsis references` and others that say what example cells are.

Nothing is imported here that takes long: help texts and complaints need not wait.
"""

import argparse
import glob
import itertools
import os
import re
from collections.abc import Iterable

from fsis_jax.cli.parsing import Parser, add_plane_options, check_exists, pixel_size
from fsis_jax.io.names import REFERENCES_SUFFIX
from fsis_jax.pretrained import DEFAULT_NAME, SHIPPED, VARIABLE, default_weights, find_weights

_BOX = re.compile(r"(?P<image>.+):[^:]*,[^:]*", re.DOTALL)
"""What names a box in an image, right or wrong."""


def add_references(parser: Parser, *, several: bool = False) -> None:
    """Options that say what example cells are, and which model sees them; `several`: `--page` and such may be "all"."""
    group = parser.add_argument_group("references", "one to five example cells; all that are given count together")
    group.add_argument(
        "--references",
        nargs="+",
        default=[],
        metavar="CROP",
        help=f"crops of one cell each, without much margin; or one {REFERENCES_SUFFIX} file of `fsis references`",
    )
    group.add_argument(
        "--kind",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME=EXAMPLE",
        help="examples of one of several kinds, each a crop, a pattern of crops, or IMAGE:x1,y1,x2,y2, as in "
        "--kind living=a.png:12,40,34,63 --kind dead='dead*.png'; every cell found gets a kind, and a probability of "
        "each",
    )
    group.add_argument(
        "--not",
        nargs="+",
        action="append",
        default=[],
        metavar="EXAMPLE",
        dest="unwanted",
        help="examples, given as for --kind, of what is not wanted, such as dust or another kind of cell: what is more "
        "like these is left out",
    )
    group.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="IMAGE:X1,Y1,X2,Y2",
        help="a box around a cell, in pixels of any image; may be given again",
    )
    group.add_argument("--reference-mask", metavar="LABELS", help="label image: each label is a reference")
    group.add_argument(
        "--reference-outlines",
        metavar="FILE",
        help="GeoJSON of QuPath, ROIs of ImageJ (.zip, .roi) or a COCO file: each outline is a reference; classes of "
        "QuPath, groups of ROIs and categories of COCO, where there are several, are kinds",
    )
    group.add_argument(
        "--reference-image",
        metavar="IMAGE",
        help="that the mask or the outlines belong to; default: the image to segment, if it is one",
    )
    group.add_argument(
        "--reference-pixel-size",
        type=pixel_size,
        metavar="UM",
        help="micrometres per pixel of the references; default: as their files say, if they do",
    )
    add_checkpoint(parser)
    add_plane_options(parser, several=several)


def add_checkpoint(parser: Parser) -> None:
    """Which model sees the references."""
    names = ", ".join(f"{name} ({shipped.description})" for name, shipped in SHIPPED.items())
    parser.add_argument(
        "--checkpoint",
        metavar="W",
        help=f"the model: the --workdir of a training run, a weights file of `fsis export`, or one that comes with "
        f"fsis_jax: {names}. Default: what the environment variable {VARIABLE} says, else {DEFAULT_NAME}",
    )


def check_there(images: Iterable[str], options: argparse.Namespace) -> None:
    """Raise FsisError for a file or model that is not there, before what reads them is imported, which takes seconds.

    Whatever else may be wrong with them is told when they are read.

    Args:
        images: arguments as `image_files` takes them.
        options: as `add_references` adds them.
    """
    named = [os.path.expanduser(path) for path in images]
    named += [path for path in options.references if not path.lower().endswith(REFERENCES_SUFFIX)]
    named += filter(None, (options.reference_image, options.reference_mask, options.reference_outlines))
    named += [box["image"] for text in options.reference if (box := _BOX.fullmatch(text))]
    examples = [*itertools.chain(*options.unwanted)]
    examples += [text for first, *others in options.kind for text in (first.partition("=")[2], *others)]
    for text in filter(None, examples):
        box = None if os.path.exists(text) else _BOX.fullmatch(text)
        named.append(box["image"] if box else os.path.expanduser(text))
    for path in named:
        if not glob.has_magic(path):
            check_exists(path)
    check_checkpoint(options.checkpoint)


def check_checkpoint(named: str | None) -> None:
    """Raise FsisError for a model that is not there; None: the default one."""
    checkpoint = named or default_weights()
    if checkpoint not in SHIPPED:
        find_weights(checkpoint)
