"""Encoded references: what the network keeps of one to a few example cells, and files of them.

A file (`fsis references ... -o nuclei.refs`) is an npz archive of plain arrays and one JSON text; reading it runs
nothing that is in it. It names the model that encoded it, and serves that model alone.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.traits import TRAITS, KindModel, kind_scores
from fsis_jax.io.atomic import atomic_write
from fsis_jax.io.kinds import NOTHING

FORMAT = 2
Features = dict[int, np.ndarray]
"""{level: (K, h, w, C)}, of K kinds; numpy, since JAX would compile a program for each thing that is done to them."""


@dataclasses.dataclass(frozen=True)
class References:
    """k encoded references, of one kind of cells or of K; some kinds may be what is not wanted."""

    features: Features
    """The mean over the references of each kind."""
    sides: np.ndarray
    """(k, 2) float32, height and width of the cells in pixels; they give the scale at which targets are read."""
    images: np.ndarray
    """(k, S, S, 3) uint8, as the network saw them."""
    pixel_size: float | None = None
    """Micrometres per pixel of `sides`, where it is known."""
    model: str = ""
    """`Segmenter.fingerprint` of the model that encoded them."""
    kinds: tuple[str, ...] = ()
    """Names of the kinds; () of one without a name."""
    unwanted: tuple[str, ...] = ()
    """Those of `kinds` that are not wanted."""
    owners: np.ndarray | None = None
    """(k,) int32, of each reference the row of its kind; None: all are of the first."""
    traits: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, len(TRAITS)), np.float32))
    """(n, T) float32, what is measured of the examples of the kinds (`traits.py`), NaN where not known: of the
    references and of cells that a person corrected. Sizes are in pixels of `sides`."""
    trait_kinds: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    """(n,) int32, of each of these the row of its kind, K for what is none of them."""
    keep_traits: bool = False
    """`Instances.traits` are asked for, even if no score depends on them; no file has it."""

    @classmethod
    def of_kinds(
        cls, wanted: Mapping[str, "References"], unwanted: Mapping[str, "References"] | None = None
    ) -> "References":
        """References of several kinds, each of one kind, with their names; `unwanted` are shown as "not this".

        Raises:
            FsisError: no kind, a name that is empty, is there twice or has a comma or a line break; a kind that has
                kinds itself; the same example in two kinds; kinds of different models.
        """
        unwanted = unwanted or {}
        given = [*wanted.items(), *unwanted.items()]
        check_kind_names([name for name, _ in given])
        if not wanted:
            raise FsisError("no kind that is wanted: give references of the cells to find, too")
        seen: dict[tuple[bytes, bytes, bytes], str] = {}
        for name, references in given:
            if references.kinds:
                raise FsisError(f"kind {name!r}: its references have kinds already ({', '.join(references.kinds)})")
            if references.model != given[0][1].model:
                raise FsisError(f"kind {name!r}: encoded by another model than {given[0][0]!r}: encode its crops again")
            for row, image in enumerate(references.images):
                example = (image.tobytes(), references.sides[row].tobytes(), references.traits[row : row + 1].tobytes())
                other = seen.setdefault(example, name)
                if other != name:
                    raise FsisError(f"the same example is shown as {other!r} and as {name!r}: leave it out of one")
        first = given[0][1]
        pixel_size = first.pixel_size if all(kind.pixel_size for _, kind in given) else None
        given = [(name, kind if pixel_size is None else kind.at(pixel_size)) for name, kind in given]
        return cls(
            {
                level: np.concatenate([references.features[level] for _, references in given])
                for level in first.features
            },
            np.concatenate([references.sides for _, references in given]),
            np.concatenate([references.images for _, references in given]),
            pixel_size,
            first.model,
            tuple(name for name, _ in given),
            tuple(unwanted),
            np.repeat(np.arange(len(given), dtype=np.int32), [len(kind.sides) for _, kind in given]),
            np.concatenate([kind.traits for _, kind in given]),
            np.repeat(np.arange(len(given), dtype=np.int32), [len(kind.traits) for _, kind in given]),
        )

    def refined(
        self,
        traits: np.ndarray,
        *,
        right: Mapping[int, str] | None = None,
        wrong: Sequence[int] = (),
    ) -> "References":
        """These with corrections: what a person says of cells that were found, or were missed.

        It takes no training: the examples are added to those that tell the kinds apart, and count on every image after.

        Args:
            traits: (N, T), `Instances.traits` of what was found with these references.
            right: row -> kind, of cells that are of this kind, whatever they were taken for; "cell" is the one kind of
                references without a name.
            wrong: rows of what is none of the kinds.

        Raises:
            FsisError: a row that is not there or is given twice, or a kind that is none of these.
        """
        kinds = self.kinds or ("cell",)
        given = {**dict.fromkeys(wrong, len(kinds))}
        for row, name in (right or {}).items():
            if row in given:
                raise FsisError(f"instance {row} is said to be right and wrong: leave one out")
            if name not in kinds:
                raise FsisError(f"instance {row}: {name!r} is none of the kinds ({', '.join(kinds)})")
            given[row] = kinds.index(name)
        for row in given:
            if not 0 <= row < len(traits):
                raise FsisError(f"instance {row}: there are {len(traits)}, counted from 0")
        rows, of_kinds = np.array([*given], np.intp), np.array([*given.values()], np.int32)
        return dataclasses.replace(
            self,
            traits=np.concatenate([self.traits, traits[rows].astype(np.float32).reshape(-1, len(TRAITS))]),
            trait_kinds=np.concatenate([self.trait_kinds, of_kinds]),
        )

    def rescored(self, found: Instances) -> Instances:
        """Candidates that were found with these references before corrections, by what is known now.

        The network does not run again: nothing is found that was not, and masks stay. The candidates are those of the
        same kinds (`Segmenter.candidates`); those without traits (`keep_traits`) stay as they are.
        """
        if found.evidence is None or found.traits is None:
            return found
        kinds = kind_scores(found.evidence, found.traits, self.kind_model)
        if self.kinds:
            found = dataclasses.replace(found, kind_scores=kinds, classes=kinds[:, :-1].argmax(1).astype(np.int32))
        return found.by_scores(1 - kinds[:, -1])

    @functools.cached_property
    def kind_model(self) -> KindModel:
        """What tells cells from each other and from nothing, of the examples' traits; without kinds there is one."""
        return KindModel(self.traits, self.trait_kinds, max(len(self.kinds), 1))

    def features_of(self, kinds: Sequence[int]) -> Features:
        """The rows of `features` of some kinds."""
        return {level: x if len(x) == len(kinds) else x[np.array(kinds)] for level, x in self.features.items()}

    def ratio(self, pixel_size: float | None) -> float:
        """By how much a length in pixels of an image with `pixel_size` is multiplied to be in those of `sides`."""
        return 1.0 if pixel_size is None or self.pixel_size is None else pixel_size / self.pixel_size

    @functools.cached_property
    def digest(self) -> str:
        """The same for references that give the same results."""
        state = hashlib.sha256(f"{self.model} {self.pixel_size}".encode())
        for level, features in sorted(self.features.items()):
            state.update(f"{level}".encode() + features.astype(np.float32).tobytes())
        state.update(self.sides.tobytes())
        state.update(self.traits.tobytes() + self.trait_kinds.tobytes())
        if self.kinds:
            state.update(f"{self.kinds} {self.unwanted} {self.owners}".encode())
        return state.hexdigest()

    def at(self, pixel_size: float) -> "References":
        """The same with another known pixel size, for the same lengths in micrometres."""
        ratio = self.ratio(pixel_size)
        traits = self.traits - np.eye(1, len(TRAITS), dtype=np.float32) * np.log(ratio)
        return dataclasses.replace(self, sides=self.sides_in(pixel_size), pixel_size=pixel_size, traits=traits)

    def sides_in(self, pixel_size: float | None) -> np.ndarray:
        """(k, 2) `sides` in pixels of an image with `pixel_size`; one that is not known is taken for the other."""
        return self.sides / np.float32(self.ratio(pixel_size))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load_references` reads.

        Raises:
            FsisError: the file cannot be written.
        """
        meta = {
            "format": FORMAT,
            "model": self.model,
            "pixel_size": self.pixel_size,
            "kinds": self.kinds,
            "unwanted": self.unwanted,
            "levels": {str(level): str(features.dtype) for level, features in self.features.items()},
        }
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), "sides": self.sides, "images": self.images}
        owners = np.zeros(len(self.sides), np.int32) if self.owners is None else self.owners
        arrays |= {"owners": owners, "traits": self.traits, "trait_kinds": self.trait_kinds}
        arrays |= {f"level{level}": x.astype(np.float32) for level, x in self.features.items()}
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)


def check_kind_names(names: Sequence[str]) -> None:
    """Raise FsisError where names of kinds cannot stand in a table, or one is there twice."""
    seen: dict[str, str] = {}
    for name in names:
        key = name.strip().casefold()
        unfit = name.startswith("-") or any(sign in name for sign in ',;"\n\r\t=') or not name.isprintable()
        if unfit or not name.strip():
            raise FsisError(
                f"kind {name!r}: give a name without commas, quotes, equals signs, line breaks or a hyphen first"
            )
        if key in seen:
            raise FsisError(f"kind {name!r} is given twice: give all its examples together, or another name")
        seen[key] = name
    if NOTHING in seen:
        raise FsisError(f"kind {seen[NOTHING]!r}: tables have that name for what is no cell: give another one")


NO_REFERENCES = References({}, np.zeros((0, 2), np.float32), np.zeros((0, 1, 1, 3), np.uint8))
"""What a closed-set detector is shown."""


class Shaped(Protocol):
    """An array, or what tells its shape and type."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def check_encoded(
    references: References | None, names: tuple[str, ...], model: str, like: Callable[[int], Mapping[int, Shaped]]
) -> None:
    """Raise FsisError if a model cannot be shown references, or must be.

    Args:
        names: the categories that the model knows; () of one that is shown references.
        model: its `Segmenter.fingerprint`.
        like: the shapes of what the model makes of references of so many kinds. A file may say that the model made it
            and yet hold anything.
    """
    given = references is not None and len(references.sides) > 0
    if names and given:
        raise shown_to_closed_set(names)
    if not names and not given:
        raise FsisError("no reference given: this model finds the cells that it is shown; give at least one crop")
    if references is not None and references.model not in ("", model):
        raise FsisError(
            "the references were encoded by another model: encode their crops again with this one, or segment "
            "with that one (--checkpoint)"
        )
    if references is not None and references.model:
        check_shapes(references, like(max(len(references.kinds), 1)))


def check_shapes(references: References, like: Mapping[int, Shaped]) -> None:
    """Raise FsisError if the features do not have the shapes and types of `like`, those that a model makes."""
    found, wanted = ({level: _described(x) for level, x in of.items()} for of in (references.features, like))
    if found != wanted:
        raise FsisError("the references are not as this model makes them: encode their crops again")


def _described(array: Shaped) -> str:
    return f"{array.dtype}{array.shape}"


def shown_to_closed_set(names: tuple[str, ...]) -> FsisError:
    """The error for references that are shown to a model of named categories."""
    known = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
    return FsisError(f"references given, but this model finds categories that it knows ({known}): leave them out")
