"""Kinds told apart by what is measured of a cell: its size, shape and brightness, beside what the network says.

The network compares cells at one size and is taught to find what is like the references; two kinds of one image, such
as nuclei at rest and in division, often differ in just what it was taught to overlook. Each kind's examples, those
shown and those that a person corrected, give a normal distribution of the traits (naive Bayes with the spread shrunk
towards a prior, since examples are few), and what is measured of a cell makes each kind more or less likely. What is
none of them is of all sorts, which no distribution describes: something is the less likely to be a cell the nearer it
is to one of these examples than to any of a kind.

The traits of a box are its size, elongation, and the brightness inside its ellipse and in its corners, from the 8-bit
image as its stretch gives it. So they need no mask, which a reference does not have.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

TRAITS = ("log size", "elongation", "brightness", "texture", "surroundings", "red", "green", "blue")
_SPREAD = np.array([0.25, 0.25, 0.12, 0.08, 0.12, 0.06, 0.06, 0.06], np.float32)
"""Standard deviation of each trait within a kind, before anything is known; size and elongation in powers of e, the
others in shares of the range of the stretch."""
_TRUST = 8
"""Examples that the prior of the spread weighs as much as."""
_ELLIPSE = 0.8
"""Squared radius, in shares of the box's half sides, of the ellipse that is taken for the cell."""
_MOST_LOG_ODDS = 2.0
"""That the examples of nothing can give against a cell; they give nothing for one."""
_REACH = 1.5
"""Spreads of a kind, as which the distance from a single example is counted."""
_FEW = 5
"""Examples of nothing that are trusted by half."""


