"""TIFFs of every writer, read window by window."""

import pathlib
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from fsis_jax.errors import FsisError
from fsis_jax.io import chunks
from fsis_jax.io.images import read_image, to_rgb8
from fsis_jax.io.levels import find_stretch
from fsis_jax.io.source import open_image

COMPRESSIONS = [None, "zlib", "lzw", "zstd", "packbits", "deflate"]


def _random(shape: tuple[int, ...], dtype: str = "u2", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def _write(path: pathlib.Path, image: np.ndarray, **options: object) -> pathlib.Path:
    tifffile.imwrite(path, image, **options)
    return path


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the tiles or strips that are decoded from now on."""
    decoded: list[int] = []
    decode = tifffile.TiffPage.decode.func

    def counting(page: tifffile.TiffPage):
        inner = decode(page)

        def one(data: bytes, index: int, **options: object):
            decoded.append(index)
            return inner(data, index, **options)

        return one

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(counting))
    return decoded


LAYOUTS = [
    {},
    {"bigtiff": True},
    {"byteorder": ">"},
    {"rowsperstrip": 7},
    {"tile": (16, 32)},
    *({"compression": name, "tile": (32, 16)} for name in COMPRESSIONS[1:]),
    *({"compression": name, "rowsperstrip": 9} for name in COMPRESSIONS[1:]),
    {"compression": "zlib", "predictor": True, "tile": (16, 16), "byteorder": ">"},
]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "extra"),
    [
        ((70, 55), {}),
        ((70, 55, 3), {"photometric": "rgb"}),
        ((3, 70, 55), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_windows_are_those_of_the_whole_image(tmp_path, options, shape, extra):
    stored = _random(shape)
    path = _write(tmp_path / "a.tif", stored, **options, **extra)
    whole = np.moveaxis(stored, 0, -1) if shape[0] == 3 else stored
    with open_image(path) as image:
        assert (image.shape, image.dtype, image.coarser) == (whole.shape, np.uint16, ())
        for window in np.s_[0:70, 0:55], np.s_[3:4, 5:50], np.s_[31:33, 15:17], np.s_[60:200, 50:51], np.s_[:9, :]:
            part = image[window]
            assert part.dtype == np.uint16
            assert part.dtype.isnative
            np.testing.assert_array_equal(part, whole[window])
        assert image[5:5, 3:9].shape == whole[5:5, 3:9].shape
        assert image[90:95, 3:9].shape == whole[90:95, 3:9].shape
    np.testing.assert_array_equal(read_image(path), whole)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_window_equals_numpys(tmp_path_factory, data):
    whole = _random((45, 61, 3), "u1")
    path = tmp_path_factory.getbasetemp() / "any.tif"
    if not path.exists():
        _write(path, whole, compression="zlib", tile=(16, 16), photometric="rgb")
    limit = st.one_of(st.none(), st.integers(0, 70))
    window = tuple(slice(data.draw(limit), data.draw(limit)) for _ in range(2))
    with open_image(path) as image:
        np.testing.assert_array_equal(image[window], whole[window])


def test_slices_are_plain(tmp_path):
    with open_image(_write(tmp_path / "a.tif", _random((9, 8)))) as image:
        for window in np.s_[0:9:2, 0:8], np.s_[-3:9, 0:8], np.s_[0:9, 0:-1]:
            with pytest.raises(ValueError, match="step 1"):
                image[window]
    with pytest.raises(ValueError, match="after it was closed"):
        image[0:2, 0:2]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("f2", "f4"), (">f4", "f4"), ("f8", "f8"), ("i4", "i4"), ("u4", "u4"), ("u8", "u8"), ("i1", "i1")],
)
def test_dtypes(tmp_path, name, dtype):
    stored = _random((20, 30), "u1").astype(name)
    for options in {}, {"compression": "zlib"}:
        with open_image(_write(tmp_path / "a.tif", stored, **options)) as image:
            assert image.dtype == dtype
            assert image[0:20, 0:30].dtype == dtype
            np.testing.assert_array_equal(image[3:9, 4:11], stored[3:9, 4:11].astype(dtype))


def test_bilevel_white_and_packed_levels(tmp_path):
    mask = _random((20, 30), "u1") > 99
    np.testing.assert_array_equal(read_image(_write(tmp_path / "mask.tif", mask)), mask.astype(np.uint8) * 255)
    levels = _random((20, 30)) % 4096
    path = _write(tmp_path / "white.tif", levels, photometric="miniswhite", compression="lzw")
    with open_image(path) as image:
        np.testing.assert_array_equal(image[4:9, 5:7], 65535 - levels[4:9, 5:7])


def test_four_bits_take_the_range_of_eight(tmp_path):
    data = np.array([[0x01, 0x2F]], np.uint8)
    path = _write(tmp_path / "a.tif", data, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(4)
        tiff.pages[0].tags["BitsPerSample"].overwrite(4)
    with open_image(path) as image:
        np.testing.assert_array_equal(image[0:1, 0:4], [[0, 17, 34, 255]])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_of_a_palette(tmp_path, compression):
    grey = _random((20, 30), "u1")
    table = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    table[0] = table[0, ::-1]
    path = _write(tmp_path / "a.tif", grey, photometric="palette", colormap=table, compression=compression)
    with open_image(path) as image:
        assert (image.shape, image.dtype) == ((20, 30, 3), np.uint8)
        np.testing.assert_array_equal(image[5:9, 2:4], np.stack([255 - grey, grey, grey], axis=2)[5:9, 2:4])
    with open_image(path, channel="red") as image:
        np.testing.assert_array_equal(image[5:9, 2:4], 255 - grey[5:9, 2:4])


def test_jpeg_compression(tmp_path):
    ramp = np.repeat(np.linspace(0, 255, 96, dtype=np.uint8)[None], 64, axis=0)
    colours = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 128)], axis=2)
    path = _write(tmp_path / "a.tif", colours, compression="jpeg", tile=(32, 32), photometric="rgb")
    with open_image(path) as image:
        assert np.abs(image[10:40, 20:90].astype(int) - colours[10:40, 20:90]).mean() < 4


def test_one_window_of_a_large_image_decodes_its_tiles_only(tmp_path, monkeypatch):
    whole = np.zeros((2048, 2048), np.uint16)
    whole[600:800, 600:800] = _random((200, 200))
    path = _write(tmp_path / "a.tif", whole, compression="zlib", tile=(128, 128))
    decoded = _counted(monkeypatch)
    tracemalloc.start()
    try:
        with open_image(path) as image:
            assert not decoded
            np.testing.assert_array_equal(image[600:700, 600:800], whole[600:700, 600:800])
            most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded == [row * 16 + column for row in (4, 5) for column in (4, 5, 6)]
    assert most < whole.nbytes / 4


def test_nothing_is_decoded_twice(tmp_path, monkeypatch):
    whole = _random((300, 400))
    path = _write(tmp_path / "a.tif", whole, compression="zlib", tile=(64, 64))
    decoded = _counted(monkeypatch)
    with open_image(path) as image:
        for top in range(0, 300, 40):
            for left in range(0, 400, 50):
                window = np.s_[top : top + 90, left : left + 90]
                np.testing.assert_array_equal(image[window], whole[window])
        assert sorted(decoded) == list(range(5 * 7))
        stretch = find_stretch(image)
    assert stretch == find_stretch(whole)
    assert len(decoded) == 5 * 7


def test_rows_are_not_decoded_twice_even_if_a_row_of_tiles_exceeds_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CACHE_BYTES", 1000)
    whole = _random((130, 400))
    path = _write(tmp_path / "a.tif", whole, compression="zlib", tile=(64, 64))
    decoded = _counted(monkeypatch)
    with open_image(path) as image:
        rows = [image[y : y + 3, 0:400] for y in range(0, 130, 3)]
    np.testing.assert_array_equal(np.concatenate(rows), whole)
    assert len(decoded) == 3 * 7


def test_a_pyramid_of_subifds(tmp_path, monkeypatch):
    whole = _random((2, 256, 320), "u1")
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
        writer.write(whole, subifds=2, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}, **options)
        for factor in 2, 4:
            writer.write(whole[:, ::factor, ::factor], subfiletype=1, **options)
    decoded = _counted(monkeypatch)
    with open_image(path, channel="gfp") as image:
        assert [level.shape for level in image.coarser] == [(128, 160), (64, 80)]
        for factor, level in ((1, image), (2, image.coarser[0]), (4, image.coarser[1])):
            expected = whole[1, ::factor, ::factor]
            decoded.clear()
            np.testing.assert_array_equal(level[20:33, 70:77], expected[20:33, 70:77])
            assert len(decoded) == 1
    with pytest.raises(ValueError, match="closed"):
        level[0:1, 0:1]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 16)}])
@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_one_plane_of_a_stack(tmp_path, kind, options):
    if kind == "imagej" and "tile" in options:
        pytest.skip("ImageJ has no tiles")
    stack = _random((3, 5, 40, 50), "u1")
    names = ["DAPI", "GFP", "Cy3", "Cy5", "BF"]
    metadata = {"axes": "ZCYX"} | ({"Channel": {"Name": names}} if kind == "ome" else {})
    flags = {} if kind == "shaped" else {kind: True}
    path = _write(tmp_path / "s.tif", stack, metadata=metadata, photometric="minisblack", **flags, **options)
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
    stack = _random((2, 3, 4, 20, 30))
    path = _write(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "TZCYX"})
    with open_image(path, page="Z3,T2", channel="4") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], stack[1, 2, 3])
    message = r"choose one plane with --page T1,Z1 \(T 1\.\.2, Z 1\.\.3\) and --channel 1\.\.4$"
    for page in None, "Z3":
        with pytest.raises(FsisError, match=message):
            open_image(path, page=page)
    with pytest.raises(FsisError, match=r"no page 3: choose with --page T1,Z1 \(T 1\.\.2, Z 1\.\.3\)$"):
        open_image(path, page="3", channel="1")
    plain = _random((2, 3, 20, 30))
    path = _write(tmp_path / "q.tif", plain, photometric="minisblack")
    with open_image(path, page="Q2,Q3") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], plain[1, 2])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_three_channels_are_colours_unless_one_is_chosen(tmp_path, dtype):
    stack = _random((2, 3, 20, 30), dtype)
    path = _write(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with open_image(path, page="2") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], np.moveaxis(stack[1], 0, -1))
    with open_image(path, page="2", channel="3") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], stack[1, 2])
    with pytest.raises(FsisError, match=r"--page 1\.\.2 and --channel 1\.\.3 unless these are red, green and blue$"):
        open_image(path)


def test_stains_of_one_pixel_are_channels(tmp_path):
    stains = _random((20, 30, 7))
    options = {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16), "compression": "zlib"}
    path = _write(tmp_path / "s.tif", stains, **options)
    with open_image(path, channel="6") as image:
        np.testing.assert_array_equal(image[3:9, 2:30], stains[3:9, 2:30, 5])
    with pytest.raises(FsisError, match=r"axes YXC: choose one plane with --channel 1\.\.7$"):
        open_image(path)
    stack = _random((5, 20, 30, 3), "u1")
    path = _write(tmp_path / "rgb.tif", stack, imagej=True, photometric="rgb", metadata={"axes": "ZYXS"})
    with open_image(path, page="4", channel="Green") as image:
        np.testing.assert_array_equal(image[3:9, 2:30], stack[3, 3:9, 2:30, 1])
    with open_image(path, page="4") as image:
        np.testing.assert_array_equal(image[3:9, 2:30], stack[3, 3:9, 2:30])


def test_alpha_beside_grey(tmp_path):
    pixels = _random((20, 30, 2), "u1")
    path = _write(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    with open_image(path) as image:
        np.testing.assert_array_equal(image[2:5, 1:30], pixels[2:5, 1:30, 0])


def test_an_image_without_channels_or_pages_takes_none(tmp_path):
    path = _write(tmp_path / "a.tif", _random((20, 30)))
    with pytest.raises(FsisError, match=r"a\.tif: the image has one channel only: leave out --channel$"):
        open_image(path, channel="1")
    with pytest.raises(FsisError, match=r"a\.tif: the image has one page only: leave out --page$"):
        open_image(path, page="1")
    with open_image(path, channel="DAPI", page="Z3", where_there=True) as image:
        assert image.shape == (20, 30)


def test_volumes_in_one_page(tmp_path):
    volume = _random((20, 64, 48), "u1")
    for options in {}, {"tile": (16, 16, 16), "compression": "zlib"}:
        path = _write(tmp_path / "v.tif", volume, volumetric=True, photometric="minisblack", **options)
        with open_image(path, page="18") as image:
            np.testing.assert_array_equal(image[10:40, 3:48], volume[17, 10:40, 3:48])


def test_labels_of_imagej_name_the_channels(tmp_path):
    stack = _random((4, 20, 30))
    path = _write(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "CYX", "Labels": ["a", "b", "b", "2"]})
    with open_image(path, channel="A") as image:
        np.testing.assert_array_equal(image[0:20, 0:30], stack[0])
    with open_image(path, channel="2") as image:  # numbers before names
        np.testing.assert_array_equal(image[0:20, 0:30], stack[1])
    with pytest.raises(FsisError, match=r"2 channels are called b: choose with --channel 1\.\.4 \(a, b, b, 2\)"):
        open_image(path, channel="b")


def test_the_first_series_is_the_image(tmp_path):
    main, macro = _random((64, 80, 3), "u1"), _random((10, 12), "u1")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(main, photometric="rgb", compression="zlib")
        writer.write(macro, photometric="minisblack")
    with open_image(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(image[0:64, 0:80], main)
        assert image.coarser == ()


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
    with open_image(_write(tmp_path / "a.tif", _random((20, 30)), **options)) as image:
        assert image.pixel_size == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_in_several_files(tmp_path, compression):
    first, second = _random((20, 30), seed=1), _random((20, 30), seed=2)
    xml = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
    <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20" SizeC="2"
    SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" Name="A"/><Channel ID="Channel:0:1" Name="B"/>
    <TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>
    <TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>
    </Pixels></Image></OME>"""
    for name, plane, uuid in (("a", first, "1"), ("b", second, "2")):
        text = xml.replace('UUID="urn:uuid:1"', f'UUID="urn:uuid:{uuid}"').replace("\n", " ")
        _write(tmp_path / f"{name}.ome.tif", plane, description=text, metadata=None, compression=compression)
    for channel, plane in (("A", first), ("B", second)):
        with open_image(tmp_path / "a.ome.tif", channel=channel) as image:
            np.testing.assert_array_equal(image[0:20, 0:30], plane)
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(FsisError, match="the plane is missing in the file: copy all files of the set"):
        open_image(tmp_path / "a.ome.tif", channel="B")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (32, 32)}])
