"""Damage to the newest checkpoint of a run, which must be named, and the one before it be taken."""

import json
import logging
import pathlib
import shutil
import time
from collections.abc import Callable

import numpy as np
from mutations import one_flipped
from outcome import Tally

from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.errors import FsisError

Files = list[pathlib.Path]
"""Of a step folder, the largest first."""


def _cut(share: float) -> Callable[[pathlib.Path, Files], object]:
    return lambda step, files: files[0].write_bytes(files[0].read_bytes()[: int(share * files[0].stat().st_size)])


def _swapped(step: pathlib.Path, files: Files) -> None:
    arrays = sorted((step / "optimizer").rglob("*"), key=lambda path: path.stat().st_size)
    first, second = files[0], next(path for path in reversed(arrays) if path.is_file() and path != files[0])
    first_content, second_content = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_content)
    second.write_bytes(first_content)


def _changed_meta(step: pathlib.Path, files: Files) -> None:
    meta = json.loads((step / "meta/metadata").read_text())
    meta["config"]["seed"] += 1
    (step / "meta/metadata").write_text(json.dumps(meta))


def _of_the_other_step(item: str) -> Callable[[pathlib.Path, Files], object]:
    def copy(step: pathlib.Path, files: Files) -> None:
        other = next(path for path in step.parent.iterdir() if path.name.isdigit() and path != step)
        shutil.rmtree(step / item)
        shutil.copytree(other / item, step / item)

    return copy


KINDS: dict[str, Callable[[pathlib.Path, Files], object]] = {
    "no item model": lambda step, files: shutil.rmtree(step / "model"),
    "no item optimizer": lambda step, files: shutil.rmtree(step / "optimizer"),
    "no item meta": lambda step, files: shutil.rmtree(step / "meta"),
    "an empty item model": lambda step, files: (shutil.rmtree(step / "model"), (step / "model").mkdir()),
    "no digests": lambda step, files: (step / "SHA256SUMS").unlink(),
    "digests that are cut": lambda step, files: (step / "SHA256SUMS").write_text(
        (step / "SHA256SUMS").read_text()[:100]
    ),
    "digests of nothing": lambda step, files: (step / "SHA256SUMS").write_bytes(b""),
    "the largest file cut in half": _cut(0.5),
    "the largest file empty": _cut(0),
    "the largest file without its last byte": _cut(0.9999),
    "the largest file gone": lambda step, files: files[0].unlink(),
    "64 bytes of zeros": lambda step, files: files[0].write_bytes(bytes(64) + files[0].read_bytes()[64:]),
    "two files swapped": _swapped,
    "meta cut": lambda step, files: (step / "meta/metadata").write_text((step / "meta/metadata").read_text()[:200]),
    "another value in meta": _changed_meta,
    "the model of another step": _of_the_other_step("model"),
}


def damaged(run: pathlib.Path, folder: pathlib.Path, flips: int, end: float, seed: int) -> list[Tally]:
    """Each of KINDS, and single bits in any file."""
    kinds, bits = Tally(f"{len(KINDS)} kinds of damage to the newest checkpoint"), Tally("one bit of it flipped")
    for name, damage in KINDS.items():
        copy, step, files = _copy(run, folder)
        damage(step, files)
        kinds.count(*_opened(copy, step, name))
    rng = np.random.default_rng(seed)
    copy, step, files = _copy(run, folder)
    while bits.tried < flips and time.monotonic() < end:
        file = files[rng.integers(len(files))]
        content = file.read_bytes()
        file.write_bytes(one_flipped(content, rng))
        bits.count(*_opened(copy, step, f"{file.relative_to(step)}"))
        file.write_bytes(content)
    return [kinds, bits]


def _copy(run: pathlib.Path, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, Files]:
    """A copy of a run, its newest step, and that one's files, but for what the storage library writes at the end."""
    copy = folder / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    step = max((path for path in (copy / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    files = [path for path in step.rglob("*") if path.is_file() and path.parent != step]
    files = sorted(files, key=lambda path: -path.stat().st_size)
    return copy, step, [*files, step / "SHA256SUMS"]


def _opened(run: pathlib.Path, damaged_step: pathlib.Path, what: str) -> tuple[str, str]:
    lines = _Lines()
    logger = logging.getLogger("fsis_jax")
    logger.addHandler(lines)
    try:
        checkpoints = Checkpoints(run, read_only=True)
        step = checkpoints.latest_sound()  # from which training goes on
        checkpoints.close()
    except FsisError as error:
        return "failed", f"{what}: no step is taken ({error})"
    except Exception as error:
        return "failed", f"{what}: {type(error).__name__} {error}"
    finally:
        logger.removeHandler(lines)
    if step is None or step == int(damaged_step.name):
        return "failed", f"{what}: {step} is taken as sound"
    told = [text for text in lines.texts if str(damaged_step) in text and "\n" not in text]
    return ("refused", "") if told else ("failed", f"{what}: not named")


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
