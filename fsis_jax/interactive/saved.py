"""`session.json`: what was shown, found and corrected, so that it can be gone on with.

Plain JSON; reading it runs nothing that is in it. A mask is stored as COCO's run lengths over its own crop, and so an
image may have any size. What corrections need is there as base64 of float32; of files that were written before there
was any it is not, and then nothing follows from what was said until the image is segmented again.
"""

import base64
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import pycocotools.mask

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.lock import BusyError, Lock, acquire
from fsis_jax.inference.traits import TRAITS, KindModel
from fsis_jax.interactive.learning import Basis, Correction
from fsis_jax.interactive.state import NOT_THIS, VERDICTS, Added, Filters, Reference, Result, State
from fsis_jax.io.atomic import atomic_write, open_file, read_failure
from fsis_jax.io.damage import damage_in
from fsis_jax.io.outlines import Box
from fsis_jax.preprocess.cropped_mask import CroppedMask
from fsis_jax.preprocess.windows import decode_columns

_FORMAT = 2
LOCK_FILE = "session.lock"


class SessionFile:
    """A file that a session is written to time and again: what was found, nearly all of it, is encoded once.

    Args:
        path: of it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._encoded: dict[Instances, str] = {}  # of the results that were written last

    def write(self, state: State, filters: Filters, looked_at: str, checkpoint: str | None) -> str:
        """Write the session; its path. One thread at a time may.

        Args:
            looked_at: path of the image that was opened last; "" of none.
            checkpoint: the model's name; None: the default one.

        Raises:
            OutputError: it cannot be written.
        """
        # Of many images these are the same.
        learnt = list(dict.fromkeys(each.basis.corrections for each in state.results.values() if each.basis))
        content = {
            "format": _FORMAT,
            "checkpoint": checkpoint,
            "min_score": filters.min_score,
            "min_area": filters.min_area,
            "max_area": None if math.isinf(filters.max_area) else filters.max_area,
            "looked_at": looked_at,
            "kinds": state.kinds,
            "learning": state.learning,
            "references": [_reference(reference) for reference in state.references],
            "corrections": learnt,
        }
        found = [result.found for result in state.results.values()]
        self._encoded = {each: self._encoded.get(each) or _members(_found(each)) for each in found}
        images = [
            f"{{{_members(_image(path, result, learnt))},{self._encoded[result.found]}}}"
            for path, result in state.results.items()
        ]
        with atomic_write(self._path) as file:
            file.write(f'{{{_members(content)},"images":[{",".join(images)}]}}'.encode())
        return os.fspath(self._path)


def saved_checkpoint(path: str | os.PathLike[str]) -> str | None:
    """The model that a session was at work with, if there is a session and it says.

    Raises:
        FsisError: it cannot be read, or is none.
    """
    if not os.path.exists(path):
        return None
    checkpoint = _content(path)["checkpoint"]
    return None if checkpoint is None else str(checkpoint)


def hold(folder: str | os.PathLike[str]) -> Lock:
    """Have the session of a folder for this process alone, until the lock is released.

    Raises:
        FsisError: another process has it, or the folder cannot be written.
    """
    try:
        return acquire(pathlib.Path(folder, LOCK_FILE))
    except BusyError as error:
        raise FsisError(
            f"{os.fspath(folder)}: another program is at work on the session there ({error.holder}): end that one, or "
            f"give another folder (--output); if it is gone, delete {LOCK_FILE}"
        ) from error


def read_session(path: str | os.PathLike[str]) -> tuple[State, Filters, str]:
    """Read what `SessionFile.write` wrote.

    Raises:
        FsisError: it cannot be read, or is none or a damaged one.
    """
    content = _content(path)
    with damage_in(os.fspath(path), "no session", "delete it or choose another folder", "session"):
        try:
            return _read(content)
        except (TypeError, AttributeError) as error:  # a number where a list is expected, and the like
            raise ValueError(f"{error}") from error


def _content(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Of a file, which has the form of a session."""
    name = os.fspath(path)
    try:
        with open_file(path) as file:
            data = file.read()
    except OSError as error:
        raise read_failure(path, error, "session") from error
    with damage_in(name, "no session", "delete it or choose another folder", "session"):
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("a text that says something else")
        if content["format"] != _FORMAT:
            raise FsisError(f"{name}: a session of format {content['format']}, not {_FORMAT}: choose another folder")
        if "checkpoint" not in content:
            raise ValueError("no checkpoint")
        return content


def _read(content: dict[str, Any]) -> tuple[State, Filters, str]:
    most = math.inf if content["max_area"] is None else float(content["max_area"])
    filters = Filters(float(content["min_score"]), float(content["min_area"]), most)
    references = tuple(_read_reference(entry) for entry in content["references"])
    learnt = [tuple(map(_read_correction, each)) for each in content.get("corrections", [])]
    results = {str(entry["path"]): _read_result(entry, learnt) for entry in content["images"]}
    kinds = tuple(map(str, content["kinds"]))
    if kinds != ("",):  # which earlier versions kept apart from what was found before
        results = {path: result.renamed("", kinds[0]) for path, result in results.items()}
    if not {reference.kind for reference in references} <= {*kinds, NOT_THIS} or not kinds:
        raise ValueError(f"kinds {kinds}")
    learning = bool(content.get("learning", True))
    return State(references, results, kinds, learning), filters, str(content["looked_at"])


def _reference(reference: Reference) -> dict[str, Any]:
    return {"image": reference.image, "box": reference.box, "kind": reference.kind}


