"""What a correction says of all other cells, at once and without the network.

It is an example of a kind, or of what is none, by its traits (`traits.py`), as in `fsis refine`: what was found is
scored again, and references get it for what is found next.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.references import References
from fsis_jax.inference.traits import TRAITS, KindModel, kind_scores


class Correction(NamedTuple):
    """What was said of an instance."""

    traits: tuple[float, ...]
    """As `Instances.traits` ..."""
    pixel_size: float | None
    """... with sizes in pixels of so many micrometres, where that is known."""
    kind: str | None
    """Name of what it is, "" of the kind that has none; None of what is no kind that is looked for."""


def in_order(corrections: Iterable[Correction]) -> tuple[Correction, ...]:
    """In an order that does not depend on when, or in which image, they were made."""
    return tuple(sorted(corrections, key=lambda each: (each.traits, each.pixel_size or 0.0, each.kind or "")))


def refined(references: References, corrections: tuple[Correction, ...]) -> References:
    """References with corrections, as far as these are of their kinds, so that later ones count for what is found."""
    traits, rows = _examples(corrections, references.kinds, references.pixel_size)
    names = references.kinds or ("cell",)
    right = {place: names[row] for place, row in enumerate(rows.tolist()) if row < len(names)}
    learnt = references.refined(traits, right=right, wrong=np.flatnonzero(rows == len(names)).tolist())
    return dataclasses.replace(learnt, keep_traits=True)


def told(corrections: tuple[Correction, ...]) -> str:
    """For a person; "" of none."""
    count = len(corrections)
    return f"{count} correction{'s count' if count > 1 else ' counts'} for all cells" if count else ""


@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
    """What the scores of a result rest on, beside what the network says."""

    examples: KindModel
    """Of the references alone."""
    pixel_size: float | None
    """Micrometres per pixel of the sizes among the traits, where it is known."""
    faintness: float
    """`model.detections.faintness` of the model."""
    corrections: tuple[Correction, ...] = ()
    """That the references had when the network ran."""

    def rescored(self, found: Instances, corrections: tuple[Correction, ...]) -> np.ndarray:
        """(N, K + 1), as `Instances.kind_scores`, K = 1 without names, of what was found if these were its corrections.

        Args:
            found: with evidence and traits.
        """
        assert found.evidence is not None
        assert found.traits is not None
        then, now = (self._model(each, found.names) for each in (self.corrections, corrections))
        evidence = found.evidence.copy()
        evidence[:, :-1] += self.faintness * (then.faintness(found.traits) - now.faintness(found.traits))
        return kind_scores(evidence, found.traits, now)

    def renamed(self, old: str, new: str) -> "Basis":
        """With another name of a kind."""
        named = (each._replace(kind=new) if each.kind == old else each for each in self.corrections)
        return dataclasses.replace(self, corrections=in_order(named))

    def _model(self, corrections: tuple[Correction, ...], names: tuple[str, ...]) -> KindModel:
        traits, rows = _examples(corrections, names, self.pixel_size)
        known = self.examples
        return KindModel(np.concatenate([known.traits, traits]), np.concatenate([known.kinds, rows]), known.count)


def _examples(
    corrections: tuple[Correction, ...], names: tuple[str, ...], pixel_size: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Traits (n, T) float32, with sizes in such pixels, and rows of kinds (n,) int32, K of none of them.

    Args:
        names: of the K kinds; () of one without a name. What is of another kind is left out.
    """
    rows: dict[str | None, int] = {"": 0, **{name: row for row, name in enumerate(names)}, None: max(len(names), 1)}
    known = [each for each in corrections if each.kind in rows]
    traits = np.array([each.traits for each in known], np.float32).reshape(-1, len(TRAITS))
    if pixel_size is not None:
        traits[:, 0] += [np.log((each.pixel_size or pixel_size) / pixel_size) for each in known]
    return traits, np.array([rows[each.kind] for each in known], np.int32)
