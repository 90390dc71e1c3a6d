"""Memory that the compiler needed and the C library still holds."""

import ctypes
import functools
import sys
from collections.abc import Callable


def give_back() -> None:
    """Give what is free to the system (glibc; elsewhere nothing happens): hundreds of MB after a compilation."""
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    if sys.platform == "linux":
        trim: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            return trim
    return lambda _: None
