"""What the metadata of TIFF dialects tell of an image: names of channels and the size of a pixel.

OME-XML, ImageJ's description and Aperio's. The resolution tags of other TIFFs hold the dots per inch of a printer as
often as a microscope's scale, so they are not trusted; nor are inch and cm that ImageJ takes from them for its unit.
"""

import math
import os
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import tifffile

from fsis_jax.io.pixel_size import micrometres
from fsis_jax.io.tiff_images import TiffImage, all_series, dimensions

_MOST_PLANES = 1 << 22
"""Of all images that the metadata of a file tell of: tifffile makes a list of them."""


def check_ome(tiff: tifffile.TiffFile) -> None:
    """Raise ValueError where OME-XML tells of more planes than images have, or of files that no set consists of.

    What it names is opened: files of other folders are not the set's, and a pipe would be waited for.
    """
    if not tiff.is_ome:
        return
    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    except ElementTree.ParseError:
        return  # tifffile then reads the pages as they are
    total, folder = 0, tiff.filehandle.dirname
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        sizes = [int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT"]
        parts = pixels.findall("{*}TiffData")
        counts = [int(part.get("PlaneCount", part.get("NumPlanes", 0))) for part in parts]
        total += math.prod(sizes)
        if min(sizes) < 1 or max(total, *counts, 0) > _MOST_PLANES:
            raise ValueError(f"planes Z, C, T {' x '.join(map(str, sizes))}, in a part {max(counts, default=0)}")
        others = [named for part in parts for named in part.iterfind("{*}UUID") if named.text != root.get("UUID")]
        for name in {named.get("FileName", "") for named in others} - {""}:
            place = os.path.join(folder, name)
            if os.path.basename(name) != name or (os.path.exists(place) and not os.path.isfile(place)):
                raise ValueError(f"a part in {name!r}, which is no file beside it")


def channel_names(tiff: tifffile.TiffFile, image: TiffImage, count: int) -> Sequence[str]:
    """Names of the `count` channels of an image, "" where one has none; () where the file states none."""
    names: Sequence[str] = ()
    if tiff.is_ome:
        pixels = _ome_pixels(tiff, image)
        names = [channel.get("Name") or "" for channel in pixels.iterfind("{*}Channel")] if pixels is not None else ()
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels")
        # There is one label per plane: they name the channels only where channels are all there is.
        names = [str(label) for label in labels] if isinstance(labels, list) else ()
    return names if len(names) == count and any(names) else ()


def pixel_size(tiff: tifffile.TiffFile, image: TiffImage) -> float | None:
    """Micrometres per pixel of an image, or None."""
    if tiff.is_ome:
        pixels = _ome_pixels(tiff, image)
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
    if not image.first:  # these dialects tell of one image only
        return None
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


def _ome_pixels(tiff: tifffile.TiffFile, image: TiffImage) -> ElementTree.Element | None:
    """The element `Pixels` of an image.

    tifffile makes a series of each that has pixels, in order, but does not tell which it was.
    """
    try:
        left = iter(ElementTree.fromstring(tiff.ome_metadata or "").findall("{*}Image"))
    except ElementTree.ParseError:
        return None
    for series in all_series(tiff):
        sizes = dict(zip(*dimensions(series), strict=True))
        for element in left:
            pixels = element.find("{*}Pixels")
            sides = None if pixels is None else [pixels.get(f"Size{axis}") for axis in "YX"]
            named = series.name in (element.get("Name") or "", "Baseline")
            if sides == [str(sizes.get(axis)) for axis in "YX"] and named:
                break
        else:
            return None
        if series is image.series:
            return pixels
    return None
