"""The convolutions of the r50 model beside the same ones in PyTorch, on CPU: what a rewrite gains by its kernels alone.

PyTorch computes them as its project does: NCHW, the mask head's first convolution on the 512 channels of roi and
reference features side by side. Ours takes its shortcuts there: that one is split, and all are Winograd's. Weights are
random on both sides; nothing is compared but time.

The last row has the whole training step of ours, mask loss, targets, RoIAlign and optimiser included, beside PyTorch's
convolutions and linear layers of a step without masks, forward and backward, alone: a lower bound of what its project
takes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.cases import Case, detector
from benchmarks.measure import Row, best_times, compiled
from benchmarks.stages import training_step
from benchmarks.torch_layers import LEVELS, feature_pyramid, resnet50
from benchmarks.torch_side import import_torch
from benchmarks.torch_training import their_training
from fsis_jax.models.box_head import RoiFeatures

CANVAS = (608, 800)
BOX_ROIS, MASK_ROIS = 1000, 500
MATRIX = 2048


def rows(case: Case) -> list[Row]:
    """Each stage in turn by both, on the same threads; "x torch" is our time over PyTorch's."""
    torch, model = import_torch(), detector(case.config)
    graph, state = nnx.split(model)
    theirs = _stand_ins(torch)

    def ours(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[], Any]:
        inputs = [jax.random.normal(jax.random.key(0), shape) for shape in shapes]
        call = compiled(lambda s, *a: function(nnx.merge(graph, s), *a), state, *inputs).call
        return functools.partial(call, state, *inputs)

    def features(rois: jax.Array, references: jax.Array) -> RoiFeatures:
        return RoiFeatures(rois, references, jnp.zeros(rois.shape[:2], jnp.int32))

    stages: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
        "matrix product": (lambda _, x: x @ x, [(MATRIX, MATRIX)]),
        "backbone": (lambda m, x: m.backbone(x, None), [(1, *CANVAS, 3)]),
        "backbone, pyramid": (lambda m, x: m.pyramid(x, None), [(1, *CANVAS, 3)]),
        "box head": (
            lambda m, x, y: m.box_head(features(x, y)),
            [(1, BOX_ROIS, 7, 7, 256), (1, LEVELS, 7, 7, 256)],
        ),
        "mask head": (
            lambda m, x, y: m.mask_head.predict(features(x, y)),
            [(1, MASK_ROIS, 14, 14, 256), (1, LEVELS, 14, 14, 256)],
        ),
    }
    result = []
    for name, (function, shapes) in stages.items():
        with torch.inference_mode():
            seconds = best_times({"ours": ours(function, *shapes), "torch": theirs[name]}, case.repeats)
        result.append(_row(name, shapes[0], seconds))
    seconds = best_times({"ours": training_step(case, model), "torch": their_training(torch)}, case.repeats)
    result.append(_row("training step", (1, *CANVAS, 3), seconds))
    return result


def _row(name: str, shape: tuple[int, ...], seconds: Mapping[str, float]) -> Row:
    return {
        "stage": name,
        "input": "x".join(map(str, shape)),
        "ours ms": seconds["ours"] * 1e3,
        "torch ms": seconds["torch"] * 1e3,
        "x torch": seconds["ours"] / seconds["torch"],
    }


def _stand_ins(torch: Any) -> dict[str, Callable[[], Any]]:
    """Calls of the same stages; inputs and weights are made once."""
    nn = torch.nn
    (_, backbone), (_, pyramid) = resnet50(torch), feature_pyramid(nn)
    box_head = nn.Sequential(
        nn.Linear(256 * 49, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 8 + 32)
    ).eval()
    convolutions: list[Any] = []
    for inputs in (512, 256, 256, 256):
        convolutions += [nn.Conv2d(inputs, 256, 3, padding=1), nn.ReLU()]
    mask_head = nn.Sequential(
        *convolutions, nn.ConvTranspose2d(256, 256, 2, stride=2), nn.ReLU(), nn.Conv2d(256, 2, 1)
    ).eval()
    matrix, images = torch.randn(MATRIX, MATRIX), torch.randn(1, 3, *CANVAS)
    box_input, mask_input = torch.randn(BOX_ROIS, 256 * 49), torch.randn(MASK_ROIS, 512, 14, 14)
    return {
        "matrix product": lambda: matrix @ matrix,
        "backbone": lambda: backbone(images),
        "backbone, pyramid": lambda: pyramid(backbone(images)),
        "box head": lambda: box_head(box_input),
        "mask head": lambda: mask_head(mask_input),
    }
