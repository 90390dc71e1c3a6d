"""What the metadata of TIFF dialects tell of an image: names of channels and the size of a pixel.

OME-XML, ImageJ's description and Aperio's. The resolution tags of other TIFFs hold the dots per inch of a printer as
often as a microscope's scale, so they are not trusted; nor are inch and cm that ImageJ takes from them for its unit.
"""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import tifffile

from fsis_jax.io.pixel_size import micrometres


def channel_names(tiff: tifffile.TiffFile, count: int) -> Sequence[str]:
    """Names of the `count` channels of the first image, "" where one has none; () where the file states none."""
    names: Sequence[str] = ()
    if tiff.is_ome:
        pixels = _ome_pixels(tiff)
        names = [channel.get("Name") or "" for channel in pixels.iterfind("{*}Channel")] if pixels is not None else ()
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels")
        # There is one label per plane: they name the channels only where channels are all there is.
        names = [str(label) for label in labels] if isinstance(labels, list) else ()
    return names if len(names) == count and any(names) else ()


def pixel_size(tiff: tifffile.TiffFile) -> float | None:
    """Micrometres per pixel of the first image, or None."""
    if tiff.is_ome:
        pixels = _ome_pixels(tiff)
        if pixels is None:
            return None
        width, unit = pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "µm")
        height = pixels.get("PhysicalSizeY")
        if height is None:
            return micrometres(width, width, unit)
        across, down = (
            micrometres(side, side, pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis, side in (("X", width), ("Y", height))
        )
        return micrometres(across, down, "µm")
    page = tiff.pages.first
    if tiff.is_imagej:
        # Pixels per unit, as fractions.
        rates = [page.tags.valueof(tag) for tag in ("XResolution", "YResolution")]
        if not all(isinstance(rate, tuple) and rate[0] for rate in rates):
            return None
        length = (tiff.imagej_metadata or {}).get("unit")
        if length == "cm" and page.tags.valueof("ResolutionUnit") == tifffile.RESUNIT.CENTIMETER:
            return None
        across, down = (rate[1] / rate[0] for rate in rates)
        return micrometres(across, down, length if isinstance(length, str) else None)
    if tiff.is_svs:
        match = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", page.description)
        return micrometres(match[1], match[1], "µm") if match else None
    return None


def _ome_pixels(tiff: tifffile.TiffFile) -> ElementTree.Element | None:
    """The element `Pixels` of the first image."""
    try:
        return ElementTree.fromstring(tiff.ome_metadata or "").find("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None
