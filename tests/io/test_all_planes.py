"""What "all" stands for in files of many planes."""

import numpy as np
import pytest
import tifffile
from vendor_files import czi_xml, write_czi

from fsis_jax.errors import FsisError
from fsis_jax.io.all_planes import PlaneChoice, all_planes, without_axis
from fsis_jax.io.source import open_image

PIXELS = np.random.default_rng(0).integers(0, 60_000, (2, 3, 2, 20, 30), np.uint16)
ALL = PlaneChoice("all", "all", "all")


def _write(path, pixels=PIXELS, axes="TZCYX", **metadata):
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": axes, **metadata})
    return str(path)


def test_every_plane_once_by_names_that_open_it(tmp_path):
    path = _write(tmp_path / "a.ome.tif", Channel={"Name": ["DAPI", "GFP"]})
    planes = all_planes(path, ALL)
    assert len({*planes}) == len(planes) == 12
    assert planes[0] == (None, "DAPI", "T1,Z1")
    seen = set()
    for plane in planes:
        with open_image(path, **plane._asdict()) as image:
            seen.add(np.asarray(image).tobytes())
    assert seen == {plane.tobytes() for plane in PIXELS.reshape(12, 20, 30)}


def test_what_is_chosen_stays(tmp_path):
    path = _write(tmp_path / "a.ome.tif")
    assert all_planes(path, PlaneChoice(None, "2", "all"))[::5] == [(None, "2", "T1,Z1"), (None, "2", "T2,Z3")]
    assert all_planes(path, PlaneChoice(None, "all", "Z2,T1")) == [(None, "1", "Z2,T1"), (None, "2", "Z2,T1")]


@pytest.mark.parametrize("names", [["a", "A"], ["a b", "a/b"], ["1", "2"], ["", "b"]])
def test_channels_whose_names_do_not_tell_them_apart_have_numbers(tmp_path, names):
    path = _write(tmp_path / "a.ome.tif", PIXELS[0, 0], "CYX", Channel={"Name": names})
    assert [plane.channel for plane in all_planes(path, ALL)] == ["1", "2"]


def test_a_picture_is_one_plane(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    assert all_planes(str(tmp_path / "a.tif"), ALL) == [(None, None, None)]


def test_all_series_each_with_its_own_planes(tmp_path):
    grey = PIXELS[0, 0, 0]
    blocks = [(grey, {"X": 0, "Y": 0, "S": 0}, 0)]
    blocks += [(grey, {"X": 90, "Y": 0, "S": 1, "Z": z}, 0) for z in range(2)]
    path = str(write_czi(tmp_path / "a.czi", blocks, czi_xml()))
    assert all_planes(path, ALL) == [("1", None, None), ("2", None, "Z1"), ("2", None, "Z2")]
    assert all_planes(path, PlaneChoice("2", None, "all")) == [("2", None, "Z1"), ("2", None, "Z2")]


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(FsisError, match=r"a\.tif: truncated or damaged TIFF"):
        all_planes(str(tmp_path / "a.tif"), ALL)


def test_the_axis_along_which_planes_are_linked():
    assert without_axis("T2,Z3", "Z") == ("T2", 3)
    assert without_axis("Z3", "Z") == ("", 3)
    assert without_axis("I7", "Z") == ("", 7)
    assert without_axis("Z3", "T") is None
    assert without_axis("I7,Z3", "T") is None
