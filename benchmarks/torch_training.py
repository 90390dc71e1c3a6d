"""What a training step of the PyTorch project spends in convolutions and matrix products, forward and backward.

One image and one reference; frozen statistics and a frozen first stage; co-attention by the full affinity of all pairs
of positions, as it computes it; no masks, which it does not train; no RoIAlign, targets, suppression or optimiser, in
whose place are means of squares. So it is a lower bound of the project's own step.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.torch_layers import feature_pyramid, resnet50

CANVAS = (608, 800)
REFERENCE = 128
ROIS, SIDE = 256, 7
RATIOS = 5
FROZEN = 2
"""Stem and first stage."""


def their_training(torch: Any) -> Callable[[], Any]:
    """A call that runs the step, gradients included."""
    nn = torch.nn
    (backbone_layers, backbone), (pyramid_layers, pyramid) = resnet50(torch, frozen=FROZEN), feature_pyramid(nn)
    matching = nn.ModuleDict({name: nn.Conv2d(256, 128, 1) for name in ("g", "theta", "phi")})
    for name in ("reference", "target"):
        matching[name] = nn.Sequential(nn.Conv2d(128, 256, 1), nn.BatchNorm2d(256))
    rpn = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 5 * RATIOS, 1))
    embedding = nn.Sequential(nn.Linear(256 * SIDE**2, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU())
    outputs = nn.Linear(2048, 8 + 32)
    layers = nn.ModuleList([backbone_layers, pyramid_layers, matching, rpn, embedding, outputs])
    image, reference = torch.randn(1, 3, *CANVAS), torch.randn(1, 3, REFERENCE, REFERENCE)

    def match(target: Any, shown: Any) -> tuple[Any, Any]:
        affinity = matching["theta"](shown).flatten(2).transpose(1, 2) @ matching["phi"](target).flatten(2)
        of_target, of_shown = (matching["g"](x).flatten(2).transpose(1, 2) for x in (target, shown))
        to_shown = (affinity / affinity.shape[2] @ of_target).transpose(1, 2).reshape(1, 128, *shown.shape[2:])
        to_target = (affinity.transpose(1, 2) / affinity.shape[1] @ of_shown).transpose(1, 2)
        to_target = to_target.reshape(1, 128, *target.shape[2:])
        return matching["target"](to_target) + target, matching["reference"](to_shown) + shown

    def embed(features: Any, rois: int) -> Any:
        """As many values as `rois` rois have, from the features."""
        values = features.reshape(-1)
        return embedding(
            values.repeat(-(-rois * 256 * SIDE**2 // len(values)))[: rois * 256 * SIDE**2].reshape(rois, -1)
        )

    def step() -> Any:
        for parameter in layers.parameters():
            parameter.grad = None
        levels, shown_levels = pyramid(backbone(image)), pyramid(backbone(reference))
        pairs = [match(target, shown) for target, shown in zip(levels, shown_levels, strict=True)]
        read = [target for target, _ in pairs] + [levels[-1][:, :, ::2, ::2]]
        target, shown = pairs[0]
        both = torch.cat([embed(target, ROIS), embed(shown, 1).expand(ROIS, -1)], 1)
        loss = sum(rpn(features).square().mean() for features in read) + outputs(both).square().mean()
        loss.backward()
        return loss.detach()

    return step
