"""A file that `torch.load(path, weights_only=True)` reads, written without PyTorch: the zip format of PyTorch >= 1.6.

`data.pkl` is a pickle, put together here operation by operation, in which every array stands as a call of
torch._utils._rebuild_tensor_v2 on a storage; the storages are the members `data/0`, `data/1` ... of the archive,
little-endian and uncompressed.
"""

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from fsis_jax.conversion.stand_ins import STORAGES
from fsis_jax.io.atomic import atomic_write

_FOLDER = "archive"
_STORAGE_OF = {dtype: name for name, dtype in STORAGES.items()}


def write_file(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content`, in which arrays become tensors.

    Args:
        content: mappings, lists, numpy arrays of PyTorch's dtypes, text, int, float, bool and None, nested at will.

    Raises:
        FsisError: the file cannot be written; it is then as before.
    """
    arrays: list[np.ndarray] = []
    program = pickle.PROTO + b"\x02" + _program(content, arrays) + pickle.STOP
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{_FOLDER}/data.pkl"), program)
        archive.writestr(zipfile.ZipInfo(f"{_FOLDER}/byteorder"), "little")
        for key, array in enumerate(arrays):
            with archive.open(zipfile.ZipInfo(f"{_FOLDER}/data/{key}"), "w", force_zip64=True) as member:
                member.write(array.reshape(-1).view(np.uint8).data)
        archive.writestr(zipfile.ZipInfo(f"{_FOLDER}/version"), "3\n")


def _program(value: Any, arrays: list[np.ndarray]) -> bytes:
    """The operations that push `value` on the stack; the arrays in it are appended to `arrays`."""
    if isinstance(value, Mapping):
        items = b"".join(_program(key, arrays) + _program(item, arrays) for key, item in value.items())
        return _call("collections", "OrderedDict") + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + b"".join(_program(item, arrays) for item in value) + pickle.APPENDS
    if isinstance(value, np.ndarray):
        return _tensor(value, arrays)
    if isinstance(value, str):
        text = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, int):
        number = pickle.encode_long(value)
        return pickle.LONG1 + bytes([len(number)]) + number
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if value is None:
        return pickle.NONE
    raise TypeError(f"cannot write a value of type {type(value).__name__}")


def _tensor(value: np.ndarray, arrays: list[np.ndarray]) -> bytes:
    array = np.ascontiguousarray(value).reshape(value.shape)
    key = str(len(arrays))
    arrays.append(array)
    strides = [stride // array.itemsize for stride in array.strides]
    storage = (
        pickle.MARK
        + _program("storage", arrays)
        + _global("torch", _STORAGE_OF[array.dtype])
        + _program(key, arrays)
        + _program("cpu", arrays)
        + _program(array.size, arrays)
        + pickle.TUPLE
        + pickle.BINPERSID
    )
    arguments = (
        storage
        + _program(0, arrays)
        + _tuple(array.shape, arrays)
        + _tuple(strides, arrays)
        + pickle.NEWFALSE  # requires no gradient
        + _call("collections", "OrderedDict")  # has no hooks
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE


def _tuple(values: Any, arrays: list[np.ndarray]) -> bytes:
    return pickle.MARK + b"".join(_program(int(value), arrays) for value in values) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _call(module: str, name: str) -> bytes:
    """A call without arguments."""
    return _global(module, name) + pickle.EMPTY_TUPLE + pickle.REDUCE
