"""How front ends show kinds: what they are called, their colours, and how many cells of each there are."""

import collections
from collections.abc import Sequence

import numpy as np

from fsis_jax.interactive.state import NAMELESS, NOT_THIS, Filters, Result
from fsis_jax.io.kinds import kind_colour

WRONG = "#ff6b6b"
"""Colour of what is wrong, and of examples of what is not wanted."""
_GONE = "#9aa5b1"


def title(kind: str, kinds: Sequence[str], category: str | None) -> str:
    """What a kind is called for a person.

    Args:
        kind: "" of the one that has no name.
        kinds: that are looked for.
        category: what cells are called that have no kind; None: "cell".
    """
    return "not this" if kind == NOT_THIS else kind or kinds[0] or category or NAMELESS


def colour(kind: str, kinds: Sequence[str]) -> str:
    """#rrggbb of a kind, as files of results have it; grey of one that is no more. As `title`."""
    kind = kind or kinds[0]
    if kind == NOT_THIS:
        return WRONG
    return "#{:02x}{:02x}{:02x}".format(*kind_colour(kinds.index(kind))) if kind in kinds else _GONE


def counts(result: Result, filters: Filters, kinds: Sequence[str]) -> dict[str, int]:
    """How many cells count of each kind that is looked for, and of others, if any do."""
    if result.added:  # which may cover others
        counted = result.counted(filters).without_overlaps()
        each = collections.Counter(kind or "" for kind in counted.kinds or [""] * len(counted))
    else:
        each = collections.Counter(map(result.kind_of, np.flatnonzero(result.kept(filters)).tolist()))
    return {kind: each[kind] for kind in dict.fromkeys([*kinds, *each])}
