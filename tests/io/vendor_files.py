"""Small files of microscope makers, written byte by byte as their formats have them."""

import struct

import imagecodecs
import numpy as np

# -- Zeiss ----------------------------------------------------------------------------------------------------------

_TYPES = {("u1", 1): 0, ("u2", 1): 1, ("f4", 1): 2, ("u1", 3): 3, ("u2", 3): 4}
_ENCODERS = {
    0: lambda a: a.tobytes(),
    1: lambda a: imagecodecs.jpeg_encode(a, level=100),
    2: lambda a: imagecodecs.lzw_encode(a.tobytes()),
    4: lambda a: imagecodecs.jpegxr_encode(a, level=100),
    5: lambda a: imagecodecs.zstd_encode(a.tobytes()),
    6: lambda a: b"\x03\x01\x01" + imagecodecs.zstd_encode(_packed(a)),
}


def _packed(pixels):
    return pixels.view(np.uint8).reshape(-1, pixels.dtype.itemsize).T.tobytes()


def czi_xml(*, channels=(), scenes=(), metres=None):
    named = "".join(f'<Channel Id="Channel:{i}" Name="{name}"/>' for i, name in enumerate(channels))
    listed = "".join(f'<Scene Index="{i}" Name="{name}"/>' for i, name in enumerate(scenes))
    items = "".join(f'<Distance Id="{axis}"><Value>{metres}</Value></Distance>' for axis in "XY" if metres)
    return (
        f"<ImageDocument><Metadata><Information><Image><Dimensions><Channels>{named}</Channels>"
        f"<S><Scenes>{listed}</Scenes></S></Dimensions></Image></Information>"
        f"<Scaling><Items>{items}</Items></Scaling></Metadata></ImageDocument>"
    )


def write_czi(path, blocks, xml=None):
    """Blocks are (pixels, axes, compression): (h, w) or RGB, with axes as {"X": 10, "Y": 0, "C": 1, "factor": 2}."""
    segments, entries = bytearray(), []
    start = 544  # after the header's segment
    for pixels, axes, compression in blocks:
        axes = {**axes}
        factor = axes.pop("factor", 1)
        samples = 3 if pixels.ndim == 3 else 1
        stored = pixels[..., ::-1] if samples == 3 and compression not in (1, 4) else pixels
        data = _ENCODERS[compression](np.ascontiguousarray(stored))
        sides = {"X": pixels.shape[1], "Y": pixels.shape[0]}
        dimensions = b"".join(
            struct.pack(
                "<4siifi", axis.encode(), first, sides.get(axis, 1) * (factor if axis in sides else 1), 0.0, kept
            )
            for axis, first in axes.items()
            for kept in [sides.get(axis, 0) if factor > 1 else 0]
        )
        position = start + len(segments)
        kind = _TYPES[pixels.dtype.str[1:], samples]
        entry = (
            struct.pack("<2siqiiB5xi", b"DV", kind, position, 0, compression, int(factor > 1), len(axes)) + dimensions
        )
        entries.append(entry)
        content = struct.pack("<iiq", 0, 0, len(data)) + entry
        content = content.ljust(256, b"\0") + data
        segments += _segment(b"ZISRAWSUBBLOCK", content)
    directory = start + len(segments)
    segments += _segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    metadata = start + len(segments) if xml is not None else 0
    if xml is not None:
        segments += _segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(xml.encode()), 0) + xml.encode())
    header = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, b"a" * 16, b"b" * 16, 0, directory, metadata, 0, 0)
    path.write_bytes(_segment(b"ZISRAWFILE", header.ljust(512, b"\0")) + segments)
    return path


def _segment(kind, content):
    return struct.pack("<16sqq", kind, len(content), len(content)) + content


# -- Nikon ----------------------------------------------------------------------------------------------------------


def write_nd2(path, frames, *, loops=(), channels=("a",), micrometres=None, rgb=False, bare=False):
    """Frames (n, H, W, C) uint16, in the order of loops: ("T", 3), ("P", names) or ("Z", 5), the outermost first.

    With `bare` nothing is said of the light, with which the package cannot read what is said of the channels.
    """
    count, height, width, components = frames.shape
    chunks = []

    def chunk(name, data, reserved=0):
        name = name.encode() + b"!"
        length = max(len(name), reserved)
        chunks.append((name, struct.pack("<IIQ", 0x0ABECEDA, length, len(data)) + name.ljust(length, b"\0") + data))

    def variant(name, values):
        chunk(name, f"<variant version='1.0'><no_name>{_xml(values)}</no_name></variant>".encode())

    attributes = {"uiWidth": width, "uiHeight": height, "uiWidthBytes": width * components * 2, "uiComp": components}
    attributes |= {"uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": count, "eCompression": 2}
    variant("ImageAttributes", attributes)
    planes = 1 if rgb else components
    named = {
        f"a{i}": {"sDescription": name, "uiCompCount": 3 if rgb else 1, "uiColor": 255, **({} if bare else _PROBE)}
        for i, name in enumerate(channels)
    }
    picture = {"uiCount": planes, "uiCompCount": components, "sPlaneNew": named}
    meta = {"sPicturePlanes": picture, "dCalibration": micrometres or 0.0, "bCalibrated": micrometres is not None}
    variant("ImageMetadataSeq|0", {**meta, "dTimeMSec": 0.0})
    experiment = None
    for axis, what in reversed(loops):
        experiment = _loop(axis, what, experiment)
    variant("ImageMetadata", experiment or {})
    variant("ImageTextInfo", {})
    for number, frame in enumerate(frames):
        chunk(f"ImageDataSeq|{number}", struct.pack("<d", 0.0) + frame.astype("<u2").tobytes(), reserved=4072)
    signature = b"ND2 FILE SIGNATURE CHUNK NAME01!"
    content = struct.pack("<IIQ", 0x0ABECEDA, 32, 64) + signature + b"Ver2.1".ljust(64, b"\0")
    content = content.ljust(4096, b"\0")
    places = b""
    for name, data in chunks:
        places += name + struct.pack("<QQ", len(content), len(data))
        content += data
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!"
    listed = places + end + struct.pack("<Q", len(content))
    at = len(content)
    content += struct.pack("<IIQ", 0x0ABECEDA, 32, len(listed)) + b"ND2 FILEMAP SIGNATURE NAME 0001!" + listed
    path.write_bytes(content + end + struct.pack("<Q", at))
    return path


