"""What `config.model` makes: a detector out of flat arrays, and the shapes and types that these must have.

To know the shapes a detector is traced, which imports Flax and takes seconds; so they are kept from one process to the
next (`fsis_jax.cache`), as are programs. A process for which everything is kept builds no detector.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fsis_jax.cache import surroundings

if TYPE_CHECKING:
    from flax import nnx

    from fsis_jax.models.detector import Detector

Arrays = Mapping[str, jax.Array | np.ndarray]
"""Of a detector by their flat names ("backbone/stem/kernel", see `flat.py`)."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Of detectors; equal for equal configs."""

    text: str
    """The config as JSON."""
    config: FrozenConfigDict = dataclasses.field(compare=False)

    @classmethod
    def of(cls, config: ConfigDict) -> "Architecture":
        """Of a config's section `model`."""
        return cls(config.to_json_best_effort(sort_keys=True), FrozenConfigDict(config))

    def prepare(self) -> None:
        """Do now what `model` needs, so that nothing of it is done while a function is traced."""
        _structure(self)

    def model(self, arrays: Arrays) -> "Detector":
        """A detector of these arrays."""
        from flax import nnx

        from fsis_jax.checkpoints.flat import filled

        graph, like = _structure(self)
        model: Detector = nnx.merge(graph, filled(like, arrays))
        return model

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of the arrays of a detector."""

        def found() -> dict[str, Any]:
            from fsis_jax.checkpoints.flat import flat_arrays

            return flat_arrays(_structure(self)[1])

        return kept_shapes(f"arrays of {self.text}", found)


def kept_shapes(question: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types by their names: those that were kept, else those of what `find` gives, which are kept then.

    Args:
        question: what they are of; our code and the versions of libraries are added here.
        find: gives arrays, or what has shapes and types.
    """
    folder = surroundings.folder()
    question = f"shapes of {question}\n{surroundings.of_code()}"
    kept = None if folder is None else folder.get(question)
    if kept is None:
        kept = json.dumps({name: [list(x.shape), str(x.dtype)] for name, x in find().items()}).encode()
        if folder is not None:
            folder.put(question, kept)
    return {name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for name, (shape, dtype) in json.loads(kept).items()}


@functools.lru_cache(maxsize=8)
def _structure(architecture: Architecture) -> "tuple[nnx.GraphDef[Any], nnx.State]":
    """A detector without values."""
    from flax import nnx

    from fsis_jax.models.detector import Detector

    graph, like = nnx.split(nnx.eval_shape(lambda: Detector(ConfigDict(architecture.config), rngs=nnx.Rngs(0))))
    return graph, like
