"""Looks at random: as many categories of synthetic cells as one wants, for learning to tell any kind from any other."""

import dataclasses
import math

import numpy as np

from fsis_jax.synthetic.appearances import Appearance, Background, Colour, Range

_BACKGROUNDS: tuple[Background, ...] = ("dark", "tissue", "grey")
_SHARES = (0.5, 0.3, 0.2)
"""Share of the categories on each background."""
_COLOURED = 0.3
"""Share of the fluorescent categories that are not grey."""


def random_appearance(rng: np.random.Generator) -> Appearance:
    """A look: every property by itself, within what cells of its background show."""
    background: Background = _BACKGROUNDS[int(rng.choice(3, p=_SHARES))]
    radius = math.exp(rng.uniform(math.log(4), math.log(17)))
    long = rng.random() < 0.2
    least = rng.uniform(2.0, 4.0) if long else rng.uniform(1.0, 1.5)
    texture = rng.uniform(0.1, 0.7) if rng.random() < 0.6 else 0.0
    with_spots = rng.random() < 0.3 and radius > 6
    fewest = int(rng.integers(1, 8))
    body = _colour(rng, background)
    return Appearance(
        background=background,
        radius=_above(rng, radius, 1.4),
        body=body,
        elongation=_above(rng, least, 1.3),
        irregularity=0.03 if long else rng.uniform(0.0, 0.18),
        bend=rng.uniform(0.0, 0.1) if long else 0.0,
        taper=rng.uniform(0.0, 0.7) if long else 0.0,
        opacity=rng.uniform(0.6, 1.0),
        dome=rng.uniform(0.1, 0.7) if rng.random() < 0.5 else 0.0,
        texture=texture,
        texture_scale=int(rng.choice((2, 3, 5))),
        membrane=_other(rng, body) if rng.random() < 0.3 else None,
        membrane_width=rng.uniform(1.3, 2.8),
        spots=(fewest, fewest + int(rng.integers(0, 6))) if with_spots else (0, 0),
        spot=_other(rng, body),
        spot_radius=rng.uniform(0.08, 0.22),
        halo=(0.98, 0.98, 0.98) if background == "grey" and rng.random() < 0.5 else None,
        halo_width=rng.uniform(1.5, 4.0),
        clustering=rng.uniform(0.0, 0.9),
    )


def crowded_appearance(rng: np.random.Generator) -> Appearance:
    """A look of cells that touch in clumps, half of them long: what separates neighbours is to be learnt from these."""
    appearance = random_appearance(rng)
    dark = rng.random() < 0.6  # where neighbours are hardest to part
    changes: dict[str, object] = {"background": "dark", "body": _colour(rng, "dark"), "halo": None} if dark else {}
    if rng.random() < 0.5:
        length = rng.uniform(2.0, 5.5)
        # Of a circle of the cell's area; the width of a rod is about 1.8 times this over the root of its elongation.
        width = rng.uniform(6.0, 13.0)
        changes |= {
            "radius": _above(rng, width * math.sqrt(length) / 1.9, 1.25),
            "elongation": _above(rng, length, 1.4),
            "irregularity": rng.uniform(0.0, 0.03),
            "bend": rng.uniform(0.0, 0.1),
            "taper": rng.uniform(0.0, 0.5) if rng.random() < 0.3 else 0.0,
        }
    fewest = rng.uniform(0.25, 0.55)
    return dataclasses.replace(
        appearance,
        **changes,  # type: ignore[arg-type]
        clustering=rng.uniform(0.75, 1.0),
        contact=True,
        coverage=(fewest, fewest + 0.25),
        variation=rng.uniform(0.1, 0.5) if dark else 0.15,
        debris=(0, 4) if rng.random() < 0.3 else (0, 0),
    )


def flat_appearance(rng: np.random.Generator) -> Appearance:
    """A look of spread cells in transmitted light: hardly darker than what is around them, with a halo, and debris."""
    level = 0.57 + rng.uniform(-0.13, 0.06)
    dark = level * rng.uniform(0.5, 0.8)
    fewest = int(rng.integers(0, 6))
    return Appearance(
        background="grey",
        radius=_above(rng, math.exp(rng.uniform(math.log(7), math.log(26))), 1.5),
        body=(level, level, level),
        elongation=_above(rng, rng.uniform(1.0, 2.6), 1.5),
        irregularity=rng.uniform(0.06, 0.2),
        bend=rng.uniform(0.0, 0.15),
        taper=rng.uniform(0.2, 0.8),
        opacity=rng.uniform(0.6, 1.0),
        dome=rng.uniform(0.1, 0.6) if rng.random() < 0.4 else 0.0,
        texture=rng.uniform(0.05, 0.3),
        texture_scale=int(rng.choice((2, 3, 5))),
        membrane=(dark, dark, dark) if rng.random() < 0.5 else None,
        membrane_width=rng.uniform(0.8, 1.8),
        spots=(fewest, fewest + int(rng.integers(0, 8))),
        spot=(dark, dark, dark),
        spot_radius=rng.uniform(0.05, 0.2),
        halo=(rng.uniform(0.75, 0.98),) * 3 if rng.random() < 0.85 else None,
        halo_width=rng.uniform(1.2, 4.0),
        clustering=rng.uniform(0.2, 0.9),
        contact=bool(rng.random() < 0.5),
        coverage=(0.15, 0.55),
        debris=(0, 12),
        lines=0.2,
    )


def _above(rng: np.random.Generator, least: float, factor: float) -> Range:
    return least, least * rng.uniform(1.05, factor)


def _colour(rng: np.random.Generator, background: Background) -> Colour:
    """The colour of a body that its background does not hide."""
    if background == "tissue":  # from pale lilac to dark violet
        depth = rng.uniform(0.0, 1.0)
        red, green, blue = (high + depth * (low - high) for high, low in ((0.74, 0.22), (0.58, 0.10), (0.82, 0.42)))
        return red * rng.uniform(0.85, 1.1), green, blue
    if background == "grey":
        level = rng.uniform(0.12, 0.42) if rng.random() < 0.6 else rng.uniform(0.68, 0.9)
        return level, level, level
    level = math.exp(rng.uniform(math.log(0.18), math.log(0.9)))
    if rng.random() >= _COLOURED:
        return level, level, level
    gains = rng.uniform(0.1, 1.0, 3)
    red, green, blue = (float(value) for value in level * gains / gains.max())
    return red, green, blue


def _other(rng: np.random.Generator, body: Colour) -> Colour:
    """Clearly lighter or darker."""
    lighter = rng.random() < 0.5
    red, green, blue = (value + 0.7 * (1 - value) if lighter else 0.35 * value for value in body)
    return red, green, blue
