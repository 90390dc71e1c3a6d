"""Files as PyTorch and Python 2 write them, made by hand: for tests without either, and of files that are damaged."""

import pickle
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
_SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def legacy(program, storages=()):
    """The format before PyTorch 1.6: `program` is a pickle, `storages` [(key, array)]."""
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, _SYSTEM)]
    parts += [program, pickle.dumps([key for key, _ in storages], 2)]
    parts += [np.int64(array.size).tobytes() + array.tobytes() for _, array in storages]
    return b"".join(parts)


def write_zip(path, program, storages=(), *, compression=zipfile.ZIP_STORED, folder="archive"):
    """The format since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", program)
        for key, array in storages:
            archive.writestr(f"{folder}/data/{key}", array.tobytes())
        archive.writestr(f"{folder}/version", "3\n")


def tensor(*, size=6, offset=0, shape=(2, 3), strides=(3, 1), key="0", storage="FloatStorage"):
    """A pickle of one tensor."""

    def whole(values):
        return b"(" + b"".join(pickle.LONG1 + bytes([9]) + value.to_bytes(9, "little") for value in values) + b"t"

    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        + f"ctorch\n{storage}\n".encode()
        + b"X" + len(key).to_bytes(4, "little") + key.encode()
        + b"X\x03\x00\x00\x00cpu"
        + whole([size])[1:-1] + b"tQ"
        + whole([offset])[1:-1] + whole(shape) + whole(strides)
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


def python2_array(values, protocol):
    """A float32 array as Python 2 pickles it (without the final STOP)."""
    shape = b"(" + b"".join(b"I%d\n" % side for side in values.shape) + b"t"
    data = values.astype("<f4").tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + _python2_text(b"b", protocol)
        + b"tR(I1\n" + shape
        + b"cnumpy\ndtype\n(" + _python2_text(b"f4", protocol) + b"I0\nI1\ntR(I3\n" + _python2_text(b"<", protocol)
        + b"NNNI-1\nI-1\nI0\ntb"
        + b"I00\n" + _python2_text(data, protocol) + b"tb"
    )  # fmt: skip


def python2_dict(items, protocol):
    """A dictionary as Python 2 pickles it, {text: array or dictionary}, with the final STOP."""
    return (b"\x80\x02" if protocol == 2 else b"") + _python2_items(items, protocol) + b"."


def _python2_items(items, protocol):
    program = b"(d"
    for name, value in items.items():
        program += _python2_text(name.encode(), protocol)
        if isinstance(value, dict):
            program += _python2_items(value, protocol)
        elif isinstance(value, bytes):
            program += _python2_text(value, protocol)
        else:
            program += python2_array(value, protocol)
        program += b"s"
    return program


def _python2_text(text, protocol):
    if protocol == 0:
        return b"S'" + "".join(f"\\x{byte:02x}" for byte in text).encode() + b"'\n"
    return b"T" + len(text).to_bytes(4, "little") + text
