"""What is told as damage, and what is not."""

import errno
import struct
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from tiff_files import random_image, write

from fsis_jax.errors import FsisError
from fsis_jax.io import tiff_images, tiff_planes
from fsis_jax.io.damage import damage_in
from fsis_jax.io.decoding import read_image
from fsis_jax.io.image_file import Plane
from fsis_jax.io.source import open_image


def _library(error: Exception) -> None:
    """Raises as a library does: from a module that is not ours."""
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\nlines"),
        KeyError("axes"),
        ZeroDivisionError("by zero"),
        struct.error("unpack"),
        zlib.error("-3"),
        zipfile.BadZipFile("no zip"),
        tifffile.TiffFileError("no TIFF"),
        OSError("image file is truncated"),
        TypeError("'<' not supported between 'tuple' and 'int'"),
        AttributeError("'NoneType' object has no attribute 'shape'", obj=None),
        AssertionError(),
    ],
)
def test_what_parsers_raise_of_odd_data_is_damage(error):
    message = r"^a\.tif: damaged data \(.*\): copy or export the file again$"
    with pytest.raises(FsisError, match=message) as caught, damage_in("a.tif", "damaged data"):
        _library(error)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libjpeg.so"),
        ModuleNotFoundError("imagecodecs"),
        MemoryError(),
        NameError("pathlib"),
        AttributeError("module 'numpy' has no attribute 'cumproduct'", obj=np),
        KeyboardInterrupt(),
        FsisError("a.tif: no page 7"),
    ],
)
def test_what_fails_for_another_reason_passes(error):
    with pytest.raises(type(error)) as caught, damage_in("a.tif", "damaged data"):
        _library(error)
    assert caught.value is error


def test_what_the_system_says_is_told_as_such():
    message = r"^a\.tif: cannot be read \(Input/output error\): give a readable image file$"
    with pytest.raises(FsisError, match=message), damage_in("a.tif", "damaged data"):
        _library(OSError(errno.EIO, "Input/output error"))


@pytest.mark.parametrize("module", [tiff_images, tiff_planes])
def test_a_library_of_another_version_is_no_damage(tmp_path, monkeypatch, module):
    path = write(tmp_path / "a.tif", random_image((20, 30)))

    held: dict[str, object] = {}
    # As if it were written there.
    exec("def dimensions(series): return series.dimensions_of_the_next_version", module.__dict__, held)
    monkeypatch.setattr(module, "dimensions", held["dimensions"])
    for read in open_image, read_image:
        with pytest.raises(AttributeError, match="dimensions_of_the_next_version"):
            read(path)


def test_memory_that_is_not_there_is_no_damage(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    path = write(tmp_path / "a.tif", random_image((20, 30)), compression="zlib")
    with open_image(path) as image:
        monkeypatch.setattr(np, "empty", full)
        with pytest.raises(MemoryError):
            image[:, :]


def test_a_compression_that_is_not_read_is_named(tmp_path):
    path = write(tmp_path / "a.tif", random_image((20, 30)), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(34676)
    with pytest.raises(FsisError, match=r"a\.tif: compressed as SGILOG, which is not read: save it with LZW"):
        open_image(path)


def test_a_codec_that_is_not_there_is_no_damage():
    def missing(*_: object) -> np.ndarray:
        raise ImportError("libzstd")

    with pytest.raises(ImportError):
        Plane("a.zarr", (20, 30), np.dtype("u2"), missing)[:, :]
