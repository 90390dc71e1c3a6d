"""fsis_jax: class-agnostic few-shot instance segmentation of cells, in JAX.

What is listed here is for users, and stays; what lies deeper may move between versions. For detection ops see
`fsis_jax.ops`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsis_jax.errors import FsisError
    from fsis_jax.inference.instances import Instances
    from fsis_jax.inference.job import Job
    from fsis_jax.inference.output_settings import Outcome, OutputSettings
    from fsis_jax.inference.references import References
    from fsis_jax.inference.segment_files import segment_files
    from fsis_jax.inference.segmenter import Segmenter
    from fsis_jax.io.decoding import overview
    from fsis_jax.io.outputs import write_outputs
    from fsis_jax.io.overlay import draw_overlay
    from fsis_jax.io.source import open_image

__version__ = "0.2.0"
__all__ = [
    "FsisError",
    "Instances",
    "Job",
    "Outcome",
    "OutputSettings",
    "References",
    "Segmenter",
    "__version__",
    "draw_overlay",
    "open_image",
    "overview",
    "segment_files",
    "write_outputs",
]

_HOMES = {
    "FsisError": "fsis_jax.errors",
    "Instances": "fsis_jax.inference.instances",
    "Job": "fsis_jax.inference.job",
    "Outcome": "fsis_jax.inference.output_settings",
    "OutputSettings": "fsis_jax.inference.output_settings",
    "References": "fsis_jax.inference.references",
    "Segmenter": "fsis_jax.inference.segmenter",
    "draw_overlay": "fsis_jax.io.overlay",
    "open_image": "fsis_jax.io.source",
    "overview": "fsis_jax.io.decoding",
    "segment_files": "fsis_jax.inference.segment_files",
    "write_outputs": "fsis_jax.io.outputs",
}
"""Name -> its module, imported when it is first asked for: JAX and what reads images take seconds to import."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
