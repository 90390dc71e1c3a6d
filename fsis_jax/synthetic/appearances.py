"""How each category of synthetic cells looks: shape, size, colour, texture. Data, no code.

Three backgrounds exist: "dark" (fluorescence), "tissue" (pink, stained) and "grey" (transmitted light). Two categories
that share an image share its background; what tells them apart is in their looks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

Background = Literal["dark", "tissue", "grey"]
Range = tuple[float, float]
Colour = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Appearance:
    """One category. Lengths in pixels, colours RGB in 0..1, strengths in 0..1."""

    background: Background
    radius: Range
    """Roughly that of a circle of the cell's area."""
    body: Colour
    elongation: Range = (1.0, 1.25)
    """Length over width."""
    irregularity: float = 0.05
    """Size of the waves on the outline, as a share of the radius."""
    bend: float = 0.0
    """How far the tips of a rod (elongation of 2 and more) are off its axis, at most, as a share of its length."""
    taper: float = 0.0
    """How much thinner a rod is at its tips; 1 is a spindle."""
    opacity: float = 1.0
    """How much of the background the body hides."""
    variation: float = 0.12
    """How much brighter or darker one cell is than another, at most."""
    dome: float = 0.0
    """Share of the contrast that the body loses towards its outline."""
    texture: float = 0.0
    """Strength of the mottling of the body."""
    texture_scale: int = 3
    """Size of its grains, pixels; 2, 3 or 5."""
    membrane: Colour | None = None
    membrane_width: float = 2.0
    spots: tuple[int, int] = (0, 0)
    """Least and largest number of round spots (nucleoli, granules)."""
    spot: Colour = (0.0, 0.0, 0.0)
    spot_radius: float = 0.15
    """As a share of the radius of the cell."""
    halo: Colour | None = None
    """Glow just outside the outline, as in phase contrast."""
    halo_width: float = 2.5
    clustering: float = 0.3
    """Share of the cells that are placed against another one."""
    contact: bool = False
    """Those are pushed against it until they touch; else they come near it, and may overlap a little."""
    coverage: Range = (0.12, 0.40)
    """Share of the image that the cells cover."""
    debris: tuple[int, int] = (0, 0)
    """Least and largest number of specks that are no cells, and are not annotated."""
    lines: float = 0.0
    """Probability of the lines of a counting chamber."""


APPEARANCES: Mapping[str, Appearance] = {
    "fluo_discs": Appearance("dark", (5, 7), (0.75, 0.75, 0.75), elongation=(1.0, 1.15), irregularity=0.02, dome=0.5),
    "fluo_textured": Appearance(
        "dark", (13, 18), (0.50, 0.50, 0.50), elongation=(1.2, 1.7), irregularity=0.06, texture=0.55, texture_scale=5
    ),
    "fluo_membranes": Appearance(
        "dark", (9, 12), (0.13, 0.13, 0.13), irregularity=0.08, membrane=(0.85, 0.85, 0.85), membrane_width=2.2
    ),
    "tissue_nuclei": Appearance(
        "tissue", (6, 9), (0.29, 0.13, 0.50), elongation=(1.0, 1.3), irregularity=0.05, texture=0.25, texture_scale=2
    ),
    "tissue_spindles": Appearance(
        "tissue", (7, 10), (0.38, 0.24, 0.62), elongation=(2.2, 3.0), irregularity=0.03, bend=0.08, taper=0.6,
        texture=0.15,
    ),
    "tissue_vesicles": Appearance(
        "tissue", (12, 16), (0.78, 0.66, 0.84), elongation=(1.0, 1.4), texture=0.12,
        membrane=(0.42, 0.24, 0.60), spots=(1, 2), spot=(0.35, 0.08, 0.45), spot_radius=0.2,
    ),
    "phase_rings": Appearance(
        "grey", (7, 10), (0.30, 0.30, 0.30), elongation=(1.0, 1.15), irregularity=0.03, texture=0.15,
        halo=(0.98, 0.98, 0.98), halo_width=3.0,
    ),
    "bacteria_rods": Appearance(
        "grey", (5, 6), (0.22, 0.22, 0.22), elongation=(3.5, 5.0), irregularity=0.0, bend=0.08, dome=0.2, clustering=0.4
    ),
    "brightfield_spotted": Appearance(
        "grey", (13, 18), (0.72, 0.72, 0.72), elongation=(1.0, 1.5), irregularity=0.12, opacity=0.8,
        membrane=(0.40, 0.40, 0.40), membrane_width=1.6, spots=(8, 16), spot=(0.25, 0.25, 0.25), spot_radius=0.1,
    ),
}  # fmt: skip
"""Category -> look of the ordinary layout; ids are 1, 2, ... in this order."""

FOLDS: dict[int, tuple[int, ...]] = {1: (3, 6, 9), 2: (2, 5, 8), 3: (1, 4, 7)}
"""One category of each background at a time, so that two of each remain to be told apart."""

FIS_CELL_APPEARANCES: Mapping[int, Appearance] = {
    1: Appearance("dark", (8, 11), (0.55, 0.55, 0.55), elongation=(1.1, 1.5), texture=0.15, texture_scale=5),
    2: Appearance("dark", (5, 7), (0.70, 0.70, 0.70), dome=0.5, clustering=0.8),
    3: Appearance("dark", (7, 9), (0.15, 0.25, 0.90), dome=0.3, texture=0.1),
    4: Appearance(
        "dark", (14, 20), (0.10, 0.42, 0.14), elongation=(1.2, 2.2), irregularity=0.16, texture=0.35, texture_scale=2,
        membrane=(0.20, 0.75, 0.25),
    ),
    5: Appearance("tissue", (7, 11), (0.33, 0.16, 0.52), irregularity=0.08, texture=0.35),
    6: Appearance("dark", (10, 13), (0.75, 0.20, 0.16), irregularity=0.08, spots=(1, 3), spot=(0.98, 0.75, 0.30)),
    7: Appearance("dark", (6, 8), (0.62, 0.62, 0.62), elongation=(1.3, 1.8), texture=0.45, texture_scale=2),
    8: Appearance(
        "dark", (15, 19), (0.16, 0.16, 0.16), irregularity=0.10, texture=0.3, membrane=(0.60, 0.60, 0.60),
        membrane_width=1.6, clustering=0.7,
    ),
    9: Appearance(
        "tissue", (11, 15), (0.72, 0.60, 0.82), elongation=(1.0, 1.4), membrane=(0.36, 0.22, 0.58), spots=(1, 2),
        spot=(0.30, 0.08, 0.42), spot_radius=0.2,
    ),
    10: Appearance(
        "tissue", (6, 8), (0.40, 0.28, 0.66), elongation=(2.2, 3.2), bend=0.08, taper=0.6, texture=0.2, clustering=0.5
    ),
    11: Appearance("dark", (15, 20), (0.45, 0.45, 0.45), elongation=(1.1, 1.6), texture=0.6, texture_scale=5),
    12: Appearance("dark", (4, 5.5), (0.85, 0.80, 0.45), dome=0.3, clustering=0.5),
    13: Appearance("dark", (8, 11), (0.20, 0.12, 0.05), membrane=(0.90, 0.55, 0.15), irregularity=0.06, clustering=0.6),
    14: Appearance(
        "grey", (10, 14), (0.34, 0.34, 0.34), elongation=(1.0, 1.6), irregularity=0.10, texture=0.3,
        halo=(0.95, 0.95, 0.95), spots=(2, 5), spot=(0.15, 0.15, 0.15),
    ),
}  # fmt: skip
"""Category id of FIS-Cell -> a look of its own, only loosely that of the real images."""
