"""Stacks in TIFFs: pages and channels, and how one of them is chosen."""

import numpy as np
import pytest
from tiff_files import random_image, write

from fsis_jax.errors import FsisError
from fsis_jax.io.source import open_image


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 16)}])
@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_one_plane_of_a_stack(tmp_path, kind, options):
    if kind == "imagej" and "tile" in options:
        pytest.skip("ImageJ has no tiles")
    stack = random_image((3, 5, 40, 50), "u1")
    names = ["DAPI", "GFP", "Cy3", "Cy5", "BF"]
    metadata = {"axes": "ZCYX"} | ({"Channel": {"Name": names}} if kind == "ome" else {})
    flags = {} if kind == "shaped" else {kind: True}
    path = write(tmp_path / "s.tif", stack, metadata=metadata, photometric="minisblack", **flags, **options)
    for z, c in (1, 1), (3, 5), (2, 4):
        for page in str(z), f"Z{z}", f" z{z}":
            with open_image(path, page=page, channel=str(c)) as image:
                assert image.shape == (40, 50)
                np.testing.assert_array_equal(image[7:20, 3:45], stack[z - 1, c - 1, 7:20, 3:45])
    listed = r" \(DAPI, GFP, Cy3, Cy5, BF\)" if kind == "ome" else ""
    for chosen in {}, {"page": "2"}, {"channel": "2"}:
        with pytest.raises(FsisError) as caught:
            open_image(path, **chosen)
        assert str(caught.value) == (
            f"{path}: a stack of shape (3, 5, 40, 50), axes ZCYX: choose one plane with --page 1..3 and "
            f"--channel 1..5{listed.replace(chr(92), '')}"
        )
    if kind == "ome":
        with open_image(path, page="1", channel="cy5") as image:
            np.testing.assert_array_equal(image[0:40, 0:50], stack[0, 3])
    with pytest.raises(FsisError, match=rf"s\.tif: no channel 6: choose with --channel 1\.\.5{listed}$"):
        open_image(path, page="1", channel="6")
    for page in "0", "4", "T2", "Z1,Z1", "x", "":
        with pytest.raises(FsisError, match=rf"s\.tif: no page {page}: choose with --page 1\.\.3$"):
            open_image(path, page=page, channel="1")


def test_pages_on_several_axes(tmp_path):
    stack = random_image((2, 3, 4, 20, 30))
    path = write(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "TZCYX"})
    with open_image(path, page="Z3,T2", channel="4") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], stack[1, 2, 3])
    message = r"choose one plane with --page T1,Z1 \(T 1\.\.2, Z 1\.\.3\) and --channel 1\.\.4$"
    for page in None, "Z3":
        with pytest.raises(FsisError, match=message):
            open_image(path, page=page)
    with pytest.raises(FsisError, match=r"no page 3: choose with --page T1,Z1 \(T 1\.\.2, Z 1\.\.3\)$"):
        open_image(path, page="3", channel="1")
    plain = random_image((2, 3, 20, 30))
    path = write(tmp_path / "q.tif", plain, photometric="minisblack")
    with open_image(path, page="Q2,Q3") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], plain[1, 2])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_three_channels_are_colours_unless_one_is_chosen(tmp_path, dtype):
    stack = random_image((2, 3, 20, 30), dtype)
    path = write(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with open_image(path, page="2") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], np.moveaxis(stack[1], 0, -1))
    with open_image(path, page="2", channel="3") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], stack[1, 2])
    with pytest.raises(FsisError, match=r"--page 1\.\.2 and --channel 1\.\.3 unless these are red, green and blue$"):
        open_image(path)


def test_stains_of_one_pixel_are_channels(tmp_path):
    stains = random_image((20, 30, 7))
    options = {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16), "compression": "zlib"}
    path = write(tmp_path / "s.tif", stains, **options)
    with open_image(path, channel="6") as image:
        np.testing.assert_array_equal(image[3:9, 2:30], stains[3:9, 2:30, 5])
    with pytest.raises(FsisError, match=r"axes YXC: choose one plane with --channel 1\.\.7$"):
        open_image(path)
    stack = random_image((5, 20, 30, 3), "u1")
    path = write(tmp_path / "rgb.tif", stack, imagej=True, photometric="rgb", metadata={"axes": "ZYXS"})
    with open_image(path, page="4", channel="Green") as image:
        np.testing.assert_array_equal(image[3:9, 2:30], stack[3, 3:9, 2:30, 1])
    with open_image(path, page="4") as image:
        np.testing.assert_array_equal(image[3:9, 2:30], stack[3, 3:9, 2:30])


def test_an_image_without_channels_or_pages_takes_none(tmp_path):
    path = write(tmp_path / "a.tif", random_image((20, 30)))
    with pytest.raises(FsisError, match=r"a\.tif: the image has one channel only: leave out --channel$"):
        open_image(path, channel="1")
    with pytest.raises(FsisError, match=r"a\.tif: the image has one page only: leave out --page$"):
        open_image(path, page="1")
    with open_image(path, channel="DAPI", page="Z3", where_there=True) as image:
        assert image.shape == (20, 30)


def test_volumes_in_one_page(tmp_path):
    volume = random_image((20, 64, 48), "u1")
    for options in {}, {"tile": (16, 16, 16), "compression": "zlib"}:
        path = write(tmp_path / "v.tif", volume, volumetric=True, photometric="minisblack", **options)
        with open_image(path, page="18") as image:
            np.testing.assert_array_equal(image[10:40, 3:48], volume[17, 10:40, 3:48])


def test_labels_of_imagej_name_the_channels(tmp_path):
    stack = random_image((4, 20, 30))
    path = write(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "CYX", "Labels": ["a", "b", "b", "2"]})
    with open_image(path, channel="A") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], stack[0])
    with open_image(path, channel="2") as image:  # numbers before names
        np.testing.assert_array_equal(image[0:20, 0:30], stack[1])
    with pytest.raises(FsisError, match=r"2 channels are called b: choose with --channel 1\.\.4 \(a, b, b, 2\)"):
        open_image(path, channel="b")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_in_several_files(tmp_path, compression):
    first, second = random_image((20, 30), seed=1), random_image((20, 30), seed=2)
    xml = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
    <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20" SizeC="2"
    SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" Name="A"/><Channel ID="Channel:0:1" Name="B"/>
    <TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>
    <TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>
    </Pixels></Image></OME>"""
    for name, plane, uuid in (("a", first, "1"), ("b", second, "2")):
        text = xml.replace('UUID="urn:uuid:1"', f'UUID="urn:uuid:{uuid}"').replace("\n", " ")
        write(tmp_path / f"{name}.ome.tif", plane, description=text, metadata=None, compression=compression)
    for channel, plane in (("A", first), ("B", second)):
        with open_image(tmp_path / "a.ome.tif", channel=channel) as image:
            np.testing.assert_array_equal(image[0:20, 0:30], plane)
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(FsisError, match="the plane is missing in the file: copy all files of the set"):
        open_image(tmp_path / "a.ome.tif", channel="B")
