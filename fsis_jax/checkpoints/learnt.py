"""What a model has learnt from, which its checkpoints and weights file say: a test of unseen kinds relies on it."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

from fsis_jax.preprocess.records import Annotations


@dataclasses.dataclass(frozen=True)
class Learnt:
    """The training data of a model, and of those that it started from."""

    categories: tuple[str, ...]
    """Names, in order."""
    annotations: tuple[str, ...]
    """A digest of the training annotations of each run, the first run's first."""
    complete: bool
    """False where the first of them started from a model that did not say what it had learnt."""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "categories": list(self.categories),
            "annotations": list(self.annotations),
            "complete": self.complete,
        }

    def known(self, names: Iterable[str]) -> list[str]:
        """Which of these categories it has learnt from; upper and lower case count as the same."""
        learnt = {name.casefold() for name in self.categories}
        return [name for name in names if name.casefold() in learnt]

    def and_then(self, categories: Iterable[str], annotations: Iterable[Annotations]) -> "Learnt":
        """After a run on these categories and annotations."""
        return self.and_more(Learnt(tuple(sorted(set(categories))), (digest_of(annotations),), True))

    def and_more(self, later: "Learnt") -> "Learnt":
        """Both."""
        names = tuple(sorted({*self.categories, *later.categories}))
        digests = tuple(dict.fromkeys((*self.annotations, *later.annotations)))
        return Learnt(names, digests, self.complete and later.complete)


NOTHING = Learnt((), (), True)
"""Of a model that starts from random parameters, or from a backbone that knows no cells."""
UNKNOWN = Learnt((), (), False)
"""Of a model that does not say."""


def learnt_of(plain: Any) -> Learnt | None:
    """What the meta of a checkpoint or weights file says; None where it says nothing.

    Raises:
        ValueError: what it says is no such thing.
    """
    if plain is None:
        return None
    lists = isinstance(plain, dict) and [plain.get("categories"), plain.get("annotations")]
    texts = lists and all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists)
    if not texts or type(plain.get("complete")) is not bool:
        raise ValueError("what it has learnt from is not said as it should be")
    return Learnt(tuple(plain["categories"]), tuple(plain["annotations"]), plain["complete"])


def digest_of(annotations: Iterable[Annotations]) -> str:
    """The same for the same annotations of the same images, in the same order."""
    found = hashlib.sha256()
    for record in annotations:
        found.update(f"{record.file_name} {record.classes.tolist()} {record.boxes.tolist()}\n".encode(errors="replace"))
    return found.hexdigest()
