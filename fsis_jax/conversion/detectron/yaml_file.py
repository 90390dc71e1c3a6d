"""`fsis convert CONFIG.yaml`: a config of Detectron or Detectron.pytorch to a config file of ours.

Models with an RPN and heads come over (Faster, Mask and Keypoint R-CNN). Every key of the file changes a key of ours,
or is named with the reason why not; what our models cannot do is an error. Where a file says nothing, Detectron's
defaults count, not ours.

`detectron_values` has the keys one by one.
"""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.config_check import check_config
from fsis_jax.conversion.detectron.config_source import config_source
from fsis_jax.conversion.detectron.heads import Values
from fsis_jax.conversion.detectron.settings import YamlSettings, read_settings
from fsis_jax.conversion.detectron.values import model_values, read_body
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write


@dataclasses.dataclass(frozen=True)
class Imported:
    """What became of a file."""

    about: str
    """The model in a few words."""
    config: ConfigDict
    values: Values
    """What of the config differs from `base_config`."""
    notes: list[str]
    """Keys that were ignored, and what differs, each with its reason."""


def convert_yaml(source: pathlib.Path, output: pathlib.Path) -> str:
    """Write the config file `output` for the YAML file `source`; returns what was recognised and ignored, as text.

    Raises:
        FsisError: a file that is not or cannot be imported; an `output` that exists, or is no .py.
    """
    if output.suffix != ".py":
        raise FsisError(f"{output}: a config is a Python file; give a name such as configs/{source.stem}.py")
    if output.exists():
        raise FsisError(f"{output}: exists already; give another --output, or move it away first")
    imported = import_yaml(source)
    config = imported.config
    frozen = config.model.backbone.freeze_at or config.model.backbone.norm == "frozen"
    about = [
        f"{imported.about}: {source.name} of Detectron.\n",
        f"Command:  fsis train --config {output.name}{' --config.init_from=WEIGHTS' * bool(frozen)} "
        f"--workdir runs/{output.stem}",
        f"Made by:  fsis convert {source.name} --output {output.name}",
        f"Needs:    a COCO folder under {config.data.root} (`--config.data.root=...` for another one)",
        *["          and pretrained weights, as `fsis convert` or a run leaves them."] * bool(frozen),
        f"Length:   {config.training.reference_steps} steps of {config.training.batch_size} images; with another batch "
        "size rate and length are rescaled.\n",
    ]
    notes = [f"  {note}" for note in imported.notes]
    heading = ["Left out of the file, or not the same:"] * bool(notes)
    text = config_source("\n".join(about), imported.values, heading + notes)
    with atomic_write(output) as file:
        file.write(text.encode())
    lines = [f"recognised a {imported.about} ({config.model.architecture})", *heading, *notes]
    return "\n".join([*lines, f"written to {output}: give it as --config"])


def import_yaml(path: pathlib.Path) -> Imported:
    """The config of a YAML file.

    Raises:
        FsisError: one of its keys or values is unknown, or has no place in our models.
    """
    settings = read_settings(path)
    _check_kind(settings)
    notes: list[str] = []
    body = read_body(settings)
    values = model_values(settings, body, notes)
    config, differing = base_config(), {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        part = config
        for step in section.split(".") if section else ():
            part = part[step]
        if part[name] != value:
            part[name] = _like(part[name], value)
            differing[key] = part[name]
    check_config(config, path)
    ignored = [f"{key}: {why}" for key, why in settings.without_effect().items()]
    heads = "Keypoint" if settings["MODEL.KEYPOINTS_ON"] else "Mask" if settings["MODEL.MASK_ON"] else "Faster"
    groups, width = config.model.backbone.groups, config.model.backbone.group_width
    name = f"ResNet-{body.depth}" if groups == 1 else f"ResNeXt-{body.depth}-{groups}x{width}d"
    return Imported(f"{heads} R-CNN with a {name}", config, differing, notes + ignored)


def _like(base: Any, value: Any) -> Any:
    """`value` in the type of the default."""
    if isinstance(base, float):
        return float(value)
    return tuple(map(float, value)) if isinstance(base, tuple) and base and isinstance(base[0], float) else value


def _check_kind(settings: YamlSettings) -> None:
    kind = settings["MODEL.TYPE"]
    detectors = "only Faster, Mask and Keypoint R-CNN with an RPN of their own (the e2e_ files) are imported"
    if settings["RETINANET.RETINANET_ON"] or kind == "retinanet":
        raise FsisError(f"{settings.path}: a RetinaNet, a detector of one stage (RETINANET.RETINANET_ON); {detectors}")
    if kind == "rfcn":
        raise FsisError(f"{settings.path}: an R-FCN (MODEL.TYPE is 'rfcn'); {detectors}")
    if settings["MODEL.RPN_ONLY"] or kind in ("rpn", "fpn_rpn"):
        raise FsisError(f"{settings.path}: an RPN alone, which finds proposals (MODEL.RPN_ONLY is True); {detectors}")
    settings.choose(
        "MODEL.TYPE",
        dict.fromkeys(("", "generalized_rcnn", "faster_rcnn", "mask_rcnn", "keypoint_rcnn", "mask_and_keypoint_rcnn")),
    )
    if not settings["MODEL.FASTER_RCNN"]:
        raise FsisError(
            f"{settings.path}: a Fast R-CNN on precomputed proposals (MODEL.FASTER_RCNN is False); {detectors}"
        )
