"""Greedy non-maximum suppression on a GPU, in two kernels, where each round of `fsis_jax.ops.nms` is several launches.

The first fills a table of bits: bit b of word [i, w] says that box i suppresses the later box 32 * w + b. Its vectors
run over words, so boxes are laid out with those of one bit in a row. The second walks through the words in order, in
one block: it settles the 32 boxes of a word by their own 32 x 32 bits in scalar registers, then marks all that the
survivors suppress, one vector operation each. It takes N steps whatever the overlaps.

The bits come from the same float32 expressions as `fsis_jax.ops.boxes.pairwise_iou`.

Letters: N boxes in descending order of score; W words, N / 32 rounded up to whole vectors.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from .launch import LANES, launch, zeros_like

MAX_BOXES = 16384
"""Beyond this the table (N * N / 8 bytes) is better not stored."""

_WORD = 32
_ROWS = 8
"""Boxes i of a block of the first kernel; divides _WORD."""


def supported(number: int) -> bool:
    """Whether there is a kernel for so many boxes."""
    return 0 < number <= MAX_BOXES


def keep_best(
    boxes: jax.Array, valid: jax.Array, iou_threshold: jax.Array | float, *, offset: int = 0, interpret: Any = False
) -> jax.Array:
    """keep (N,) bool: no kept box before this one overlaps it with IoU >= iou_threshold.

    Args:
      boxes: (N, 4) float32 in descending order of score.
      valid: (N,) bool; others neither are kept nor suppress.
      iou_threshold: a scalar, traced or not.
      offset: 1 for the legacy inclusive convention.
    """
    number = boxes.shape[0]
    used = -(-number // _WORD)  # words that hold boxes
    words = -(-used // LANES) * LANES
    padding = words * _WORD - number
    boxes = jnp.pad(boxes, ((0, padding), (0, 0)))
    sides = jnp.maximum(boxes[:, 2:] - boxes[:, :2] + offset, 0.0)
    index = jnp.arange(words * _WORD, dtype=jnp.float32)
    values = jnp.stack([*boxes.T, sides[:, 0] * sides[:, 1], index])  # (6, 32 * W)
    spread = values.reshape(6, words, _WORD).swapaxes(1, 2)  # (6, 32, W)
    threshold = jnp.reshape(jnp.asarray(iou_threshold, jnp.float32), 1)
    out = jax.ShapeDtypeStruct((used * _WORD, words), jnp.int32)

    def nms_table(block: Any, values: Any, spread: Any, threshold: Any, table: Any) -> None:
        limit = threshold[0]
        rows = [[values[k, block * _ROWS + row] for k in range(6)] for row in range(_ROWS)]

        def one_bit(bit: Any, totals: tuple[Any, ...]) -> tuple[Any, ...]:
            x1, y1, x2, y2, area, index = (spread[k, bit, :] for k in range(6))
            flag = lax.shift_left(jnp.int32(1), bit)
            results = []
            for total, (left, top, right, bottom, own_area, own_index) in zip(totals, rows, strict=True):
                width = jnp.maximum(jnp.minimum(x2, right) - jnp.maximum(x1, left) + offset, 0.0)
                height = jnp.maximum(jnp.minimum(y2, bottom) - jnp.maximum(y1, top) + offset, 0.0)
                intersection = width * height
                union = own_area + area - intersection
                some = union > 0.0
                iou = jnp.where(some, intersection / jnp.where(some, union, 1.0), 0.0)
                results.append(total | jnp.where((iou >= limit) & (index > own_index), flag, jnp.int32(0)))
            return tuple(results)

        totals = lax.fori_loop(0, _WORD, one_bit, (zeros_like(spread[0, 0, :], jnp.int32),) * _ROWS)
        for row, total in enumerate(totals):
            table[block * _ROWS + row, :] = total

    run = launch(nms_table, out, blocks=used * _WORD // _ROWS, barriers=False, interpret=interpret)
    table = run(values, spread, threshold)

    def nms_walk(block: Any, table: Any, invalid: Any, out: Any, gone: Any) -> None:
        gone[...] = invalid[...]

        def one_word(word: Any, nothing: None) -> None:
            settled = gone[word]
            for bit in range(_WORD):
                row = table[word * _WORD + bit, word]
                settled = settled | jnp.where(((settled >> bit) & 1) == 0, row, 0)
            marks = gone[...]
            for bit in range(_WORD):
                survives = ((settled >> bit) & 1) == 0
                marks = marks | (table[word * _WORD + bit, :] & jnp.where(survives, jnp.int32(-1), jnp.int32(0)))
            gone[...] = marks

        lax.fori_loop(0, used, one_word, None)
        out[...] = gone[...]

    run = launch(
        nms_walk,
        jax.ShapeDtypeStruct((words,), jnp.int32),
        blocks=1,
        scratch=[plgpu.SMEM((words,), jnp.int32)],
        interpret=interpret,
    )
    bits = jnp.arange(_WORD, dtype=jnp.int32)
    absent = ~jnp.pad(valid, (0, padding)).reshape(words, _WORD)
    gone = run(table, jnp.sum(absent.astype(jnp.int32) << bits, axis=1, dtype=jnp.int32))
    return ((gone[:, None] >> bits) & 1).reshape(-1)[:number] == 0
