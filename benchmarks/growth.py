"""How time and memory grow with the image, the references and the instances."""

import functools
import math

import numpy as np

from benchmarks.cases import Case, crops, segmenter
from benchmarks.measure import Row, best_times
from benchmarks.segment import segment_row
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.models.detector import Pyramid

MEGAPIXELS = (1, 4, 16, 64)
REFERENCES = (1, 2, 3, 4, 5)
INSTANCES = (10, 100, 500, 1000)


def area_rows(case: Case) -> list[Row]:
    """Over image area. There is no tiling yet: an image larger than the largest canvas is shrunk to it, so that the
    network's work stops growing there, and what grows is the host's (resize, paste)."""
    network, result = segmenter(case.config), []
    for megapixels in MEGAPIXELS[: 3 if case.quick else None]:
        side = round(math.sqrt(megapixels) * 1024)
        result.append({"Mpx": megapixels, "image": f"{side}x{side}"} | segment_row(case, network, size=(side, side)))
    return result


def reference_rows(case: Case) -> list[Row]:
    """Over references: encoding them once, and segmenting with them, which does not depend on how many they were."""
    network, result = segmenter(case.config), []
    for shots in REFERENCES[:: 4 if case.quick else 1]:
        call = functools.partial(_encode, network, crops(shots))
        seconds = best_times({"": call}, case.repeats)[""]
        result.append({"references": shots, "encode ms": seconds * 1e3} | segment_row(case, network, shots))
    return result


def _encode(network: Segmenter, shown: list[np.ndarray]) -> Pyramid:
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
