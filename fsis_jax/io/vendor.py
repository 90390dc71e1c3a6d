"""Files of microscope makers that a package of the extra `vendor` reads: .nd2 of Nikon, .lif of Leica, .ims of Imaris.

Whole frames of .nd2 and .lif are read when a window of them is sliced, and kept for a while; of .ims the chunks that a
window touches. Positions, and images of a .lif, are series.
"""

import contextlib
import importlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.io.chunks import ChunkCache, Chunks, check_chunk
from fsis_jax.io.damage import damage_in
from fsis_jax.io.image_file import ImageFile, Plane, check_size
from fsis_jax.io.pixel_size import micrometres
from fsis_jax.io.planes import Choice, Listed, Wanted, choose_plane, choose_series

_PACKAGES = {".nd2": "nd2", ".lif": "liffile", ".ims": "h5py"}
VENDOR_SUFFIXES = tuple(_PACKAGES)


def open_vendor(name: str, wanted: Wanted) -> ImageFile:
    """Open a file with one of `VENDOR_SUFFIXES`.

    Raises:
        FsisError: the extra is not installed; a damaged file, no such image or plane, or several of which none was
            chosen.
    """
    suffix = pathlib.PurePath(name).suffix.lower()
    package = _PACKAGES[suffix]
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        remedy = 'pip install "fsis_jax[vendor]", or export it as OME-TIFF'
        raise FsisError(f"{name}: {suffix} files need the package {package}: {remedy}") from error
    opener = {".nd2": _open_nd2, ".lif": _open_lif, ".ims": _open_ims}[suffix]
    with damage_in(name, f"truncated or damaged {suffix}"), contextlib.ExitStack() as stack:
        image = opener(library, name, wanted, stack)
        image.on_close(stack.pop_all().close)
        return image


def _open_nd2(library: Any, name: str, wanted: Wanted, stack: contextlib.ExitStack) -> ImageFile:
    file = stack.enter_context(library.ND2File(name))
    sizes = dict(file.sizes)
    channels, samples = sizes.get("C", 1), sizes.get("S", 1)
    size = file.attributes.heightPx, file.attributes.widthPx
    check_size(name, *size)
    check_chunk(name, (channels, *size, samples), file.dtype.itemsize)
    loops = [axis for axis in sizes if axis not in "CYXSP"]
    letters = _letters(loops)
    axes = f"{letters}CYX{'S' * (samples > 1)}"
    shape = (*(sizes[axis] for axis in loops), channels, *size, *([samples] if samples > 1 else []))
    points = [loop.parameters.points for loop in file.experiment if loop.type == "XYPosLoop"]
    names = [point.name or "" for point in points[0]] if points else []
    count = sizes.get("P", 1)
    listed = [Listed(names[i] if len(names) == count else "", axes, shape) for i in range(count)]
    position = choose_series(name, listed, wanted)
    metadata = _told_channels(file)
    labels = [channel.channel.name or "" for channel in metadata]
    choice = choose_plane(name, axes, shape, wanted, labels if len(labels) == channels else ())
    place = {**dict(zip(loops, choice.index, strict=False)), "P": position}
    loop_indices = file.loop_indices
    frames = [i for i, at in enumerate(loop_indices) if all(at.get(k, 0) == v for k, v in place.items())]
    frame = frames[0] if loop_indices else 0

    def read() -> np.ndarray:
        pixels = file.read_frame(frame).reshape(channels, *size, samples)
        return _picked(pixels, choice.index[axes.index("C")], samples)

    across = down = None
    if metadata and all(metadata[0].volume.axesCalibrated[:2]):
        across, down = metadata[0].volume.axesCalibration[:2]
    return _frame(name, size, file.dtype, read, choice, axes, samples, micrometres(across, down, "µm"))


def _told_channels(file: Any) -> Sequence[Any]:
    """What is said of the channels of a .nd2."""
    try:
        return file.metadata.channels or ()
    except NameError:  # a fault of nd2 0.12 where nothing is said of the light
        return ()


def _open_lif(library: Any, name: str, wanted: Wanted, stack: contextlib.ExitStack) -> ImageFile:
    file = stack.enter_context(library.LifFile(name))
    images = [image for image in file.images if not image.is_flim and {"Y", "X"} <= {*image.sizes}]
    if not images:
        raise FsisError(f"{name}: no image with X and Y in it: export one as OME-TIFF")
    listed = []
    for image in images:
        loops = [axis for axis in image.sizes if axis not in "YXSC"]
        samples = image.sizes.get("S", 1)
        colours = [samples] if samples > 1 else []
        shape = (*(image.sizes[axis] for axis in (*loops, *"C" * ("C" in image.sizes), "Y", "X")), *colours)
        listed.append(Listed(image.path, f"{_letters(loops)}{'C' * ('C' in image.sizes)}YX{'S' * len(colours)}", shape))
    number = choose_series(name, listed, wanted)
    image, axes, shape = images[number], listed[number].axes, listed[number].shape
    loops = [axis for axis in image.sizes if axis not in "YXSC"]
    samples, channels = image.sizes.get("S", 1), image.sizes.get("C", 1)
    size = image.sizes["Y"], image.sizes["X"]
    check_size(name, *size)
    check_chunk(name, (*size, samples), image.dtype.itemsize)
    if {*image.frames.frame_dims} - {"S"} != {"Y", "X"}:
        raise FsisError(f"{name}: frames of {''.join(image.frames.frame_dims)}, not of Y and X: export it as OME-TIFF")
    choice = choose_plane(name, axes, shape, wanted)
    place = dict(zip(loops, choice.index, strict=False))
    channel = choice.index[axes.index("C")] if "C" in axes else 0

    def read() -> np.ndarray:
        numbers = range(channels) if channel is None else [channel]
        frames = [image.frame(**place, **({"C": c} if "C" in axes else {})) for c in numbers]
        pixels = np.stack([frame.reshape(*size, samples) for frame in frames])
        return _picked(pixels, None if channel is None else 0, samples)

    steps = {axis: np.diff(image.coords[axis][:2]) for axis in "YX" if axis in image.coords}
    across, down = (abs(float(steps[axis][0])) if axis in steps and len(steps[axis]) else None for axis in "XY")
    return _frame(name, size, image.dtype, read, choice, axes, samples, micrometres(across, down, "m"))


