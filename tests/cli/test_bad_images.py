"""Images that `fsis segment` refuses, each with one line that tells the file, what is wrong with it and what to do."""

import os
import pathlib
import re
import shlex

import numpy as np
import pytest
from spoilt_images import (
    content,
    encoded,
    jpeg_of_size,
    ome_zarr,
    overwritten,
    pillow,
    png_of_size,
    stack,
    tiff,
    tiff_of_size,
    zarr_with_damaged_chunk,
    zarr_without_array,
    zarr_without_multiscales,
    zip_of,
)

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")

REST = "--references crop.png --checkpoint W --output out --min-score 0 --save labels"
PNG, JPEG, TIFF = encoded(".png"), encoded(".jpg"), tiff()
TILES = tiff(tile=(32, 32), compression="zlib")
RGB = encoded(".png", np.zeros((64, 64, 3), np.uint8))
NAMED = stack("C", 2, Channel={"Name": ["DAPI", "RFP"]})
COMPLEX = tiff(np.ones((64, 64), np.complex64))

# name of the file, what is in it, the message after that name
BESIDE_GOOD = {
    "empty": ("x.png", content(b""), "the file is empty: save the image as PNG, JPEG or TIFF"),
    "empty tiff": ("x.tif", content(b""), "the file is empty: save"),
    "one byte": ("x.jpg", content(b"\xff"), "not a PNG, JPEG or TIFF file: save"),
    "truncated png": ("x.png", content(PNG[:-500]), r"truncated PNG .*: copy or export the file again"),
    "png of its signature": ("x.png", content(PNG[:8]), r"truncated PNG .*: copy or export"),
    "png without its end": ("x.png", content(PNG[:-12]), r"truncated PNG .*: copy or export"),
    "png with a wrong byte": ("x.png", content(overwritten(PNG, 200, b"\0\1")), r"damaged PNG .*: copy or export"),
    "png without pixels": ("x.png", content(PNG[:33] + PNG[-12:]), "damaged or unknown image data: save it again"),
    "truncated jpeg": ("x.jpg", content(JPEG[:-500]), r"truncated JPEG .*: copy or export"),
    "jpeg of its header": ("x.jpg", content(JPEG[:20]), r"truncated JPEG .*: copy or export"),
    "tiff of its magic": ("x.tif", content(TIFF[:4]), r"truncated or damaged TIFF .*: copy or export"),
    "tiff with a cut header": ("x.tif", content(TIFF[:6]), r"truncated or damaged TIFF .*: copy or export"),
    "tiff with a cut directory": ("x.tif", content(TIFF[:40]), r"truncated or damaged TIFF .*: copy or export"),
    "tiff with cut pixels": ("x.tif", content(TIFF[:-100]), r"truncated TIFF \(ends after .*: copy or export"),
    "tiff with cut tiles": ("x.tif", content(TILES[:-100]), r"truncated TIFF \(ends after .*: copy or export"),
    "tiff with a damaged tile": ("x.tif", content(overwritten(TILES, -900, bytes(40))), "damaged data .*: copy or exp"),
    "tiff that points beyond its end": ("x.tif", content(overwritten(TIFF, 4, b"\xff" * 4)), "TIFF .*: copy or export"),
    "big tiff without a directory": ("x.tif", content(b"II+\0\x08\0\0\0" + bytes(8)), "TIFF .*: copy or export"),
    "text": ("x.png", content(b"cells, cells, cells\n"), "not a PNG, JPEG or TIFF file: save the image as PNG, JPEG"),
    "pdf": ("x.png", content(b"%PDF-1.7\n"), "not a PNG, JPEG or TIFF file: save"),
    "html": ("x.tif", content(b"<!DOCTYPE html><html>Sign in</html>"), "not a PNG, JPEG or TIFF file: save"),
    "zip": ("x.tif", content(zip_of(a__tif=TIFF)), "not a PNG, JPEG or TIFF file: save"),
    "bmp": ("x.bmp", content(pillow("BMP")), "not a PNG, JPEG or TIFF file: save"),
    "gif": ("x.gif", content(pillow("GIF")), "not a PNG, JPEG or TIFF file: save"),
    "webp": ("x.webp", content(pillow("WEBP")), "not a PNG, JPEG or TIFF file: save"),
    "czi": ("x.czi", content(b"ZISRAWFILE" + bytes(90)), "truncated or damaged .czi .*: copy or export"),
    "nd2": (
        "x.nd2",
        content(b"\xda\xce\xbe\n" + bytes(90)),
        "(damaged|need the package) .*: (copy or export|pip inst)",
    ),
    "lif": ("x.lif", content(b"\x70\0\0\0" + bytes(90)), "(damaged|the package) .*: (copy or export|pip install)"),
    "oir": ("x.oir", content(b"OLYMPUSRAWFORMAT" + bytes(90)), ".oir files are not read: export it as OME-TIFF"),
    "png of no width": ("x.png", content(png_of_size(10, 0)), "declares 0x10 pixels: copy or export"),
    "png of no height": ("x.png", content(png_of_size(0, 10)), "declares 10x0 pixels: copy or export"),
    "jpeg of no height": ("x.jpg", content(jpeg_of_size(0, 64)), "declares 64x0 pixels: copy or export"),
    "tiff of no width": ("x.tif", content(tiff_of_size(64, 0)), "copy or export"),
    "tiff of no height": ("x.tif", content(tiff_of_size(0, 64)), "copy or export"),
    "complex pixels": ("x.tif", content(COMPLEX), "pixels of type complex64: save the image as 8-bit, 16-bit or float"),
    "2 channels": ("x.tif", content(stack("C", 2)), r"a stack of .*axes CYX: choose .*--channel 1..2"),
    "5 channels": ("x.tif", content(stack("C", 5)), r"a stack of .*axes CYX: choose .*--channel 1..5"),
    "z": ("x.tif", content(stack("Z", 4)), r"a stack of .*axes ZYX: choose .*--page 1..4"),
    "t, z and c": ("x.tif", content(stack("TZC", 2, 3, 2)), r"choose .*--page T1,Z1 .* and --channel 1..2"),
    "zarr without an image": ("x.zarr", zarr_without_multiscales, r"without an image of OME-Zarr .*: export"),
    "zarr without its array": ("x.zarr", zarr_without_array, r"array '0', which it lists, is missing: copy the whole"),
    "zarr with a damaged chunk": ("x.zarr", zarr_with_damaged_chunk, "damaged .*: copy or export"),
    "empty zarr": ("x.zarr", pathlib.Path.mkdir, "a folder, and not an OME-Zarr image: give an image file"),
    "zarr that is a file": ("x.zarr", content(b"text"), "not a PNG, JPEG or TIFF file: save"),
    "zarr of several pages": (
        "x.zarr",
        lambda path: ome_zarr(path, np.ones((3, 64, 64), np.uint8), "zyx"),
        "choose .*--page 1..3",
    ),
    "svs": ("x.svs", content(b"text"), "not a slide|needs OpenSlide"),
}


