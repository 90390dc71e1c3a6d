"""R50-FPN beside torchvision's Mask R-CNN, training and inference, on a GPU where torchvision is installed.

Both in bfloat16 (AMP there) at 640x640 with frozen statistics and frozen first stages, as many images a step. Theirs
is `maskrcnn_resnet50_fpn`, put together here so that its weights can be random; ours also encodes references and
matches.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.cases import CELL_SIDE, RESIDUAL_SCALE, Case, detector, image, random_batch
from benchmarks.matmul import peak
from benchmarks.measure import Row, best_times, compiled
from benchmarks.torch_side import import_torch, import_torchvision, on_device, waiting
from fsis_jax.models.detection import View, detect
from fsis_jax.models.normalise import normalise
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.step import new_state

SIDE = 640
CELLS = 50
BATCHES = {"train": 8, "eval": 1}
DETECTIONS = 500


def rows(case: Case) -> list[Row]:
    """Images a second. "torch.compile" is of the backbone and pyramid: the rest has shapes that depend on the data.
    "x theirs" is over the better of torchvision's two forms, "% of peak" our GFLOP/s, as the compiler counts them, over
    the bfloat16 matrix peak. A form that fails says why."""
    torch = import_torch()
    result = []
    for mode, ours in (("train", _our_training), ("eval", _our_inference)):
        batch = BATCHES[mode]
        call, gflop = ours(_config(case.config, batch))
        contenders = {"ours": call}
        failures = {}
        for name, compile_ in (("eager", False), ("torch.compile", True)):
            theirs = _their_training if mode == "train" else _their_inference
            try:
                contenders[name] = theirs(torch, batch, compile_)
                contenders[name]()
            except Exception as error:  # whatever torch.compile may raise; the other rows stand
                contenders.pop(name, None)
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        seconds = best_times(contenders, case.repeats, calls=5, wait=waiting(torch))
        fastest = min((seconds[name] for name in seconds if name != "ours"), default=float("nan"))
        for name in ("ours", "eager", "torch.compile"):
            row: Row = {"mode": mode, "batch": batch, "form": name}
            if name in failures:
                result.append(row | {"images/s": failures[name]})
                continue
            row |= {"images/s": batch / seconds[name], "ms": seconds[name] * 1e3}
            if name == "ours":
                share = 100 * gflop / seconds[name] / peak("bfloat16")
                row |= {"x theirs": fastest / seconds[name], "% of peak": share}
            result.append(row)
    return result


def _config(base: ConfigDict, batch: int) -> ConfigDict:
    config = base.copy_and_resolve_references()
    config.model.compute_dtype = "bfloat16"
    config.data.train_canvases = config.data.test_canvases = ((SIDE, SIDE),)
    config.data.transform.max_instances = CELLS
    config.training.batch_size = batch
    return config


def _our_training(config: ConfigDict) -> tuple[Callable[[], Any], float]:
    _, start, per_device_step = new_state(config, detector(config))
    batch_size = config.training.batch_size
    parallel = DataParallel(per_device_step, "shard_map", batch_size=batch_size, devices=jax.local_devices()[:1])
    state = parallel.put_state(start)
    batch = parallel.put_batch(random_batch(config, (SIDE, SIDE), batch_size))
    program = compiled(parallel.step, state, batch)

    def step() -> Any:
        nonlocal state
        state, metrics = program.call(state, batch)
        return metrics

    return step, program.gflop


def _our_inference(config: ConfigDict) -> tuple[Callable[[], Any], float]:
    model, batch = detector(config), random_batch(config, (SIDE, SIDE), 1)
    references = jax.jit(model.encode_references)(normalise(batch.references))
    images, sizes = jax.device_put((batch.images, batch.image_sizes))
    program = compiled(
        lambda images, sizes, r: detect(model, [View(normalise(images, sizes), sizes)], r), images, sizes, references
    )
    return lambda: program.call(images, sizes, references), program.gflop


def mask_rcnn(torch: Any, torchvision: Any, **settings: Any) -> Any:
    """`maskrcnn_resnet50_fpn` for two classes with frozen statistics, random weights and activations in range."""
    utils, layers = torchvision.models.detection.backbone_utils, torchvision.ops.misc
    backbone = utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=layers.FrozenBatchNorm2d, trainable_layers=3
    )
    with torch.no_grad():
        for name, buffer in backbone.named_buffers():
            if name.endswith("bn3.weight"):
                buffer.fill_(RESIDUAL_SCALE)
    model = torchvision.models.detection.MaskRCNN(backbone, num_classes=2, min_size=SIDE, max_size=SIDE, **settings)
    return on_device(model)


def _their_training(torch: Any, batch: int, compile_: bool) -> Callable[[], Any]:
    model = mask_rcnn(torch, import_torchvision(), box_batch_size_per_image=256).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    if compile_:
        model.backbone = torch.compile(model.backbone)
    images, targets = their_batch(torch, batch)

    def step() -> Any:
        with torch.autocast(_kind(), torch.bfloat16):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _their_inference(torch: Any, batch: int, compile_: bool) -> Callable[[], Any]:
    settings = {"box_score_thresh": 0.0, "box_detections_per_img": DETECTIONS}
    model = mask_rcnn(torch, import_torchvision(), **settings).eval()
    if compile_:
        model.backbone = torch.compile(model.backbone)
    images, _ = their_batch(torch, batch)

    def call() -> Any:
        with torch.inference_mode(), torch.autocast(_kind(), torch.bfloat16), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model(images)

    return call


def their_batch(torch: Any, batch: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """Images and targets as torchvision takes them, on the device."""
    pixels = torch.from_numpy(image((SIDE, SIDE)).transpose(2, 0, 1).copy()).float() / 255
    rng = np.random.default_rng(0)
    images, targets = [], []
    for _ in range(batch):
        corners = rng.integers(0, SIDE - CELL_SIDE, (CELLS, 2))
        boxes = np.concatenate([corners, corners + CELL_SIDE], 1).astype(np.float32)
        masks = np.zeros((CELLS, SIDE, SIDE), np.uint8)
        for mask, (x, y) in zip(masks, corners, strict=True):
            mask[y : y + CELL_SIDE, x : x + CELL_SIDE] = 1
        target = {"boxes": torch.from_numpy(boxes), "labels": torch.ones(CELLS, dtype=torch.int64)}
        target["masks"] = torch.from_numpy(masks)
        images.append(on_device(pixels))
        targets.append({name: on_device(value) for name, value in target.items()})
    return images, targets


def _kind() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "cuda"