@pytest.mark.parametrize("kept", [0.97, 0.5, 0.05, 0.001])
def test_a_file_that_was_cut_off_is_found_when_it_is_opened(tmp_path, options, kept):
    path = _write(tmp_path / "cut.tif", _random((200, 150)), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(FsisError, match=r"cut\.tif: (truncated|damaged|not a PNG|the file is empty)") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_tile_is_an_error_of_its_window_alone(tmp_path):
    whole = _random((128, 128))
    path = _write(tmp_path / "a.tif", whole, compression="zlib", tile=(64, 64))
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    with open_image(path) as image:
        np.testing.assert_array_equal(image[0:128, 0:64], whole[:, :64])
        with pytest.raises(FsisError, match=r"a\.tif: damaged data \(.+\): copy or export the file again") as caught:
            image[60:70, 60:70]
    assert "\n" not in str(caught.value)
    with pytest.raises(FsisError, match="damaged data"):
        read_image(path)


def test_no_log_lines_of_tifffile(tmp_path, capfd):
    path = _write(tmp_path / "a.tif", _random((5, 60, 50)), photometric="minisblack", compression="zlib", metadata=None)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(FsisError):
        open_image(path, page="5")
    assert capfd.readouterr() == ("", "")


def _declare(path: pathlib.Path, **tags: int) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in tags.items():
            tiff.pages[0].tags[name].overwrite(value)


def test_nonsense_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    decoded = _counted(monkeypatch)
    path = _write(tmp_path / "a.tif", _random((20, 30)), compression="zlib", metadata=None)
    _declare(path, ImageWidth=1 << 20, ImageLength=1 << 15, RowsPerStrip=1 << 15)
    with pytest.raises(
        FsisError, match=r"compressed in parts of 1 x 32768 x 1048576 x 1 \(65536 MiB\): save it in tiles"
    ):
        open_image(path)
    path = _write(tmp_path / "b.tif", _random((20, 30)), metadata=None)
    _declare(path, ImageWidth=1 << 20, ImageLength=1 << 15, RowsPerStrip=1 << 15)
    with pytest.raises(FsisError, match=r"b\.tif: truncated TIFF"):
        open_image(path)
    _declare(path, ImageWidth=1 << 20, ImageLength=1 << 18, RowsPerStrip=1 << 18)
    with pytest.raises(FsisError, match=r"b\.tif: declares 1048576x262144 pixels: export a part"):
        open_image(path)
    path = _write(tmp_path / "c.tif", _random((20, 30)), metadata=None)
    _declare(path, ImageLength=0)
    with pytest.raises(FsisError, match=r"c\.tif: "):
        open_image(path)
    for name, image in (("d.tif", np.zeros((4, 4), np.complex64)), ("e.tif", np.zeros((4, 4), np.complex128))):
        with pytest.raises(FsisError, match=f"{name}: pixels of type complex"):
            open_image(_write(tmp_path / name, image))
    cmyk = _write(tmp_path / "f.tif", _random((20, 30, 4), "u1"), photometric="separated")
    with pytest.raises(FsisError, match=r"f\.tif: colours as CMYK or Lab: save the image as RGB"):
        open_image(cmyk)
    assert not decoded


def test_a_whole_image_of_a_file_is_ones_own(tmp_path):
    path = _write(tmp_path / "a.tif", _random((20, 30), "u1"))
    image = read_image(path)
    image[0, 0] = 7
    assert to_rgb8(image)[0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}, {"ome": True}, {"imagej": True}])
def test_damaged_bytes_are_one_line_errors_or_pixels(tmp_path, options):
    path = _write(tmp_path / "a.tif", _random((4, 40, 30), "u1"), photometric="minisblack", **options)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, 900, 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            with open_image(path, page="2", channel="2", where_there=True) as image:
                assert image[0:9, 0:9].ndim in (2, 3)
        except FsisError as error:
            messages.append(str(error))
    assert messages
    assert not [message for message in messages if "\n" in message or "a.tif: " not in message]


def test_closing_lets_go_of_the_file(tmp_path):
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("Linux tells what is mapped")
    path = _write(tmp_path / "let-go.tif", _random((20, 30)))
    with open_image(path):
        assert "let-go.tif" in maps.read_text()
    assert "let-go.tif" not in maps.read_text()
