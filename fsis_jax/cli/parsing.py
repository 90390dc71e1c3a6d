"""Arguments: a parser whose complaints are errors like all others."""

import argparse
import math
import os
import re
from typing import NoReturn

from fsis_jax.cli.spelling import suggestion
from fsis_jax.errors import FsisError
from fsis_jax.io.pixel_size import LARGEST, SMALLEST, micrometres


class Parser(argparse.ArgumentParser):
    """Raises FsisError, one line, for what it cannot parse."""

    def error(self, message: str) -> NoReturn:
        hint = _meant(message, self.format_usage())
        raise FsisError(f"{' '.join(message.split())}; {hint}`{self.prog} --help` lists the arguments")


def add_plane_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Which plane of a file with several is read; `several`: it may be "all"."""
    more = "; or all, one result for each" if several else ""
    parser.add_argument("--channel", metavar="C", help=f"channel of a stack: a number from 1, or its name{more}")
    parser.add_argument("--page", metavar="P", help=f"plane of a stack: a number from 1, or as in Z3,T1{more}")
    parser.add_argument(
        "--series", metavar="S", help=f"image of a file with several: a number from 1, or its name{more}"
    )


def _meant(message: str, usage: str) -> str:
    """What was meant by the word that argparse's message says it does not know."""
    if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
        return suggestion(choice[1], re.findall(r"[\w-]+", choice[2]))
    if option := re.search(r"unrecognized arguments: (--[\w-]+)", message):
        return suggestion(option[1], re.findall(r"--[\w-]+", usage))
    return ""


def check_exists(path: str, otherwise: str = "no such file: check the path") -> None:
    """Raise FsisError for a path where nothing is, before what reads it is imported, which takes seconds.

    Args:
        path: as it was given.
        otherwise: what is told of it.
    """
    if not os.path.lexists(os.path.expanduser(path)):
        raise FsisError(f"{path}: {otherwise}")


def pixel_size(text: str) -> float:
    """Micrometres per pixel, as many as an image may have."""
    if micrometres(text, text, "µm") is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of micrometres from {SMALLEST:g} to {LARGEST:g}")
    return float(text)


def finite(text: str) -> float:
    """A number, neither infinite nor NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def tile_side(text: str) -> int:
    """A whole number of pixels that a tile may have as its side."""
    from fsis_jax.inference.tile_plan import SMALLEST_TILE  # which imports what reads images

    if not (text.isdecimal() and int(text) >= SMALLEST_TILE):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {SMALLEST_TILE} on")
    return int(text)
