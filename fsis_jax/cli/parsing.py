"""Arguments: a parser whose complaints are errors like all others."""

import argparse
import math
from typing import NoReturn

from fsis_jax.errors import FsisError


class Parser(argparse.ArgumentParser):
    """Raises FsisError, one line, for what it cannot parse."""

    def error(self, message: str) -> NoReturn:
        raise FsisError(f"{' '.join(message.split())}; `{self.prog} --help` lists the arguments")


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