@pytest.mark.parametrize(("name", "make", "message"), BESIDE_GOOD.values(), ids=BESIDE_GOOD)
def test_a_bad_image_beside_a_good_one(fsis, desk, name, make, message):
    make(desk / name)
    outcome = fsis("segment", name, "good.png", *REST.split())
    assert outcome.error.startswith(f"fsis: error: {name}: ")
    assert outcome.error.endswith(f"; {desk / 'out'} has the results of the others (1)")
    assert outcome.stdout.startswith("good.png: ")
    assert outcome.stdout.count("\n") == 1
    assert sorted(path.name for path in (desk / "out").iterdir() if path.name != ".tiles") == [
        "good-labels.tif",
        "images.jsonl",
        "summary.csv",
    ]
    import re

    assert re.search(message, outcome.error)


# name of the file, what is in it, options that do not fit it, the message after that name
ALONE = {
    "channel of grey": ("x.png", content(PNG), "--channel 2", "has one channel only: leave out --channel"),
    "channel beyond": ("x.tif", content(stack("C", 5)), "--channel 6", "no channel 6: choose with --channel 1..5"),
    "channel 0": ("x.tif", content(stack("C", 5)), "--channel 0", "no channel 0: choose with --channel 1..5"),
    "channel -1": ("x.tif", content(stack("C", 5)), "--channel=-1", "no channel -1: choose with --channel 1..5"),
    "channel 1.5": ("x.tif", content(stack("C", 5)), "--channel 1.5", "no channel 1.5: choose with --channel 1..5"),
    "channel of two": ("x.tif", content(stack("C", 5)), "--channel 1,2", "no channel 1,2: choose with --channel 1..5"),
    "unknown channel": (
        "x.ome.tif",
        content(NAMED),
        "--channel GFP",
        r"no channel GFP: .*--channel 1..2 \(DAPI, RFP\)",
    ),
    "colour beyond": ("x.png", content(RGB), "--channel 4", r"no channel 4: choose .* 1..3 \(red, green, blue\)"),
    "page of grey": ("x.tif", content(TIFF), "--page 2", "has one page only: leave out --page"),
    "page of a png": ("x.png", content(PNG), "--page 1", "has one page only: leave out --page"),
    "page beyond": ("x.tif", content(stack("Z", 4)), "--page 5", "no page 5: choose with --page 1..4"),
    "page 0": ("x.tif", content(stack("Z", 4)), "--page 0", "no page 0: choose with --page 1..4"),
    "page -1": ("x.tif", content(stack("Z", 4)), "--page=-1", "no page -1: choose with --page 1..4"),
    "page of no number": ("x.tif", content(stack("Z", 4)), "--page first", "no page first: choose with --page 1..4"),
    "other axis": ("x.tif", content(stack("Z", 4)), "--page T1", "no page T1: choose with --page 1..4"),
    "one axis of two": ("x.tif", content(stack("TZ", 2, 3)), "--page Z1", "choose one plane with --page T1,Z1"),
    "number for two axes": ("x.tif", content(stack("TZ", 2, 3)), "--page 4", r"no page 4: choose with --page T1,Z1 \("),
    "channel of a z stack": ("x.tif", content(stack("Z", 4)), "--channel 1", "has one channel only|--page 1..4"),
}


