"""What a person has shown and corrected: values that never change, so that undo is a step back to an earlier one.

The score and the area only choose among what was found: `Tidying` goes through the instances by descending score, so
that those which it keeps at a threshold are the first of those which it keeps at 0. A `Result` holds the latter, and
another threshold needs neither the network nor a second look at the masks.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from fsis_jax.inference.instances import Instances
from fsis_jax.inference.neighbours import box_ious
from fsis_jax.interactive.learning import Basis, Correction, in_order
from fsis_jax.interactive.saying import as_said, named, of_one_kind, with_cells
from fsis_jax.interactive.shapes import holds
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.cropped_mask import CroppedMask

Verdict = Literal["right", "wrong", "deleted"]
"""What a person says of an instance: it counts whatever the filters say; it is no such cell; it must not be there."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
NOT_THIS = "not"
"""The kind of examples of what is not wanted; `fsis segment --not` calls it so, too."""
NAMELESS = "cell"
"""What cells of a kind without a name are called beside others, unless the settings have a category."""
_SAME = 0.5
"""IoU of two boxes from which they are taken for the same cell."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """A box around an example cell, in whole pixels of an image."""

    image: str
    """Path."""
    box: Box
    kind: str = ""
    """Name of what it shows; "" of a kind without a name, NOT_THIS of what is not wanted."""

    def __str__(self) -> str:
        """As `fsis segment --reference` takes it."""
        return f"{self.image}:{','.join(str(int(value)) for value in self.box)}"


class Added(NamedTuple):
    """A cell that was missed."""

    mask: CroppedMask
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which instances count."""

    min_score: float
    min_area: float = 0.0
    """Pixels ..."""
    max_area: float = np.inf
    """... as in `Tidying`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What was found in an image, and what a person says of it."""

    found: Instances
    """Of any score, tidied: no pixel is in two masks. The kind without a name is called "" there, too."""
    references: tuple[Reference, ...]
    """That it was found with."""
    part: Box | None = None
    """The part of the image that was segmented; None: all of it."""
    verdicts: Mapping[int, Verdict] = dataclasses.field(default_factory=dict)
    """Row of `found` -> what was said of it."""
    kinds: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Row of `found` -> the kind that it is said to be, whatever it was taken for; its verdict is "right"."""
    added: tuple[Added, ...] = ()
    """Cells that were missed."""
    model: str = ""
    """`Segmenter.fingerprint` of the model that found it; "" of that in use."""
    image: str = ""
    """`content_digest` of the image's file; "" where that is not known."""
    basis: Basis | None = None
    """That its scores rest on; None: corrections do not change them, nor do its own count elsewhere."""
    corrected: np.ndarray | None = None
    """(N, K + 1), what `by` makes of the kinds' scores of `found`."""

    @functools.cached_property
    def corrections(self) -> tuple[Correction, ...]:
        """What was said that counts for other cells."""
        basis, traits = self.basis, self.found.traits
        if basis is None or traits is None:
            return ()
        said = {row: None if verdict == "wrong" else self.kind_of(row) for row, verdict in self.verdicts.items()}
        return tuple(
            Correction(tuple(traits[row].tolist()), basis.pixel_size, kind)
            for row, kind in said.items()
            if self.verdicts[row] != "deleted"
        )

    def by(self, corrections: tuple[Correction, ...]) -> "Result":
        """This one as corrections in any image have it: scores and kinds of all of which nothing was said."""
        if self.basis is None or self.basis.corrections == corrections:
            return self
        corrected = self.basis.rescored(self.found, corrections)
        judged = self.judged(*VERDICTS)
        own = self.found.kind_scores
        corrected[judged] = (of_one_kind(self.found) if own is None else own)[judged]
        return dataclasses.replace(self, corrected=corrected)

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """(N,) float32, of `found`, by corrections."""
        return self.found.scores if self.corrected is None else 1 - self.corrected[:, -1]

    @functools.cached_property
    def wanted(self) -> np.ndarray:
        """(N,) bool, the instances of `found` that are of no unwanted kind, by corrections."""
        return np.array([kind not in self.found.unwanted for kind in self._found_kinds], bool)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Rows of `found` by descending score."""
        return np.argsort(-self.scores, kind="stable")

    @functools.cached_property
    def ranked(self) -> Instances:
        """What was found, in order of the scores that corrections leave."""
        found = self.found
        if self.corrected is None:
            return found
        if found.kind_scores is not None:
            classes = self.corrected[:, :-1].argmax(1).astype(np.int32)
            found = dataclasses.replace(found, kind_scores=self.corrected, classes=classes)
        return found.by_scores(self.scores)

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask of `found`."""
        return self.found.areas()

    def judged(self, *verdicts: Verdict) -> np.ndarray:
        """(N,) bool, the instances of which one of these was said."""
        rows = np.zeros(len(self.found), bool)
        rows[[row for row, verdict in self.verdicts.items() if verdict in verdicts]] = True
        return rows

    def filtered(self, filters: Filters) -> np.ndarray:
        """(N,) bool, the instances of `found` that the filters choose, whatever was said of them."""
        by_area = (self.areas >= filters.min_area) & (self.areas <= filters.max_area)
        return np.asarray((self.scores >= filters.min_score) & by_area & self.wanted)

    def kept(self, filters: Filters) -> np.ndarray:
        """(N,) bool, the instances of `found` that count."""
        return (self.filtered(filters) & ~self.judged("wrong", "deleted")) | self.judged("right")

    def counted(self, filters: Filters) -> Instances:
        """The cells that count, the added ones with a score of 1 and first; what was said of kinds is so."""
        counted = self.kept(filters)[self._order]
        kept = dataclasses.replace(self.ranked.select(counted), evidence=None, traits=None)
        rows, kinds = self._order[counted].tolist(), [cell.kind for cell in self.added]
        kept = as_said(kept, {place: self.kinds[row] for place, row in enumerate(rows) if row in self.kinds}, kinds)
        kept = with_cells(kept, [cell.mask for cell in self.added], kinds)
        # What was said to be right may score less than the filter asks for.
        return dataclasses.replace(kept, min_score=min(filters.min_score, float(kept.scores.min(initial=1))))

    def kind_of(self, row: int) -> str:
        """Of an instance of `found`; "" where there are no kinds."""
        return self.kinds[row] if row in self.kinds else self._found_kinds[row]

    @functools.cached_property
    def _found_kinds(self) -> tuple[str, ...]:
        if self.corrected is not None and self.found.kind_scores is not None:
            return tuple(self.found.names[row] for row in self.corrected[:, :-1].argmax(1).tolist())
        return tuple(kind or "" for kind in self.found.kinds) or ("",) * len(self.found)

    def instance_at(self, x: float, y: float, filters: Filters) -> int | None:
        """The row of `found` with this pixel that is seen: it counts, or is marked as wrong."""
        seen = np.flatnonzero(self.kept(filters) | self.judged("wrong"))
        hits = [row for row in seen.tolist() if holds(self.found.masks[row], x, y)]
        return hits[0] if hits else None

    def added_at(self, x: float, y: float) -> int | None:
        """The number of the added cell with this pixel."""
        hits = [number for number, cell in enumerate(self.added) if holds(cell.mask, x, y)]
        return hits[-1] if hits else None

    def likest(self, box: Box) -> int | None:
        """The row of `found` whose box is most like this one, if any is."""
        overlaps = box_ious(box, self.found.boxes)
        best = int(np.argmax(overlaps)) if len(overlaps) else None
        return best if best is not None and overlaps[best] >= _SAME else None

    def taken_over(self, earlier: "Result | None") -> "Result":
        """This result with what was said of an earlier one of the image, where the same cells were found again.

        What was said of another image, which was in the same place, is not.
        """
        if earlier is None or not self.is_of(earlier.found.size, earlier.image):
            return self
        verdicts: dict[int, Verdict] = {}
        kinds: dict[int, str] = {}
        for row, verdict in earlier.verdicts.items():
            x1, y1, x2, y2 = earlier.found.boxes[row].tolist()
            again = self.likest((x1, y1, x2, y2))
            if again is not None and again not in verdicts:
                verdicts[again] = verdict
                if row in earlier.kinds:
                    kinds[again] = earlier.kinds[row]
        return dataclasses.replace(self, verdicts=verdicts, kinds=kinds, added=earlier.added)

    def is_of(self, size: tuple[int, int], image: str) -> bool:
        """Whether it was found in the image of this size (height, width) and digest, as far as that is known."""
        return self.found.size == size and (self.image == image or "" in (self.image, image))

    @property
    def names(self) -> frozenset[str]:
        """Of all kinds that something was found to be, or is said to be."""
        return frozenset([*self.found.names, *self.kinds.values(), *(cell.kind for cell in self.added)])

    def renamed(self, old: str, new: str) -> "Result":
        """With another name of a kind.

        What was found before the first one had its name ("") is an earlier result then: its references have none.
        """
        references, found = self.references, self.found
        if old:
            references = tuple(renamed(reference, old, new) for reference in references)
        elif found.kind_scores is None:
            found = named(found, new)
        return dataclasses.replace(
            self,
            found=dataclasses.replace(found, names=_put(found.names, old, new)),
            references=references,
            kinds={row: new if kind == old else kind for row, kind in self.kinds.items()},
            added=tuple(cell._replace(kind=new) if cell.kind == old else cell for cell in self.added),
            basis=self.basis and self.basis.renamed(old, new),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """All that undo takes back."""

    references: tuple[Reference, ...] = ()
    """Those of a kind beside each other, the kinds in their order, and last what is not wanted."""
    results: Mapping[str, Result] = dataclasses.field(default_factory=dict)
    """Path of an image -> what was found in it."""
    kinds: tuple[str, ...] = ("",)
    """That are looked for: one without a name, or one to many that have theirs."""
    learning: bool = True
    """Whether what is said of a cell counts for all others."""

    @functools.cached_property
    def corrections(self) -> tuple[Correction, ...]:
        """That count for all cells."""
        if not self.learning:
            return ()
        return in_order(each for result in self.results.values() for each in result.corrections)

    @functools.cached_property
    def corrected(self) -> dict[str, Result]:
        """Those of `results` that were asked for, by the corrections."""
        return {}

    def result(self, path: str) -> Result | None:
        """What was found in an image, by the corrections."""
        if path in self.results and path not in self.corrected:
            self.corrected[path] = self.results[path].by(self.corrections)
        return self.corrected.get(path)

    def with_result(self, path: str, result: Result) -> "State":
        """With what was found in an image, instead of what was before."""
        return dataclasses.replace(self, results={**self.results, path: result})

    def with_reference(self, reference: Reference) -> "State":
        """With one more, behind those of its kind."""
        order = [*self.kinds, NOT_THIS]
        references = sorted([*self.references, reference], key=lambda each: order.index(each.kind))
        return dataclasses.replace(self, references=tuple(references))

    def with_kind(self, name: str, first: str) -> "State":
        """With one more kind; what had no name until now is called `first`."""
        named = self if self.kinds != ("",) else self.with_renamed("", first)
        return dataclasses.replace(named, kinds=(*named.kinds, name))

    def with_renamed(self, old: str, new: str) -> "State":
        """With another name of a kind, everywhere."""
        return dataclasses.replace(
            self,
            references=tuple(renamed(reference, old, new) for reference in self.references),
            results={path: result.renamed(old, new) for path, result in self.results.items()},
            kinds=_put(self.kinds, old, new),
        )

    def without_kind(self, name: str) -> "State":
        """Without a kind and its examples."""
        left = tuple(reference for reference in self.references if reference.kind != name)
        return dataclasses.replace(self, references=left, kinds=tuple(kind for kind in self.kinds if kind != name))


def renamed(reference: Reference, old: str, new: str) -> Reference:
    """The same, of the kind `new` if it was of `old`."""
    return dataclasses.replace(reference, kind=new) if reference.kind == old else reference


def _put(names: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    return tuple(new if name == old else name for name in names)
