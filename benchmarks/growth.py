"""How time and memory grow with the image, the references and the instances."""

import functools
import math
import sys
import time

import numpy as np

from benchmarks.cases import Case, crops, image, segmenter
from benchmarks.measure import Row, best_times, device_peak, host_now, host_peak, reset_peak
from benchmarks.segment import segment_row
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.references import Features
from fsis_jax.inference.segmenter import Segmenter

MEGAPIXELS = (1, 4, 16, 64)
REFERENCES = (1, 2, 3, 4, 5)
INSTANCES = (10, 100, 500, 1000)


def area_rows(case: Case) -> list[Row]:
    """Over image area, one call each. An image larger than a canvas is read in tiles by the compact model; r50 shrinks
    it. "host MB beyond" is the most that the process held during a call, less what it held before (the image among it)
    and less the instances that the call returned."""
    network, result = segmenter(case.config), []
    shown = network.encode_references(crops(1))
    for megapixels in MEGAPIXELS[:2]:  # compiles what is needed, whole and in tiles
        network.segment(image((_side(megapixels),) * 2), shown)
    for megapixels in MEGAPIXELS[: 2 if case.quick else None]:
        side = _side(megapixels)
        pixels, tiles = image((side, side)), 0

        def count(_: Job, done: int, number: int) -> None:
            nonlocal tiles
            tiles = number

        before = host_now()
        reset_peak()
        start = time.perf_counter()
        ((_, found),) = network.candidates([Job(pixels, shown)], progress=count)
        seconds = time.perf_counter() - start
        beyond = host_peak() - before - _megabytes(found)
        row = {"Mpx": megapixels, "image": f"{side}x{side}", "tiles": tiles, "instances": len(found)}
        row |= {"s": seconds, "ms a tile": seconds / tiles * 1e3, "host MB beyond": beyond}
        on_device = device_peak()
        result.append(row if on_device is None else row | {"device peak MB": on_device})
        del found
    return result


def _side(megapixels: int) -> int:
    return round(math.sqrt(megapixels) * 1024)


def _megabytes(instances: Instances) -> float:
    """That the result of a call takes."""
    masks = sum(sys.getsizeof(crop) + sys.getsizeof(crop.mask) for crop in instances.masks)
    return (masks + instances.boxes.nbytes + instances.scores.nbytes) / 1e6


def reference_rows(case: Case) -> list[Row]:
    """Over references: encoding them once, and segmenting with them, which does not depend on how many they were."""
    network, result = segmenter(case.config), []
    for shots in REFERENCES[:: 4 if case.quick else 1]:
        call = functools.partial(_encode, network, crops(shots))
        seconds = best_times({"": call}, case.repeats)[""]
        result.append({"references": shots, "encode ms": seconds * 1e3} | segment_row(case, network, shots))
    return result


def _encode(network: Segmenter, shown: list[np.ndarray]) -> Features:
    return network.encode_references(shown).features


def instance_rows(case: Case) -> list[Row]:
    """Over the most instances that a model may give (`model.detections.max_instances`), with as many proposals at
    least; each is another program."""
    result = []
    for count in INSTANCES[:: 2 if case.quick else 1]:
        config = case.config.copy_and_resolve_references()
        config.model.detections.max_instances = count
        config.model.rpn.test_pre_nms = max(config.model.rpn.test_pre_nms, 2 * count)
        config.model.rpn.test_post_nms = max(config.model.rpn.test_post_nms, count)
        result.append({"at most": count} | segment_row(case, segmenter(config)))
    return result