@pytest.mark.parametrize(("name", "make", "options", "message"), ALONE.values(), ids=ALONE)
def test_a_plane_that_is_not_there(fsis, desk, name, make, options, message):
    make(desk / name)
    outcome = fsis("segment", name, *options.split(), *REST.split())
    assert re.search(f"^fsis: error: {name}: .*{message}", outcome.error)
    assert outcome.stdout == ""
    assert not (desk / "out").exists()


def _folder(*names):
    def make(desk):
        (desk / "plate").mkdir()
        for name in names:
            path = desk / "plate" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(PNG)

    return make


def _link(desk):
    (desk / "x.png").symlink_to("x.png")


# what is made, the images that are given, the message
NONE = {
    "missing": (_folder(), "x.png", "x.png: no such file: check the path"),
    "missing beside a good one": (_folder(), "good.png x.png", "x.png: no such file: check the path"),
    "in a missing folder": (_folder(), "none/x.png", "none/x.png: no such file: check the path"),
    "in a file": (_folder(), "good.png/x.png", "good.png/x.png: no such file: check the path"),
    "link to itself": (_link, "x.png", "x.png: no such file: check the path"),
    "empty folder": (_folder(), "plate", r"plate: a folder without images: give one that has some \(.png, "),
    "folder without images": (
        _folder("a.txt", ".a.png"),
        "plate",
        r"plate: a folder without images, only .txt \(1\), hidden .png \(1\): give one",
    ),
    "folder called png": (
        _folder("x.png/a.txt"),
        "plate/x.png",
        r"plate/x.png: a folder without images, only .txt \(1\): give one",
    ),
    "folder of results": (_folder("a-labels.tif", "a-overlay.png"), "plate", "plate: a folder without images"),
    "pattern": (_folder("a.png"), "plate/*.tif", r"plate/\*.tif: matches no image: check the pattern"),
    "pattern of a folder": (_folder("a.png"), "pl*", r"pl\*: matches no image, only folder \(1\): check the pattern"),
    "same name": (_folder("good.png"), "good.png plate", "plate/good.png: has the name of good.png, .* rename one, or"),
    "other suffix": (_folder("good.tif"), "good.png plate", "plate/good.tif: has the name of good.png"),
    "other case": (_folder("Good.png"), "good.png plate", "plate/Good.png: has the name of good.png"),
    "name of ome": (_folder("good.ome.tif"), "good.png plate", "plate/good.ome.tif: has the name of good.png"),
    "empty name": (_folder(), "''", ": no such file: check the path"),
    "no image": (_folder(), "", "arguments are required: IMAGE; `fsis segment --help` lists the arguments"),
}


@pytest.mark.parametrize(("make", "images", "message"), NONE.values(), ids=NONE)
def test_no_image_or_too_many(fsis, desk, make, images, message):
    make(desk)
    outcome = fsis("segment", *shlex.split(images), *REST.split())
    assert re.search(f"^fsis: error: .*{message}", outcome.error)
    assert outcome.stdout == ""
    assert not (desk / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["x.png", "x.tif", "plate"])
def test_what_must_not_be_read(fsis, desk, name):
    _folder()(desk)
    (desk / "x.png").write_bytes(PNG)
    (desk / "x.tif").write_bytes(TIFF)
    (desk / name).chmod(0)
    error = fsis("segment", name, *REST.split()).error
    (desk / name).chmod(0o700)
    assert error.startswith(f"fsis: error: {name}: cannot be read (Permission denied): ")


BOMBS = {
    "png": ("x.png", png_of_size(100_000, 100_000), "declares 100000x100000 pixels: save it as a tiled TIFF"),
    "jpeg": ("x.jpg", jpeg_of_size(65_535, 65_535), "declares 65535x65535 pixels: save it as a tiled TIFF"),
    "tiff": ("x.tif", tiff_of_size(100_000, 100_000), "truncated TIFF"),
    "tiff in a strip": ("x.tif", tiff_of_size(100_000, 100_000, compression="zlib"), "TIFF|compressed in parts"),
    "tiff in tiles": ("x.tif", tiff_of_size(100_000, 100_000, tile=(32, 32), compression="zlib"), "TIFF .*tiles"),
    "huge tiff": ("x.tif", tiff_of_size(1 << 31, 1 << 31, tile=(32, 32), compression="zlib"), "declares|TIFF"),
}


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="the peak of memory is known on Linux")
@pytest.mark.parametrize(("name", "data", "message"), BOMBS.values(), ids=BOMBS)
def test_a_small_file_that_claims_to_be_huge_takes_no_memory(fsis, desk, name, data, message):
    assert len(data) < 10_000
    (desk / name).write_bytes(data)
    fsis("segment", "good.png", *REST.split())  # what the model takes is not counted
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now
    before = _peak()
    error = fsis("segment", name, *REST.split()).error
    assert _peak() - before < 300 << 20
    assert re.search(f"^fsis: error: {name}: .*{message}", error)


def _peak():
    """Bytes of memory that this process has had at most."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) << 10