_PROBE = {"pFluorescentProbe": {"m_ExcitationSpectrum": {"uiCount": 0}}}


def _loop(axis, what, inner):
    names = what if axis == "P" else ()
    if axis == "P":
        points = {f"a{i}": {"dPosX": float(i), "dPosY": 0.0, "dPosZ": 0.0, "pPosName": n} for i, n in enumerate(names)}
        kind, values = 2, {"uiCount": len(names), "Points": points}
    elif axis == "Z":
        kind, values = 4, {"uiCount": what, "dZLow": 0.0, "dZHigh": 1.0, "dZStep": 1.0}
    else:
        kind, values = 1, {"uiCount": what, "dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0}
    deeper = {} if inner is None else {"ppNextLevelEx": {"a0": inner}}
    return {"eType": kind, "uLoopPars": values, **deeper}


_RUNTYPES = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}


def _xml(values):
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            parts.append(f'<{name} runtype="CLxListVariant">{_xml(value)}</{name}>')
        else:
            text = str(value).lower() if isinstance(value, bool) else value
            parts.append(f'<{name} runtype="{_RUNTYPES[type(value)]}" value="{text}"/>')
    return "".join(parts)


# -- Leica ----------------------------------------------------------------------------------------------------------

_DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4, "M": 10}


def write_lif(path, images, *, metres=1e-6):
    """Images by their names, with axes: {"a": (pixels, "TCZYX")} or "YXS"; C is outside of the planes, S inside."""
    elements, blocks = [], []
    for number, (name, (pixels, axes)) in enumerate(images.items()):
        strides = dict(zip(axes, np.ascontiguousarray(pixels).strides, strict=True))
        sizes = dict(zip(axes, pixels.shape, strict=True))
        letter = "S" if "S" in axes else "C"
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="{tag}" Resolution="{pixels.itemsize * 8}" '
            f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="Gray" IsLUTInverted="0" '
            f'BytesInc="{i * strides.get(letter, 0)}" BitInc="0"/>'
            for i in range(sizes.get(letter, 1))
            for tag in [i + 1 if letter == "S" else 0]
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{_DIMENSIONS[axis]}" NumberOfElements="{sizes[axis]}" Origin="0" '
            f'Length="{(sizes[axis] - 1) * metres}" Unit="m" BitInc="0" BytesInc="{strides[axis]}"/>'
            for axis in axes
            if axis not in "CS"
        )
        elements.append(
            f'<Element Name="{name}" Visibility="1"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
            f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        blocks.append((f"MemBlock_{number}", np.ascontiguousarray(pixels).tobytes()))
    header = (
        '<LMSDataContainerHeader Version="2"><Element Name="all" Visibility="1"><Data><Experiment/></Data>'
        f"<Memory Size='0' MemoryBlockID='MemBlock_x'/><Children>{''.join(elements)}</Children></Element>"
        "</LMSDataContainerHeader>"
    )
    text = header.encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(header)) + text
    for name, data in [("MemBlock_x", b""), *blocks]:
        label = name.encode("utf-16-le")
        content += struct.pack("<IIBQBI", 0x70, 14 + len(label), 0x2A, len(data), 0x2A, len(name)) + label + data
    path.write_bytes(content)
    return path


# -- Imaris ---------------------------------------------------------------------------------------------------------


def write_ims(path, pixels, *, channels=(), micrometres=0.5, levels=1):
    """Pixels (T, C, Z, Y, X), with chunks larger than the image, as Imaris writes them."""
    import h5py

    def text(value):
        return np.array([c.encode() for c in str(value)], "S1")

    with h5py.File(path, "w") as file:
        info = file.create_group("DataSetInfo/Image").attrs
        for axis, letter in enumerate("XYZ"):
            info[f"ExtMin{axis}"], info[letter] = text("0"), text(pixels.shape[4 - axis])
            info[f"ExtMax{axis}"] = text(pixels.shape[4 - axis] * micrometres)
        info["Unit"] = text("um")
        for number, name in enumerate(channels):
            file.create_group(f"DataSetInfo/Channel {number}").attrs["Name"] = text(name)
        for level in range(levels):
            coarse = pixels[..., :: 2**level, :: 2**level]
            for t, c in np.ndindex(*coarse.shape[:2]):
                group = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint {t}/Channel {c}")
                for axis, size in zip("ZYX", coarse.shape[2:], strict=True):
                    group.attrs[f"ImageSize{axis}"] = text(size)
                padded = np.pad(coarse[t, c], [(0, 0), (0, 5), (0, 3)])
                group.create_dataset("Data", data=padded, chunks=(1, 16, 16), compression="gzip")
    return path