def measure(pixels8: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The `TRAITS` of boxes.

    Args:
        pixels8: (H, W) or (H, W, 3) uint8.
        boxes: (n, 4) x1, y1, x2, y2 in its pixels; what lies outside does not count.

    Returns:
        (n, T) float32; colours are differences from the mean of the three, 0 of a grey image.
    """
    found = np.zeros((len(boxes), len(TRAITS)), np.float32)
    for row, (x1, y1, x2, y2) in enumerate(np.asarray(boxes, np.float64).tolist()):
        found[row, :2] = 0.5 * np.log(max((x2 - x1) * (y2 - y1), 1.0)), abs(np.log((x2 - x1 + 1e-3) / (y2 - y1 + 1e-3)))
        left, top, right, bottom = touched((x1, y1, x2, y2), pixels8.shape[:2])
        part = pixels8[top:bottom, left:right].astype(np.float32) / 255
        inside = _ellipse(bottom - top, right - left)
        cell, rest = part[inside], part[~inside]
        found[row, 2:4] = cell.mean(), (cell if cell.ndim == 1 else cell.mean(1)).std()
        found[row, 4] = rest.mean() if len(rest) else found[row, 2]
        if cell.ndim == 2:
            found[row, 5:] = cell.mean(0) - found[row, 2]
    return found


def touched(box: Sequence[float], size: Sequence[int]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the pixels that a box touches in an image of a size (height, width); at least one."""
    x1, y1, x2, y2 = box
    height, width = size
    left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
    right, bottom = min(max(int(np.ceil(x2)), left + 1), width), min(max(int(np.ceil(y2)), top + 1), height)
    return left, top, right, bottom


def _ellipse(height: int, width: int) -> np.ndarray:
    """(height, width) bool, the pixels of the ellipse that a box holds; at least one."""
    y, x = ((np.arange(side) + 0.5 - side / 2) / (side / 2) for side in (height, width))
    inside: np.ndarray = y[:, None] ** 2 + x[None] ** 2 <= _ELLIPSE
    return inside if inside.any() else np.ones((height, width), bool)


@dataclasses.dataclass(frozen=True)
class KindModel:
    """The distributions of the traits of K kinds, and of what is nothing.

    Args:
        traits: (n, T) of the examples, NaN where not known.
        kinds: (n,) int, of each example the row of its kind, K for what is none of them.
        count: K.
    """

    traits: np.ndarray
    kinds: np.ndarray
    count: int

    @functools.cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (K, T), and spreads (K, T); NaN means where nothing is known. And which traits count (T,)."""
        means = np.full((self.count, self.traits.shape[1]), np.nan)
        spreads = np.tile(_SPREAD.astype(np.float64), (self.count, 1))
        for kind in range(self.count):
            own = self.traits[self.kinds == kind].astype(np.float64)
            known = np.isfinite(own).sum(0)
            some = known > 0
            means[kind, some] = np.nanmean(own[:, some], axis=0)
            deviations = np.nansum((own[:, some] - means[kind, some]) ** 2, axis=0)
            spreads[kind, some] = np.sqrt((_TRUST * spreads[kind, some] ** 2 + deviations) / (_TRUST + known[some]))
        # A trait that is not known of one kind tells nothing between them.
        return means, spreads, np.isfinite(means).all(0)

    def log_odds(self, traits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the traits (n, T) of cells say.

        Returns:
            (n, K) logarithms of the kinds' shares, which sum to 1 if they are no less likely; and (n,) log odds
            for nothing against a cell of any kind, 0 where it is not nearer to an example of nothing.
        """
        means, spreads, counting = self._fitted
        kinds = self._densities(traits, means, spreads, counting)
        shares = kinds - np.logaddexp.reduce(kinds, axis=1, keepdims=True)
        nothing = self.traits[self.kinds == self.count]
        known = counting & np.isfinite(nothing).all(0)
        if not len(nothing) or not known.any():
            return shares, np.zeros(len(traits))
        cells = [np.where(np.isfinite(own := self.traits[self.kinds == k]), own, means[k]) for k in range(self.count)]
        odds = _nearest(traits[:, known], np.concatenate(cells)[:, known], _SPREAD[known])
        odds -= _nearest(traits[:, known], nothing[:, known], _SPREAD[known])
        return shares, np.clip(odds, 0, _MOST_LOG_ODDS) * len(nothing) / (len(nothing) + _FEW)

    def faintness(self, traits: np.ndarray) -> np.ndarray:
        """(n, K), how much less cells stand out than the examples of each kind: 0 of those that do as much or more.

        It is log(1 + z^2 / 4), that of Student's distribution of four degrees of freedom, of the brightness z that
        lies from the examples' mean on towards the brightness around them, in spreads: specks and shreds in a field of
        dark nuclei, or background in one of bright ones. 0 where no brightness is known.

        Args:
            traits: (n, T) of the cells.
        """
        inside, around = TRAITS.index("brightness"), TRAITS.index("surroundings")
        means, spreads, _ = self._fitted
        away = np.sign(means[:, around] - means[:, inside])
        gaps = away * (traits[:, None, inside] - means[:, inside]) / spreads[:, inside]
        return np.log1p(np.fmax(gaps, 0.0) ** 2 / 4)

    @staticmethod
    def _densities(traits: np.ndarray, means: np.ndarray, spreads: np.ndarray, counting: np.ndarray) -> np.ndarray:
        """(n, K) log densities by the traits that count, up to a constant."""
        gaps = (traits[:, None, counting] - means[:, counting]) / spreads[:, counting]
        return -0.5 * (gaps**2).sum(-1) - np.log(spreads[:, counting]).sum(-1)


def _nearest(traits: np.ndarray, examples: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(n,) half the squared distance of each of (n, T) to the nearest of (m, T), in `_REACH` times the spread (T,)."""
    least = np.full(len(traits), np.inf)
    for example in examples:
        least = np.minimum(least, 0.5 * (((traits - example) / (_REACH * spread)) ** 2).sum(1))
    return least


def kind_scores(evidence: np.ndarray, traits: np.ndarray, model: KindModel) -> np.ndarray:
    """The probability of each kind and of none, (n, K + 1) float32, which sum to 1.

    The kinds and nothing compete in one softmax, each kind by the network's log odds for it and its share by the
    traits. Kinds that are equally likely share what the network gives to a cell, so one kind alone has its score.

    Args:
        evidence: (n, K + 1), as `Instances.evidence`: -inf where the network was not shown a kind.
        traits: (n, T).
    """
    shares, nothing = model.log_odds(traits)
    each = np.concatenate([evidence[:, :-1] + shares, nothing[:, None]], axis=1).astype(np.float64)
    each = np.exp(each - each.max(1, keepdims=True))
    kinds = each[:, :-1] / each.sum(1, keepdims=True) * evidence[:, -1:]
    return np.concatenate([kinds, 1 - kinds.sum(1, keepdims=True)], axis=1).astype(np.float32)


def raised(kinds: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rows (n, K + 1) of `kind_scores` whose kinds together have other `scores` (n,), the kinds in proportion."""
    each = kinds[:, :-1].astype(np.float64)
    shares = each / np.maximum(each.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return np.concatenate([shares * scores[:, None], 1 - scores[:, None]], axis=1).astype(np.float32)
