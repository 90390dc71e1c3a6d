"""From a file of another project to a folder that training and segmentation start from, and back.

The folder is a run's: checkpoints/STEP/{model, meta} and config.json. `pytorch` beside them keeps the tensors that
the original carries but never uses, and `optimizer` its momentum, if that was asked for. Weights that are not a whole
detector make a partial checkpoint, which `config.init_from` takes. Everything is checked, and every problem listed,
before anything is written.
"""

import contextlib
import dataclasses
import fnmatch
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from fsis_jax.checkpoints import config_file
from fsis_jax.checkpoints.runs import CHECKPOINTS, Checkpoints, has_checkpoint, open_run
from fsis_jax.config_check import check_config
from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.kinds import KINDS
from fsis_jax.conversion.momentum import momentum_of, optimizer_arrays, sgd_state
from fsis_jax.conversion.sources import SourceWeights, read_source
from fsis_jax.conversion.state_dict import is_alias, is_unused
from fsis_jax.conversion.torch_file import read_file
from fsis_jax.conversion.torch_writer import write_file
from fsis_jax.errors import FsisError
from fsis_jax.models.detector import Detector

UNUSED = "pytorch"
"""Item of a step folder: PyTorch's tensors that no forward pass reads."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """What became of a file."""

    source: SourceWeights
    step: int
    """Steps taken; 0 unless training goes on."""
    whole: bool
    """Whether it is a detector that segments."""
    arrays: int
    """How many there are now."""
    missing: list[str]
    """Tensors that were allowed to be missing, and are."""

    def report(self, output: pathlib.Path) -> str:
        """What was recognised, what was left out, and what to do with the folder `output`; some lines of text."""
        model = self.source.config.model
        backbone = f"ResNet-{model.backbone.depth}"
        if model.backbone.groups > 1:
            backbone = f"ResNeXt-{model.backbone.depth} {model.backbone.groups}x{model.backbone.group_width}d"
        about = f"{model.architecture}, {model.matching.kind}, relation {model.relation}, {backbone}"
        about += ", deformable" if model.backbone.deformable != "none" else ""
        lines = [f"recognised {KINDS[self.source.kind]} ({about if self.source.whole else backbone})"]
        for what, names in (("left out", self.source.left_out), ("missing", self.missing)):
            if names:
                lines.append(f"{what}: {', '.join(names)}")
        folder = output / CHECKPOINTS / str(self.step)
        lines.append(f"{self.arrays} arrays written to {folder}, the config to {output / config_file.NAME}")
        if not self.whole:
            lines.append(f"train with: --config {output / config_file.NAME} --config.init_from={output} --workdir RUN")
        elif self.step:
            lines.append(f"go on training with: --config {output / config_file.NAME} --workdir {output}")
        else:
            shown = "" if model.classes else "--references CROP "
            lines.append(f"segment with: fsis segment IMAGE {shown}--checkpoint {output} --output OUT")
        return "\n".join(lines)


def convert(
    path: pathlib.Path,
    output: pathlib.Path,
    *,
    kind: str = "auto",
    resume: bool = False,
    allow_missing: Sequence[str] = (),
) -> Converted:
    """Convert the weights in `path` to a checkpoint in the folder `output`.

    Args:
        path: a .pth, .pth.tar or .pkl file.
        output: a new folder, or one without a checkpoint.
        kind: one of `KINDS`, or "auto" to tell from the content.
        resume: also convert the momentum and the step of CA_FSIS_Cell, so that training goes on.
        allow_missing: patterns (`Mask_Head.*`) of tensors that may be absent; the result is then only to train from.

    Raises:
        FsisError: a file that is not weights of that kind; missing or unknown tensors, wrong shapes, numbers that
            are not finite: all are listed; `output` has a checkpoint already.
    """
    if has_checkpoint(output) or (output / config_file.NAME).exists():
        raise FsisError(f"{output}: has a checkpoint already, which stays as it is; give another --output")
    content = read_file(path)
    source = read_source(content, kind, path)
    check_config(source.config)
    missing = _check(source, allow_missing, path)
    arrays: dict[str, np.ndarray] = {}
    unused: dict[str, np.ndarray] = {}
    names = _names(source)
    for name, value in source.tensors.items():
        if name not in names:
            if value.size:  # the storage library takes no empty array
                unused[name] = value
        elif not is_alias(name):
            arrays[names[name].name] = ca_fsis.our_layout(names[name].name, value).astype(np.float32, copy=False)
    items: dict[str, Mapping[str, np.ndarray]] = {"model": arrays}
    if source.whole and unused:
        items[UNUSED] = unused
    step = 0
    if resume:
        if missing:
            raise FsisError(f"{path}: training cannot go on without {', '.join(missing)}; convert without --resume")
        step, items["optimizer"] = _training(source, path)
    whole = source.whole and not missing
    with contextlib.closing(Checkpoints(output)) as checkpoints:
        checkpoints.save_items(step, items, config=source.config, partial=not whole)
    config_file.write_config(source.config, output)
    return Converted(source, step, whole, len(arrays), missing)


def _training(source: SourceWeights, path: pathlib.Path) -> tuple[int, dict[str, np.ndarray]]:
    """Steps taken, and the optimiser's arrays; the batch size and the shots of the run go to the config."""
    if source.kind != "ca_fsis" or "optimizer" not in source.training:
        raise FsisError(f"{path}: {KINDS[source.kind]} without an optimiser; convert without --resume")
    config = source.config
    places = {
        "batch_size": (config.training, "batch_size"),
        "iter_size": (config.optimizer, "accumulate"),
        "shot": (config.data, "shots"),
    }
    for name, (section, key) in places.items():
        value = _whole_number(source.training, name, path)
        if value:
            section[key] = value
    check_config(config)
    last = _whole_number(source.training, "step", path)
    if last is None:
        raise FsisError(f"{path}: no step in it; convert without --resume")
    step = (last + 1) * config.optimizer.accumulate
    try:
        shapes = {name: value.shape for name, value in source.tensors.items()}
        return step, optimizer_arrays(config, momentum_of(source.training["optimizer"], shapes), step)
    except FsisError as error:
        raise FsisError(f"{path}: {error}") from error


