"""The side of a pixel in micrometres, out of lengths and units as file formats write them.

Inches are not among them: no microscope counts in them, and files that do tell the dots per inch of a printer.
"""

import math

_MICROMETRES = {
    "pm": 1e-6, "picometer": 1e-6, "å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "µm": 1.0, "um": 1.0, "micrometer": 1.0, "micrometre": 1.0, "micron": 1.0, "microns": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
}  # fmt: skip
SMALLEST, LARGEST = 1e-4, 1e4
"""Micrometres: no image of cells has pixels beyond these."""


def micrometres(width: object, height: object, unit: object) -> float | None:
    """The side of a pixel, the geometric mean of its width and height (numbers or strings of them).

    None where one of them is missing, not a number, or absurd, or the unit is no length that is known.
    """
    # ImageJ writes the unit with the six characters of the escape; the Greek mu looks like the micro sign.
    name = (unit if isinstance(unit, str) else "").strip().replace("\\u00B5", "µ")
    name = name.replace("\u03bc", "µ").casefold().replace("\u03bc", "µ")
    factor = _MICROMETRES.get(name)
    try:
        sides = float(width), float(height)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    side = math.sqrt(sides[0] * sides[1]) * (factor or 0.0) if min(sides) > 0 else 0.0
    return side if SMALLEST <= side <= LARGEST else None
