"""A detector as StableHLO programs that need JAX alone, or another runtime that reads StableHLO, and nothing of ours.

The folder that is written has `detector.json`, which says all of it; `weights.npz`, plain arrays; `encode.stablehlo`,
from the crop of one example cell to its features; and for each canvas `find_HEIGHTxWIDTH.stablehlo`, from features and
an image to what is found. Weights are an argument of all programs, so that these are small and share them. Programs are
what `jax.export` serialises, for CPUs, NVIDIA GPUs and TPUs at once; releases of JAX read them for six months at least.

What is done to images before (`examples/run_stablehlo.py` does it with NumPy) is in `detector.json` as `preprocessing`.
"""

import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax import export

from fsis_jax.checkpoints.architecture import Architecture, Arrays
from fsis_jax.checkpoints.weights import Trained
from fsis_jax.errors import FsisError
from fsis_jax.inference import programs
from fsis_jax.inference.segmenter import DEFAULT_MIN_SCORE
from fsis_jax.io.atomic import check_unused, new_folder
from fsis_jax.models.arrays import Detections, View
from fsis_jax.preprocess.transform_config import TransformConfig, transform_config

PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT = 1
WEIGHTS = "weights.npz"
_ENCODE = "encode.stablehlo"
_SETTINGS = (
    *("scale", "reference_pixels", "min_scale", "max_scale", "shortest_side", "longest_side", "intensity"),
    *("percentiles", "reference_size", "reference_stretch", "antialias", "legacy_reference_crop"),
)
"""Fields of TransformConfig that say what is done to images before they are given to the programs."""
_WEIGHTS_FIRST = {"weights": f"the arrays of {WEIGHTS} by their names"}
_FOUND = ("boxes", "scores", "valid", "masks")
Shapes = dict[str, jax.ShapeDtypeStruct]


def export_stablehlo(trained: Trained, folder: pathlib.Path, told: Callable[[str], object] = lambda line: None) -> None:
    """Write a detector's programs, weights and description.

    Args:
        trained: a detector that is shown references.
        folder: a new one.
        told: called with the name of each program before it is made, which takes seconds.

    Raises:
        FsisError: the folder is there, the package flatbuffers is not, or the model knows named categories; or the
            folder cannot be written.
    """
    check_unused(folder)
    if importlib.util.find_spec("flatbuffers") is None:
        raise FsisError('StableHLO is written with the package flatbuffers: pip install "fsis_jax[export]"')
    if trained.config.model.classes:
        raise FsisError("this model finds categories that it knows: only one that is shown references can be exported")
    transform = transform_config(trained.config)
    config = ml_collections.ConfigDict(trained.config.model)
    config.ops = "xla"  # what is traced on a GPU must run elsewhere, too
    architecture = Architecture.of(config)
    architecture.prepare()
    weights = {name: np.asarray(value) for name, value in trained.arrays.items()}

    def encode(weights: Arrays, crop: jax.Array) -> dict[str, jax.Array]:
        return _named(programs.encode.function(architecture, weights, crop[None, None]))

    def find(
        weights: Arrays,
        references: Mapping[str, jax.Array],
        image: jax.Array,
        size: jax.Array,
        scale: jax.Array,
        window: jax.Array,
    ) -> dict[str, jax.Array]:
        pyramid = {int(name.removeprefix("level")): x for name, x in references.items()}
        view = View(image[None], size[None], scale[None])
        found: Detections = programs.find.function(architecture, weights, pyramid, window[None], [view])
        return {name: x[0] for name in _FOUND if (x := getattr(found, name)) is not None}

    side = transform.reference_size
    of_weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    crop = jax.ShapeDtypeStruct((side, side, 3), np.uint8)
    features: Shapes = jax.eval_shape(encode, of_weights, crop)
    pair, number = jax.ShapeDtypeStruct((2,), np.int32), jax.ShapeDtypeStruct((), np.float32)
    inputs = {"size": pair, "scale": number, "window": pair}
    canvases = sorted({(int(height), int(width)) for height, width in trained.config.data.test_canvases})
    made = {_ENCODE: (encode, {"crop": crop})} | {
        f"find_{height}x{width}.stablehlo": (
            find,
            {"references": features, "image": jax.ShapeDtypeStruct((height, width, 3), np.uint8), **inputs},
        )
        for height, width in canvases
    }
    found: Shapes = {}
    with new_folder(folder) as target:
        np.savez(target / WEIGHTS, allow_pickle=False, **weights)
        for name, (function, given) in made.items():
            told(name)
            program = export.export(jax.jit(function), platforms=PLATFORMS)(of_weights, *given.values())
            (target / name).write_bytes(program.serialize())
            found = jax.tree.unflatten(program.out_tree, program.out_avals)
        about = {
            "format": FORMAT,
            "made_with": {"jax": jax.__version__},
            "platforms": PLATFORMS,
            "weights": WEIGHTS,
            "encode": {
                "program": _ENCODE,
                "inputs": _WEIGHTS_FIRST | {"crop": _told(crop)},
                "outputs": _all_told(features),
            },
            "find": {
                "programs": [
                    {"program": name, "canvas": canvas} for name, canvas in zip([*made][1:], canvases, strict=True)
                ],
                "inputs": {
                    **_WEIGHTS_FIRST,
                    "references": _all_told(features),
                    "image": {"shape": ["height of the canvas", "width of the canvas", 3], "dtype": "uint8"},
                    **_all_told(inputs),
                },
                "outputs": _all_told(found),
            },
            "preprocessing": _preprocessing(transform),
            "min_score": trained.validation.get("min_score", DEFAULT_MIN_SCORE),
            "box_offset": int(trained.config.model.legacy_boxes),
            "faintness": trained.config.model.detections.faintness,
            "most_in_better": trained.config.model.detections.mask_nms_threshold,
        }
        (target / "detector.json").write_text(json.dumps(about, indent=2) + "\n")


def _named(pyramid: Mapping[int, jax.Array]) -> dict[str, jax.Array]:
    """A pyramid by texts: what is serialised has no numbers for keys."""
    return {f"level{level}": x for level, x in pyramid.items()}


def _preprocessing(transform: TransformConfig) -> dict[str, Any]:
    settings = {name: getattr(transform, name) for name in _SETTINGS}
    by_image = transform.reference_stretch != "crop" and transform.intensity == "percentile"
    return settings | {"reference_stretch": "image" if by_image else "crop"}


def _told(x: jax.ShapeDtypeStruct) -> dict[str, Any]:
    return {"shape": list(x.shape), "dtype": str(x.dtype)}


def _all_told(arrays: Shapes) -> dict[str, Any]:
    return {name: _told(x) for name, x in arrays.items()}
