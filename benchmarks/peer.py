"""One contender of `peers.py`, in a process that has nothing else: `python -m benchmarks.peer NAME TASK.npz`.

Prints one line of JSON: when the first result was there (`time.monotonic()`), the seconds of the network and of the
rest in the calls after it, the most memory of the process, and how many cells were found.

- fsis_jax: weights that come with it, three cells of the image as references, which are encoded before.
- stardist: `StarDist2D` of the published size (32 rays, grid 2) with random weights, whose maps say nothing. So what it
  does after the network is timed on the maps that a perfect network would give for the drawn cells.
- instanseg: its U-Net of the published size with random weights, and what it does after on a map with a seed in each
  drawn cell. Which pixels its small classifier takes is then at random, how many it looks at is not.
- original: the PyTorch project's network with random weights on an image of 608x800, proposals and heads included, and
  one reference, from a checkout. Nobody has tried it beside a checkout of today: it is tested with a stand-in that has
  the names `core.config.merge_cfg_from_file` and `modeling.model_builder.Generalized_RCNN` and the inputs of the golden
  vectors (data, im_info, query).
"""

import argparse
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CALLS = 5
"""After the first, of which the fastest counts."""


class Contender(NamedTuple):
    """Loaded, and ready for one image."""

    weights: str
    network: Callable[[], Any]
    """Returns what `rest` takes, on the host."""
    rest: Callable[[Any], int]
    """Returns the number of cells."""


def fsis(task: Any, options: argparse.Namespace) -> Contender:
    from fsis_jax import Segmenter
    from fsis_jax.inference.tidying import WHOLE_CELLS

    segmenter = Segmenter.from_pretrained(options.weights)
    references = segmenter.encode_boxes(task["image"], task["boxes"])
    plan = segmenter.plan(task["image"], references)
    if len(plan.tiles) > 1:
        raise SystemExit("fsis_jax reads an image of this size in tiles: give a smaller --side")

    def network() -> Any:
        pixels = plan.prepare(plan.tiles[0])
        assert pixels is not None
        return segmenter.detect(plan, [pixels], references)

    def rest(found: Any) -> int:
        candidates = segmenter.paste(plan, plan.tiles[0], found, 0, references)
        return len(WHOLE_CELLS(candidates, segmenter.min_score))

    return Contender(options.weights, network, rest)


def stardist(task: Any, _: argparse.Namespace) -> Contender:
    from stardist.geometry import star_dist
    from stardist.models import Config2D, StarDist2D
    from stardist.utils import edt_prob

    grid = (2, 2)
    model = StarDist2D(Config2D(n_rays=32, grid=grid, n_channel_in=1), name="random", basedir=None)
    image, labels = task["image"].astype(np.float32) / 255, task["labels"]
    maps = edt_prob(labels)[:: grid[0], :: grid[1]], star_dist(labels, 32, grid=grid)

    def rest(_: Any) -> int:
        found, _ = model._instances_from_prediction(labels.shape, *maps)
        return int(found.max())

    return Contender("random", lambda: model.predict(image), rest)


def instanseg(task: Any, _: argparse.Namespace) -> Contender:
    import torch
    from instanseg.utils.loss.instanseg_loss import InstanSeg
    from instanseg.utils.models.InstanSeg_UNet import InstanSeg_UNet

    torch.manual_seed(0)
    coordinates, sigmas = 2, 2
    method = InstanSeg(n_sigma=sigmas, device="cpu", dim_coords=coordinates)
    unet = InstanSeg_UNet(3, [[coordinates, sigmas, 1]], layers=[256, 128, 64, 32])
    model = method.initialize_pixel_classifier(unet).eval()
    image = torch.from_numpy(np.stack([task["image"]] * 3)[None].astype(np.float32) / 255)
    labels = task["labels"]
    maps = np.zeros((coordinates + sigmas + 1, *labels.shape), np.float32)
    y, x = np.indices(labels.shape)
    for number in range(1, labels.max() + 1):
        inside = labels == number
        far = np.hypot(y[inside] - y[inside].mean(), x[inside] - x[inside].mean())
        maps[-1][inside] = 1 - far / (far.max() + 1)

    def network() -> Any:
        with torch.inference_mode():
            return model(image)

    def rest(_: Any) -> int:
        with torch.inference_mode():
            found = method.postprocessing(torch.from_numpy(maps), device="cpu", classifier=method.pixel_classifier)
        return int(found.max())

    return Contender("random", network, rest)


def original(_: Any, options: argparse.Namespace) -> Contender:
    sys.path[:0] = [str(options.original / "lib"), str(options.original)]
    import torch
    from core.config import merge_cfg_from_file
    from modeling.model_builder import Generalized_RCNN

    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.manual_seed(0)
    merge_cfg_from_file(str(options.config))
    model = Generalized_RCNN().eval()
    inputs = {
        "data": torch.randn(1, 3, 608, 800),
        "im_info": torch.tensor([[608.0, 800.0, 1.0]]),
        "query": [torch.randn(1, 3, 128, 128)],
    }

    def network() -> Any:
        with torch.inference_mode():
            return model(**inputs)

    return Contender("random", network, lambda _: 0)


CONTENDERS: dict[str, Callable[[Any, argparse.Namespace], Contender]] = {
    "fsis_jax": fsis,
    "stardist": stardist,
    "instanseg": instanseg,
    "original": original,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("task", type=pathlib.Path)
    parser.add_argument("--weights", default="")
    parser.add_argument("--original", type=pathlib.Path)
    parser.add_argument("--config", type=pathlib.Path)
    options = parser.parse_args()
    with np.load(options.task) as task:
        contender = CONTENDERS[options.name](dict(task), options)
    cells = contender.rest(contender.network())
    first = time.monotonic()
    networks, rests = [], []
    for _ in range(CALLS):
        start = time.perf_counter()
        found = contender.network()
        between = time.perf_counter()
        contender.rest(found)
        networks.append(between - start)
        rests.append(time.perf_counter() - between)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    told = {"weights": contender.weights, "cells": cells, "first": first, "peak": peak}
    print(json.dumps({**told, "network": min(networks), "rest": min(rests)}))


if __name__ == "__main__":
    main()