def _whole_number(values: Mapping[str, Any], name: str, path: pathlib.Path) -> int | None:
    value = values.get(name)
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if value is None or (type(value) is int and 0 <= value < 1 << 31):
        return value
    raise FsisError(f"{path}: its {name} is not a whole number; convert without --resume")


# -- what must be there -------------------------------------------------------------------------------------------


def _check(source: SourceWeights, allow_missing: Sequence[str], path: pathlib.Path) -> list[str]:
    """The names of tensors that may be missing and are; raises for every other problem, all at once."""
    expected = _names(source)
    absent: dict[bool, list[str]] = {True: [], False: []}
    for name in expected:
        theirs = source.name_in_file(name)
        if name not in source.tensors and theirs is not None and not is_alias(name):
            both = (name, theirs)
            allowed = any(fnmatch.fnmatchcase(either, pattern) for either in both for pattern in allow_missing)
            absent[allowed].append(theirs)
    problems: dict[str, list[str]] = {
        "missing": absent[False],
        "unknown": list(source.unknown),
        "of another shape": [],
        "no numbers of a network": [],
        "not finite": [],
    }
    for name, value in source.tensors.items():
        spelt = source.name_in_file(name) or name
        if not isinstance(value, np.ndarray):
            problems["no numbers of a network"].append(f"{spelt} ({type(value).__name__})")
        elif name not in expected:
            if not is_unused(name):
                problems["unknown"].append(spelt)
        elif value.shape != expected[name].shape:
            problems["of another shape"].append(f"{spelt} {value.shape} instead of {expected[name].shape}")
        elif not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
            problems["no numbers of a network"].append(f"{spelt} ({value.dtype})")
        elif not np.isfinite(value).all():
            problems["not finite"].append(spelt)
    parts = [f"{len(names)} {what} ({', '.join(names)})" for what, names in problems.items() if names]
    if parts:
        text = ascii("; ".join(parts))[1:-1]
        raise FsisError(
            f"{path}: taken for {KINDS[source.kind]}: {text}; what may be missing is named by --allow-missing"
        )
    _check_aliases(source.tensors, path)
    return absent[True]