def _image(path: str, result: Result, learnt: list[tuple[Correction, ...]]) -> dict[str, Any]:
    """What there is to say of an image beside what was found."""
    return {
        "path": path,
        "model": result.model,
        "image": result.image,
        "part": result.part,
        "references": [_reference(reference) for reference in result.references],
        "verdicts": {str(row): verdict for row, verdict in result.verdicts.items()},
        "said": {str(row): kind for row, kind in result.kinds.items()},
        "added": [[cell.kind, _mask(cell.mask)] for cell in result.added],
        "basis": None if result.basis is None else _basis(result.found, result.basis, learnt),
    }


def _found(found: Instances) -> dict[str, Any]:
    return {
        "size": found.size,
        "category": found.category,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "masks": [_mask(crop) for crop in found.masks],
        "kinds": None if found.kind_scores is None else _kinds(found, found.kind_scores),
    }


def _members(content: dict[str, Any]) -> str:
    """As JSON, without the braces."""
    return json.dumps(content, separators=(",", ":"))[1:-1]


def _kinds(found: Instances, scores: np.ndarray) -> dict[str, Any]:
    return {"names": found.names, "unwanted": found.unwanted, "scores": scores.tolist()}


def _basis(found: Instances, basis: Basis, learnt: list[tuple[Correction, ...]]) -> dict[str, Any]:
    each = found.of_each()
    return {
        "evidence": _packed(each["evidence"]),
        "traits": _packed(each["traits"]),
        "examples": _packed(basis.examples.traits),
        "kinds": basis.examples.kinds.tolist(),
        "pixel_size": basis.pixel_size,
        "faintness": basis.faintness,
        "corrections": learnt.index(basis.corrections),
    }


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _mask(crop: CroppedMask) -> list[Any]:
    height, width = crop.mask.shape
    counts = pycocotools.mask.encode(np.asfortranarray(crop.mask, np.uint8))["counts"]
    return [crop.y, crop.x, height, width, counts.decode("ascii")]


def _read_reference(entry: dict[str, Any]) -> Reference:
    return Reference(str(entry["image"]), _read_box(entry["box"]), str(entry["kind"]))


def _read_box(values: list[float]) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2


def _read_result(entry: dict[str, Any], learnt: list[tuple[Correction, ...]]) -> Result:
    height, width = map(int, entry["size"])
    basis = entry.get("basis")
    names = () if entry["kinds"] is None else tuple(map(str, entry["kinds"]["names"]))
    count = max(len(names), 1)
    found = Instances(
        np.array(entry["boxes"], np.float32).reshape(-1, 4),
        np.array(entry["scores"], np.float32),
        tuple(_read_mask(values, (height, width)) for values in entry["masks"]),
        (height, width),
        None if entry["category"] is None else str(entry["category"]),
        **({} if entry["kinds"] is None else _read_kinds(entry["kinds"])),
        evidence=None if basis is None else _unpacked(basis["evidence"], count + 1),
        traits=None if basis is None else _unpacked(basis["traits"], len(TRAITS)),
    )
    verdicts = {int(row): verdict for row, verdict in entry["verdicts"].items()}
    if not set(verdicts).issubset(range(len(found))) or not set(verdicts.values()).issubset(VERDICTS):
        raise ValueError(f"verdicts {entry['verdicts']}")
    said = {int(row): str(kind) for row, kind in entry["said"].items()}
    if any(verdicts.get(row) != "right" for row in said):
        raise ValueError(f"kinds {said} of what is not right")
    return Result(
        found,
        tuple(_read_reference(reference) for reference in entry["references"]),
        None if entry["part"] is None else _read_box(entry["part"]),
        verdicts,
        said,
        tuple(Added(_read_mask(values, (height, width)), str(kind)) for kind, values in entry["added"]),
        str(entry["model"]),
        str(entry.get("image", "")),
        None if basis is None else _read_basis(basis, count, learnt),
    )


def _read_basis(entry: dict[str, Any], count: int, learnt: list[tuple[Correction, ...]]) -> Basis:
    traits, kinds = _unpacked(entry["examples"], len(TRAITS)), np.array(entry["kinds"], np.int32)
    if kinds.shape != (len(traits),) or ((kinds < 0) | (kinds > count)).any():
        raise ValueError(f"{len(traits)} examples of kinds {entry['kinds']}")
    corrections = learnt[int(entry["corrections"])]
    return Basis(
        KindModel(traits, kinds, count), _read_size(entry["pixel_size"]), float(entry["faintness"]), corrections
    )


def _read_correction(values: list[Any]) -> Correction:
    traits, pixel_size, kind = values
    if len(traits) != len(TRAITS):
        raise ValueError(f"a correction by {len(traits)} traits")
    return Correction(tuple(map(float, traits)), _read_size(pixel_size), None if kind is None else str(kind))


def _read_size(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise ValueError(f"a pixel of {value} micrometres")
    return None if value is None else float(value)


def _unpacked(text: str, columns: int) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    return values.reshape(-1, columns).astype(np.float32)


def _read_kinds(entry: dict[str, Any]) -> dict[str, Any]:
    names = tuple(map(str, entry["names"]))
    scores = np.array(entry["scores"], np.float32).reshape(-1, len(names) + 1)
    return {
        "names": names,
        "unwanted": tuple(map(str, entry["unwanted"])),
        "kind_scores": scores,
        "classes": scores[:, :-1].argmax(1).astype(np.int32),
    }


def _read_mask(values: list[Any], size: tuple[int, int]) -> CroppedMask:
    y, x, height, width, counts = values
    inside = 0 <= y <= y + height <= size[0] and 0 <= x <= x + width <= size[1]
    if not inside:
        raise ValueError(f"a mask of {width}x{height} pixels at {x}, {y}")
    return CroppedMask(y, x, decode_columns(counts.encode("ascii"), height, 0, width).astype(bool))
