"""The plan of a run in parts: what all of them share, and which does what.

An image with many tiles is divided: of its tiles each part does every n-th, so that all get as much of the tissue on a
slide. The others are done whole, each by the part that has least to do. Limits of the intensity stretch, for which a
whole image may have to be read, are in the plan for those that are divided.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import fsis_jax
from fsis_jax.cache import surroundings
from fsis_jax.errors import FsisError
from fsis_jax.inference.finished_images import digest
from fsis_jax.inference.job import Job
from fsis_jax.inference.opening import open_target
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.result_keys import ResultKeys
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.intensity import Stretch

Group = tuple[OutputSettings, Sequence[str]]
"""How image files are read, and their paths."""
_EVEN = 4
"""An image is divided that has more than a quarter of the tiles of a fair share, so that none has much more to do."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the parts of a run; numbers count from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclasses.dataclass(frozen=True)
class Target:
    """An image, or one of its planes, in a run in parts."""

    name: str
    """Of its results."""
    tiles: int
    """How many it has; 0 of one that could not be read."""
    owner: int | None
    """Number of the part that does it whole; None: it is divided."""
    stretches: tuple[Stretch | None, ...] = ()
    """Of one that is divided: those of its `TilePlan`s."""

    def tiles_of(self, part: Part) -> range:
        """Numbers of the tiles that a part does."""
        if self.owner is None:
            return range(part.number - 1, self.tiles, part.count)
        return range(self.tiles if self.owner == part.number else 0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the parts of a run agree on."""

    shared: Mapping[str, Any]
    """What must be the same in all: name -> value."""
    command: Mapping[str, Any]
    """What `fsis merge` needs to know of the command."""
    targets: tuple[Target, ...]

    @property
    def count(self) -> int:
        """How many parts there are."""
        return int(self.shared["parts"])

    def check(self, where: str, mine: Mapping[str, Any]) -> None:
        """Raise FsisError where what a process has is not what the plan says.

        Args:
            where: the folder of results, for the message.
            mine: some of what is shared.
        """
        for name, value in mine.items():
            theirs = self.shared.get(name)
            if theirs != value:
                told = f" ({value}, there {theirs})" if len(f"{value}{theirs}") < 200 else ""
                raise FsisError(
                    f"{where}: has parts of a run with other {name}{told}: run all alike, or choose another folder"
                )

    def as_json(self) -> dict[str, Any]:
        """What `plan_of` reads."""
        return dataclasses.asdict(self)


def plan_of(content: Any) -> Plan:
    """The plan that `Plan.as_json` gave.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    targets = [
        Target(row["name"], row["tiles"], row["owner"], tuple(known and Stretch(**known) for known in row["stretches"]))
        for row in content["targets"]
    ]
    return Plan({**content["shared"]}, {**content["command"]}, tuple(targets))


def shared_by_all(segmenter: Segmenter, groups: Sequence[Group], references: References, count: int) -> dict[str, Any]:
    """What all parts must share, but for the machine."""
    images = [[os.path.abspath(path), settings.plane] for settings, paths in groups for path in paths]
    return {
        "parts": count,
        "version of fsis_jax": fsis_jax.__version__,
        "weights": segmenter.fingerprint,
        "references": references.digest,
        "images": digest(images),
        "settings": digest([[ResultKeys(segmenter, references, s).of_settings(), s.save] for s, _ in groups]),
    }


def machine(segmenter: Segmenter) -> dict[str, Any]:
    """What rounding depends on, of this machine."""
    return surroundings.of_rounding(segmenter.devices[0])


def make_plan(
    segmenter: Segmenter, groups: Sequence[Group], references: References, count: int, command: Mapping[str, Any]
) -> Plan:
    """Look at all images, and divide their tiles among so many parts."""
    named = [(settings, path) for settings, paths in groups for path in paths]
    tiles = [_tiles(segmenter, settings, path, references) for settings, path in named]
    share = sum(max(number, 1) for number in tiles) / count
    loads = np.zeros(count, np.int64)
    owners: dict[int, int] = {}
    whole = [row for row, number in enumerate(tiles) if number < 2 or number <= share / _EVEN]
    for row in sorted(whole, key=lambda row: -tiles[row]):
        least = int(np.argmin(loads))
        owners[row] = least + 1
        loads[least] += max(tiles[row], 1)
    targets = []
    for row, (settings, path) in enumerate(named):
        stretches = () if row in owners else _stretches(segmenter, settings, path, references)
        targets.append(Target(settings.name(path), tiles[row], owners.get(row), stretches))
    return Plan(
        {**shared_by_all(segmenter, groups, references, count), **machine(segmenter)}, dict(command), tuple(targets)
    )


def _tiles(segmenter: Segmenter, settings: OutputSettings, path: str, references: References) -> int:
    try:
        image, size = open_target(path, settings, references, warn=False)
    except FsisError:  # told by the part that does it
        return 0
    with image:
        return len(segmenter.work(Job(image, references, size), tile=settings.tile).tiles)


def _stretches(
    segmenter: Segmenter, settings: OutputSettings, path: str, references: References
) -> tuple[Stretch | None, ...]:
    image, size = open_target(path, settings, references, warn=False)
    with image:
        work = segmenter.work(Job(image, references, size), tile=settings.tile)
        return tuple(plan.stretch for plan in work.plans)
