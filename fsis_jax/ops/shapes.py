"""What the ops have in common about their arguments: the check of shapes, and numbers that may be traced.

Annotations such as Num[Array, "N 4"] say shapes and types of arrays in the words of jaxtyping, one letter for one size
within a function. They cost nothing: only the tests execute them, all of them (tests/conftest.py). `check_shapes` runs
wherever an op is traced, since in JAX an index beyond the end of an array reads its end: without a check, arrays of a
wrong shape would give wrong numbers in the place of an error.
"""

import jax
import numpy as np
from jaxtyping import Array, Num

Scalar = float | Num[Array, ""]
"""A number that a caller may also compute on the device. Inside `jit` it is an array."""


def check_shapes(op: str, **arrays: tuple[jax.Array | np.ndarray, str]) -> None:
    """Compares each array with the shape beside it, such as "N 4" or "... 4": a word is the size of an axis, a letter
    is one size wherever it stands, and "..." in front are any axes.

    Raises:
      ValueError: with the name of the op, the array, its shape and that expected.
    """
    sizes: dict[str, int] = {}
    for name, (array, expected) in arrays.items():
        words, known = expected.split(), dict(sizes)
        shape = array.shape
        if words[0] == "...":
            words = words[1:]
            shape = shape[len(shape) - len(words) :] if len(shape) >= len(words) else ()
        fits = len(shape) == len(words) and all(
            size == (int(word) if word.isdigit() else sizes.setdefault(word, size))
            for word, size in zip(words, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(expected.split()) + ("," if len(expected.split()) == 1 else "")
            letters = ", ".join(f"{word} = {known[word]}" for word in words if word in known)
            raise ValueError(
                f"{op}: {name} has shape {array.shape}, expected ({wanted})" + (f" with {letters}" if letters else "")
            )
