"""How the arrays of one detector differ from those that another has."""

from collections.abc import Mapping
from typing import Protocol


class Shaped(Protocol):
    """An array, or what tells its shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def differences(wanted: Mapping[str, Shaped], stored: Mapping[str, Shaped]) -> str:
    """How names and shapes differ, as "1 missing (a); 2 extra (b, c)"; empty if they do not."""
    missing = sorted(wanted.keys() - stored.keys())
    extra = sorted(stored.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(stored[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & stored.keys())
        if tuple(stored[name].shape) != tuple(wanted[name].shape)
    ]
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("extra", extra), ("of another shape", shapes))
        if names
    )
