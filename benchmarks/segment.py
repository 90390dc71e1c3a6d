"""End to end: `Segmenter.segment` as a user calls it, from a numpy image to instances."""

import functools
import time
from typing import Any

from benchmarks.cases import Case, crops, image, segmenter
from benchmarks.measure import Row, best_times, device_peak, host_peak, reset_peak, traced
from fsis_jax.inference.segmenter import Segmenter

SHOTS = (1, 5)


def rows(case: Case) -> list[Row]:
    """One image after the other, references encoded before. "device busy" is the share of one more, profiled call in
    which the device computed; the host resizes and pastes in the rest. Memory is the process's, compiler included."""
    network, result = segmenter(case.config), []
    for shots in SHOTS:
        result.append(
            {"shots": shots, "image": "x".join(map(str, case.image_size))} | segment_row(case, network, shots)
        )
    return result


def segment_row(case: Case, network: Segmenter, shots: int = 1) -> Row:
    """The columns of one setting, after a first call that compiles."""
    pixels = image(case.image_size)
    start = time.perf_counter()
    references = network.encode_references(crops(shots))
    instances = network.segment(pixels, references, min_score=0)
    first = time.perf_counter() - start
    reset_peak()
    call = functools.partial(network.segment, pixels, references, min_score=0)
    seconds = best_times({"": call}, case.repeats, warm_up=False)[""]
    peak = host_peak()
    with traced() as busy:
        start = time.perf_counter()
        call()
        profiled = time.perf_counter() - start
    row: dict[str, Any] = {
        "instances": len(instances),
        "images/s": 1 / seconds,
        "ms": seconds * 1e3,
        "device busy %": 100 * busy.seconds / profiled,
        "first call s": first,
        "host peak MB": peak,
    }
    on_device = device_peak()
    return row if on_device is None else row | {"device peak MB": on_device}
