"""The PyTorch project's layers with a time worth measuring: its ResNet-50 and pyramid, with random weights."""

from collections.abc import Callable
from typing import Any

from fsis_jax.models.depths import BLOCKS

LEVELS = 4


def resnet50(torch: Any, *, frozen: int = 0) -> tuple[Any, Callable[[Any], list[Any]]]:
    """(B, 3, H, W) -> outputs of the four stages.

    Args:
        frozen: leading parts, of stem and stages, that no gradient reaches.
    """
    nn = torch.nn
    bottleneck = _bottlenecks(nn)
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)
    ).eval()
    stages, inputs = [stem], 64
    for index, count in enumerate(BLOCKS[50]):
        stage = []
        for position in range(count):
            stride = 2 if index > 0 and position == 0 else 1
            stage.append(bottleneck(inputs, 64 * 2**index, stride))
            inputs = 256 * 2**index
        stages.append(nn.Sequential(*stage))
    layers = nn.ModuleList(stages)
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)

    def run(x: Any) -> list[Any]:
        outputs = []
        for index, stage in enumerate(stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= frozen):
                x = stage(x)
            outputs.append(x)
        return outputs[1:]

    return layers, run


def _bottlenecks(nn: Any) -> Callable[[int, int, int], Any]:
    """A maker of residual blocks: input channels, width, stride."""

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            outputs = 4 * width
            self.branch = nn.Sequential(
                *(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
                *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
                *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
            ).eval()
            self.shortcut = nn.Identity()
            if inputs != outputs:
                convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs)).eval()

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.branch(x) + self.shortcut(x))

    return Bottleneck


def feature_pyramid(nn: Any) -> tuple[Any, Callable[[list[Any]], list[Any]]]:
    """Outputs of the four stages -> four levels of 256 channels."""
    laterals = nn.ModuleList(nn.Conv2d(256 * 2**index, 256, 1) for index in range(LEVELS))
    outputs = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in range(LEVELS))

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

    return nn.ModuleList([laterals, outputs]), run
