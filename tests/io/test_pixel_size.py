"""The size of a pixel, from what OME, ImageJ and others write into TIFFs."""

import pytest
from tiff_files import random_image, write

from fsis_jax.io.source import open_image


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}}, 0.5),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.5}}, 0.5),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.8}}, 0.4),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "YX",
                    "PhysicalSizeX": 325.0,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.000325,
                    "PhysicalSizeYUnit": "mm",
                },
            },
            0.325,
        ),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel"}}, None),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": -1.0}}, None),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 1e9}}, None),
        ({"ome": True, "metadata": {"axes": "YX"}}, None),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}}, 0.25),
        ({"imagej": True, "resolution": (1000, 1000), "metadata": {"unit": "mm"}}, 1.0),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "resolution": (0, 0), "metadata": {"unit": "um"}}, None),
        ({"imagej": True, "resolution": (300, 300), "metadata": {"unit": "inch"}}, None),
        ({"imagej": True, "resolution": (300, 300), "resolutionunit": "INCH", "metadata": {"unit": "inch"}}, None),
        ({"imagej": True, "resolution": (118, 118), "resolutionunit": "CENTIMETER", "metadata": {"unit": "cm"}}, None),
        ({"imagej": True, "resolution": (40_000, 40_000), "metadata": {"unit": "cm"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "nm"}}, 0.00025),
        ({"imagej": True}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
    ],
)
def test_size_of_a_pixel(tmp_path, options, expected):
    with open_image(write(tmp_path / "a.tif", random_image((20, 30)), **options)) as image:
        assert image.pixel_size == (None if expected is None else pytest.approx(expected))