def _open_ims(library: Any, name: str, wanted: Wanted, stack: contextlib.ExitStack) -> ImageFile:
    file = stack.enter_context(library.File(name, "r"))
    info = file["DataSetInfo/Image"].attrs
    levels = [file["DataSet"][f"ResolutionLevel {i}"] for i in range(len(file["DataSet"]))]
    times = len(levels[0])
    channels = len(levels[0]["TimePoint 0"])

    def sides(level: Any) -> tuple[int, int, int]:
        attributes = level["TimePoint 0/Channel 0"].attrs
        z, y, x = (int(_text(attributes[f"ImageSize{axis}"])) for axis in "ZYX")
        return z, y, x

    depth, *size = sides(levels[0])
    shape = (times, depth, channels, *size)
    choose_series(name, [Listed("", "TZCYX", shape)], wanted)
    labels = [_text(file.get(f"DataSetInfo/Channel {i}", file).attrs.get("Name", b"")) for i in range(channels)]
    choice = choose_plane(name, "TZCYX", shape, wanted, labels if any(labels) else ())
    time, z, channel = choice.index[:3]
    planes = []
    for level in levels:
        deep, *plane_size = sides(level)
        if deep != depth:  # coarser in Z, too: other planes
            break
        numbers = range(channels) if channel is None else [channel]
        arrays = [level[f"TimePoint {time}/Channel {c}/Data"] for c in numbers]
        for array in arrays:
            if array.ndim != 3 or any(a < b for a, b in zip(array.shape, (deep, *plane_size), strict=True)):
                raise ValueError(f"data of shape {array.shape} for {deep} x {plane_size[0]} x {plane_size[1]}")
            check_chunk(name, array.chunks or (1,), array.dtype.itemsize)
        planes.append(_slices_of(name, arrays, z or 0, (plane_size[0], plane_size[1])))
    steps = [(float(_text(info[f"ExtMax{i}"])) - float(_text(info[f"ExtMin{i}"]))) / size[1 - i] for i in (0, 1)]
    unit = _text(info["Unit"]) if "Unit" in info else "um"
    return ImageFile(name, planes, micrometres(steps[0], steps[1], unit))


def _slices_of(name: str, arrays: Sequence[Any], z: int, size: tuple[int, int]) -> Plane:
    """A plane of one channel of HDF5, or of three as colours."""

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        parts = [array[z, top:bottom, left:right] for array in arrays]
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)

    return Plane(name, size if len(arrays) == 1 else (*size, len(arrays)), arrays[0].dtype, read)


def _text(value: Any) -> str:
    """Imaris writes texts as arrays of single bytes."""
    return (value if isinstance(value, bytes) else np.asarray(value).tobytes()).decode("latin-1").strip(" \0")


def _letters(axes: Sequence[str]) -> str:
    """A capital letter for each axis of pages: its own, where it has one that is free."""
    letters: list[str] = []
    for axis in axes:
        free = (letter for letter in "QABDEFGHIJKLMNOPRUVW" if letter not in {*letters, *axes})
        letters.append(axis if axis in "ABDEFGHIJKLMNOPQRTUVWZ" else next(free))
    return "".join(letters)


def _picked(pixels: np.ndarray, channel: int | None, samples: int) -> np.ndarray:
    """(H, W) or (H, W, S) of (C, H, W, S); (H, W, C) where the channels are colours."""
    if channel is None:
        return np.ascontiguousarray(np.moveaxis(pixels[..., 0], 0, -1))
    return pixels[channel] if samples > 1 else pixels[channel, ..., 0]


def _frame(
    name: str,
    size: tuple[int, int],
    dtype: np.dtype,
    read: Callable[[], np.ndarray],
    choice: Choice,
    axes: str,
    samples: int,
    pixel_size: float | None,
) -> ImageFile:
    """An image whose plane is read as a whole when a part of it is asked for."""
    composed = "C" in axes and choice.index[axes.index("C")] is None
    shape = (*size, samples) if samples > 1 else (*size, 3) if composed else size
    plane = Plane(name, shape, dtype, Chunks(shape, dtype, size, lambda row, column: read(), ChunkCache()))
    return ImageFile(name, [plane if choice.sample is None else plane.sample(choice.sample)], pixel_size)
