"""Run a suite of benchmarks; print its tables and save them.

    python -m benchmarks.run --suite cpu|gpu [--quick] [--only PART,...] [--config FILE [--config.KEY=VALUE ...]]

A part's table is printed and saved as soon as it is done, so that a run that is stopped keeps what it has. Parts:
those of `MODEL_PARTS` for each model, then those of `OTHER_PARTS`. With `--config` the model of that file takes the
place of both.
"""

import importlib.util
import inspect
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks import (
    growth,
    matmul,
    roi_ops,
    segment,
    stages,
    suppression,
    torch_convolutions,
    torchvision_models,
    torchvision_ops,
)
from benchmarks.cases import Case, custom, models
from benchmarks.measure import Row
from benchmarks.report import Report, table
from fsis_jax.config_check import check_config

Part = Callable[[Case], list[Row]]

FIRST_PARTS: dict[str, Part] = {"matmul": matmul.rows}
MODEL_PARTS: dict[str, Part] = {
    "inference": stages.inference_rows,
    "segment": segment.rows,
    "training": stages.training_rows,
    "area": growth.area_rows,
    "references": growth.reference_rows,
    "instances": growth.instance_rows,
}
OTHER_PARTS: dict[str, Part] = {
    "roi_align": roi_ops.rows,
    "nms": suppression.nms_rows,
    "soft_nms": suppression.soft_nms_rows,
}
TORCH_PARTS: dict[str, dict[str, Part]] = {
    "cpu": {"torch": torch_convolutions.rows},
    "gpu": {"torchvision_ops": torchvision_ops.rows, "torchvision_models": torchvision_models.rows},
}
RIVAL = {"cpu": "torch", "gpu": "torchvision"}
"""What `TORCH_PARTS` need."""

GROWTH = ("area", "references", "instances")
"""Parts that --quick runs for the compact model alone."""

RESULTS = pathlib.Path(__file__).parent / "results"

_SUITE = flags.DEFINE_enum("suite", "cpu", ["cpu", "gpu"], "What to run, and on what.")
_QUICK = flags.DEFINE_bool("quick", False, "Fewer settings and repeats; meant for five minutes on two idle cores.")
_ONLY = flags.DEFINE_list("only", [], "Names of parts; all if empty.")
_OUT = flags.DEFINE_string("out", str(RESULTS), "Folder for the file with the tables.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, instead of the two models.")


def plan(suite: str, cases: Sequence[Case], only: Sequence[str], quick: bool) -> list[tuple[str, Part, Case]]:
    """The parts to run in turn: title, function, what it is given."""
    r50 = cases[0]
    chosen = [(name, name, part, r50) for name, part in FIRST_PARTS.items()]
    for case in cases:
        for name, part in MODEL_PARTS.items():
            if not (quick and name in GROWTH and case is r50 and len(cases) > 1):
                chosen.append((name, f"{name}, {case.model}", part, case))
    chosen += [(name, name, part, r50) for name, part in OTHER_PARTS.items()]
    # Not imported before its turn: it would count as memory of the parts above.
    if importlib.util.find_spec(RIVAL[suite]) is not None and len(cases) > 1:
        chosen += [(name, name, part, r50) for name, part in TORCH_PARTS[suite].items()]
    return [(title, part, case) for name, title, part, case in chosen if not only or name in only]


def main(_: list[str]) -> int:
    """Run the chosen parts; 1 if one of them failed, 2 if the arguments or the machine do not allow the run."""
    logging.set_verbosity(logging.WARNING)
    # PyTorch shares the GPU; and a peak of memory must be what was needed.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    suite, quick, only = _SUITE.value, _QUICK.value, _ONLY.value
    if suite == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        print(f"benchmarks: error: --suite gpu needs a GPU; JAX sees {jax.devices()}", file=sys.stderr)
        return 2
    known = {*FIRST_PARTS, *MODEL_PARTS, *OTHER_PARTS, *TORCH_PARTS[suite]}
    if unknown := set(only) - known:
        print(f"benchmarks: error: no part {', '.join(sorted(unknown))}; use: {', '.join(known)}", file=sys.stderr)
        return 2
    # A program that comes from the cache would show no compile time.
    jax.config.update("jax_enable_compilation_cache", False)
    cases = models(quick)
    if _CONFIG.value is not None:
        check_config(_CONFIG.value)
        cases = [custom("config", _CONFIG.value, quick)]
    parts = plan(suite, cases, only, quick)
    if not parts:
        print(
            "benchmarks: error: nothing to run: PyTorch or torchvision is not installed, or --config was given",
            file=sys.stderr,
        )
        return 2
    report, failed = Report(pathlib.Path(_OUT.value), suite, quick), False
    for title, part, case in parts:
        start = time.perf_counter()
        try:
            text = table(part(case))
        except Exception:  # one part must not take the others with it
            traceback.print_exc()
            text, failed = "failed; the error is on the terminal", True
        caption = " ".join((inspect.getdoc(part) or "").split())
        report.add(f"## {title}\n\n{caption}\n\n{text}\n\n{time.perf_counter() - start:.0f} s for this table.")
    print(f"saved as {report.path}")
    return int(failed)


if __name__ == "__main__":
    app.run(main)
