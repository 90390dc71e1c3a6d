"""The convolutions of the r50 model beside the same ones in PyTorch, on CPU: what a rewrite gains by its kernels alone.

PyTorch computes them as its project does: NCHW, the mask head's first convolution on the 512 channels of roi and
reference features side by side. Ours takes its shortcuts there: that one is split, and all are Winograd's. Weights are
random on both sides; nothing is compared but time.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.cases import Case, detector
from benchmarks.measure import Row, best_times, compiled
from benchmarks.torch_side import import_torch
from fsis_jax.models.box_head import RoiFeatures
from fsis_jax.models.resnet import BLOCKS

CANVAS = (608, 800)
BOX_ROIS, MASK_ROIS = 1000, 500
LEVELS = 4
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
        result.append(
            {
                "stage": name,
                "input": "x".join(map(str, shapes[0])),
                "ours ms": seconds["ours"] * 1e3,
                "torch ms": seconds["torch"] * 1e3,
                "x torch": seconds["ours"] / seconds["torch"],
            }
        )
    return result


def _stand_ins(torch: Any) -> dict[str, Callable[[], Any]]:
    """Calls of the same stages; inputs and weights are made once."""
    nn = torch.nn
    backbone, pyramid = resnet50(nn), feature_pyramid(nn)
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


def resnet50(nn: Any) -> Callable[[Any], list[Any]]:
    """(B, 3, H, W) -> outputs of the four stages."""
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)
    ).eval()
    stages, inputs = [], 64
    for index, count in enumerate(BLOCKS[50]):
        stage = []
        for position in range(count):
            stride = 2 if index > 0 and position == 0 else 1
            stage.append(_bottleneck(nn, inputs, 64 * 2**index, stride))
            inputs = 256 * 2**index
        stages.append(stage)

    def run(x: Any) -> list[Any]:
        x, outputs = stem(x), []
        for stage in stages:
            for block in stage:
                x = block(x)
            outputs.append(x)
        return outputs

    return run


def _bottleneck(nn: Any, inputs: int, width: int, stride: int) -> Callable[[Any], Any]:
    outputs = 4 * width
    branch = nn.Sequential(
        *(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
    ).eval()
    shortcut = nn.Identity()
    if inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)).eval()
    return lambda x: nn.functional.relu(branch(x) + shortcut(x))


def feature_pyramid(nn: Any) -> Callable[[list[Any]], list[Any]]:
    """Outputs of the four stages -> four levels of 256 channels."""
    laterals = [nn.Conv2d(256 * 2**index, 256, 1) for index in range(LEVELS)]
    outputs = [nn.Conv2d(256, 256, 3, padding=1) for _ in range(LEVELS)]

    def run(features: list[Any]) -> list[Any]:
        levels: list[Any] = []
        above = None
        for index in reversed(range(LEVELS)):
            x = laterals[index](features[index])
            if above is not None:
                x = x + nn.functional.interpolate(above, size=x.shape[-2:])
            above = x
            levels.insert(0, outputs[index](x))
        return levels

    return run