@dataclasses.dataclass(frozen=True)
class _Expected:
    """A tensor that is read."""

    name: str
    """Of the array that it becomes."""
    shape: tuple[int, ...]
    """In the file."""


def _names(source: SourceWeights) -> dict[str, _Expected]:
    """Every tensor that is read, by its name in the family; of a partial source, those of the modules in it."""
    _graph, state = nnx.split(nnx.eval_shape(lambda: Detector(source.config.model, rngs=nnx.Rngs(0))))
    shapes = {"/".join(map(str, path)): variable.shape for path, variable in nnx.to_flat_state(state)}
    ours = source.our_names(shapes)
    modules = {_module(ours[name]) for name in source.tensors if name in ours} | {"backbone"}
    return {
        name: _Expected(place, ca_fsis.their_shape(place, shapes[place]))
        for name, place in ours.items()
        if source.whole or _module(place) in modules
    }


def _module(name: str) -> str:
    """The part of the detector to which an array belongs."""
    first, second = name.split("/")[:2]
    return f"{first}/{second.removesuffix('_bias')}" if first in ("box_head", "mask_head") else first


def _check_aliases(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    for name, value in tensors.items():
        if is_alias(name):
            other = name.replace("Mask_Head", "Box_Head")
            if not np.array_equal(value, tensors.get(other, value)):
                raise FsisError(f"{path}: {name} differs from {other}, though the two are one; save the model again")


# -- the reverse --------------------------------------------------------------------------------------------------


def to_pytorch(path: pathlib.Path, output: pathlib.Path) -> int:
    """Write the checkpoint of a run (`path`: a workdir or a step folder) as CA_FSIS_Cell saves its own.

    Returns:
        The number of tensors of the model.

    Raises:
        FsisError: no such run; a model that the original does not have; `output` exists or cannot be written.
    """
    if output.exists():
        raise FsisError(f"{output}: exists already and stays as it is; give the name of a new file")
    checkpoints, step = open_run(path)
    with contextlib.closing(checkpoints):
        meta = checkpoints.meta(step)
        checkpoints.check_whole(step)
        arrays = checkpoints.arrays(step, "model")
        unused = checkpoints.arrays(step, UNUSED)
        optimizer = checkpoints.arrays(step, "optimizer")
    config = config_file.config_of(meta)
    try:
        _check_original(config)
        tensors = ca_fsis.to_pytorch(arrays, unused)
    except FsisError as error:
        raise FsisError(f"{path}: {error}") from error
    content: dict[str, Any] = {
        "step": max(step // config.optimizer.accumulate - 1, 0),
        "batch_size": config.training.batch_size,
        "iter_size": config.optimizer.accumulate,
        "shot": config.data.shots,
        "model": tensors,
    }
    if optimizer and config.optimizer.name == "sgd":
        content["optimizer"] = sgd_state(config, optimizer, tensors)
    write_file(output, content)
    return len(tensors)


def _check_original(config: ConfigDict) -> None:
    """Raise for settings that the original does not have, and that the names and shapes of its tensors hide."""
    model = config.model
    wanted = {
        "legacy_boxes": (model.legacy_boxes, True),
        "background_outputs": (model.background_outputs, True),
        "backbone.stride_in_1x1": (model.backbone.stride_in_1x1, True),
        "backbone.padded_pool": (model.backbone.padded_pool, False),
    }
    for key, (value, original) in wanted.items():
        if value != original:
            raise FsisError(
                f"was trained with config.model.{key}={value}, and the PyTorch project has {original} only: "
                "there it would compute something else"
            )
