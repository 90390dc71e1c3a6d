"""Files of Nikon, Leica and Imaris, as the packages of the extra `vendor` read them; written by hand."""

import sys

import numpy as np
import pytest
from vendor_files import write_ims, write_lif, write_nd2

from fsis_jax.errors import FsisError
from fsis_jax.io.source import open_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 60_000, (3, 2, 4, 30, 40), np.uint16)  # T, C, Z, Y, X


def _nd2(folder, **options):
    frames = PIXELS.transpose(0, 2, 3, 4, 1).reshape(12, 30, 40, 2)
    return write_nd2(
        folder / "a.nd2", frames, loops=[("T", 3), ("Z", 4)], channels=("DAPI", "GFP"), micrometres=0.65, **options
    )


def test_nd2_is_read_as_its_package_reads_it(tmp_path):
    nd2 = pytest.importorskip("nd2")
    path = _nd2(tmp_path)
    expected = nd2.imread(path)  # T, Z, C, Y, X
    with nd2.ND2File(path) as file:
        voxel = file.voxel_size()
    with open_image(path, channel="gfp", page="Z2,T3") as image:
        assert (image.shape, image.dtype) == ((30, 40), np.uint16)
        np.testing.assert_array_equal(np.asarray(image), expected[2, 1, 1])
        np.testing.assert_array_equal(image[3:9, 35:50], PIXELS[2, 1, 1, 3:9, 35:])
        assert image.pixel_size == pytest.approx(voxel.x) == pytest.approx(0.65)
    with pytest.raises(FsisError, match=r"--page T1,Z1 \(T 1..3, Z 1..4\) and --channel 1..2 \(DAPI, GFP\)"):
        open_image(path)


def test_nd2_whose_channels_are_not_told(tmp_path):
    pytest.importorskip("nd2")
    with open_image(_nd2(tmp_path, bare=True), channel=1, page="Z1,T1") as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS[0, 0, 0])


def test_colours_of_nd2(tmp_path):
    pytest.importorskip("nd2")
    colour = RNG.integers(0, 60_000, (1, 30, 40, 3), np.uint16)
    path = write_nd2(tmp_path / "a.nd2", colour, channels=("Brightfield",), rgb=True)
    with open_image(path) as image:
        assert image.shape == (30, 40, 3)
        np.testing.assert_array_equal(np.asarray(image), colour[0])


def test_positions_of_nd2_are_series(tmp_path):
    pytest.importorskip("nd2")
    frames = PIXELS[0, 0][..., None]
    path = write_nd2(tmp_path / "a.nd2", frames, loops=[("P", ("left", "right")), ("Z", 2)])
    with open_image(path, series="right", page=2) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS[0, 0, 3])
        assert image.pixel_size is None
    with pytest.raises(FsisError, match=r"--series 1..2 \(1: left 40x30, Z 2; 2: right 40x30, Z 2\)"):
        open_image(path)


def test_lif_is_read_as_its_package_reads_it(tmp_path):
    liffile = pytest.importorskip("liffile")
    colour = RNG.integers(0, 255, (30, 40, 3), np.uint8)
    images = {"stack": (PIXELS, "TCZYX"), "plain": (PIXELS[0, 0, 0], "YX"), "colour": (colour, "YXS")}
    path = write_lif(tmp_path / "a.lif", images, metres=2.5e-7)
    with liffile.LifFile(path) as file:
        expected = [image.asarray() for image in file.images]
        names = [image.path for image in file.images]
    assert len(names) == 3
    with open_image(path, series=names[0], channel=2, page="Z4,T1") as image:
        np.testing.assert_array_equal(np.asarray(image), expected[0][0, 1, 3])
        np.testing.assert_array_equal(image[28:31, 0:4], PIXELS[0, 1, 3, 28:, :4])
        assert image.pixel_size == pytest.approx(0.25)
    with open_image(path, series=2) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS[0, 0, 0])
    with open_image(path, series=3) as image:
        np.testing.assert_array_equal(np.asarray(image), colour)
    with open_image(path, series=3, channel="green") as image:
        np.testing.assert_array_equal(np.asarray(image), colour[..., 1])
    with pytest.raises(FsisError, match=r"3 images in one file: choose one with --series 1..3 \(1: .*stack 40x30, T 3"):
        open_image(path)


def test_ims_is_read_chunk_by_chunk_with_its_levels(tmp_path):
    pytest.importorskip("h5py")
    path = write_ims(tmp_path / "a.ims", PIXELS, channels=("DAPI", "GFP"), micrometres=0.4, levels=2)
    with open_image(path, channel="dapi", page="T2,Z3") as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS[1, 0, 2])
        np.testing.assert_array_equal(image[20:99, 5:11], PIXELS[1, 0, 2, 20:, 5:11])
        assert image.pixel_size == pytest.approx(0.4)
        (coarse,) = image.coarser
        np.testing.assert_array_equal(np.asarray(coarse), PIXELS[1, 0, 2, ::2, ::2])


def test_three_channels_are_colours(tmp_path):
    pytest.importorskip("h5py")
    pytest.importorskip("liffile")
    pytest.importorskip("nd2")
    three = RNG.integers(0, 60_000, (3, 30, 40), np.uint16)
    for path in (
        write_ims(tmp_path / "a.ims", three[None, :, None]),
        write_lif(tmp_path / "a.lif", {"a": (three, "CYX")}),
        write_nd2(tmp_path / "a.nd2", np.moveaxis(three, 0, -1)[None], channels=("a", "b", "c")),
    ):
        with open_image(path) as image:
            np.testing.assert_array_equal(np.asarray(image), np.moveaxis(three, 0, -1))
        with open_image(path, channel=3) as image:
            np.testing.assert_array_equal(np.asarray(image), three[2])


@pytest.mark.parametrize(("suffix", "package"), [("nd2", "nd2"), ("lif", "liffile"), ("ims", "h5py")])
def test_a_file_that_is_none(tmp_path, monkeypatch, suffix, package):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"no such file at all" * 40)
    if pytest.importorskip(package):
        with pytest.raises(FsisError, match=rf"a\.{suffix}: truncated or damaged \.{suffix}") as caught:
            open_image(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        FsisError, match=rf'{suffix} files need the package {package}: pip install "fsis_jax\[vendor\]"'
    ):
        open_image(path)
