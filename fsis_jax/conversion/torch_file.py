"""Files of torch.save and Python pickles of arrays, read without PyTorch and without running what is in them.

Three formats: the zip archive of PyTorch >= 1.6 (a pickle and one member for each storage), the one before it (five
pickles, then the storages), which most published detectors are in, and a plain pickle (Detectron's .pkl). The
suffix tells nothing; the content decides. `unpickle` says what a file may contain.

Arrays are read-only views of the file, which is mapped into memory: nothing is copied until it is used.
"""

import io
import mmap
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from fsis_jax.conversion.stand_ins import RefusedError, Storage, sequence
from fsis_jax.conversion.unpickle import load
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import open_file
from fsis_jax.io.damage import is_of_data

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file of PyTorch before 1.6."""
_PROTOCOL = 1001
_AGAIN = "download or copy it again"
_NOT_WEIGHTS = {
    b"<": f"a web page, not weights; {_AGAIN}, with the link of the file itself",
    b"version https://git-lfs": "a Git LFS pointer, not weights; fetch the file itself with `git lfs pull`",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"\x89HDF": "an HDF5 file; give a .pth of PyTorch or a .pkl of Detectron",
}
_PICKLE_STARTS = b"\x80(}]cl"


def read_file(path: pathlib.Path) -> Any:
    """What torch.save or pickle.dump wrote: dictionaries, lists, tuples, numbers, text and numpy arrays.

    Tensors are numpy arrays, bfloat16 ones of JAX's dtype of that name.

    Raises:
        FsisError: no such file; a file of another kind, damaged or cut off; a pickle that asks for anything but
            containers and arrays.
    """
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FsisError(f"{path}: the file is empty; {_AGAIN}")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise FsisError(f"{path}: cannot be read ({error.strerror}); give a weights file") from error
    _check_start(path, content)
    try:
        if content[:4] == b"PK\x03\x04":
            return _read_zip(path, content)
        return _read_pickles(content)
    except FsisError:
        raise
    except RefusedError as error:
        name = ascii(str(error)[:100])
        raise FsisError(
            f"{path}: refused, because loading it would run {name}; weights need arrays and plain containers only: "
            "do not use this file unless you trust its author, and then save only its tensors again"
        ) from error
    except Exception as error:
        if not is_of_data(error):
            raise
        reason = ascii(" ".join(str(error).split())[:200])[1:-1]
        raise FsisError(f"{path}: damaged or cut off ({type(error).__name__}: {reason}); {_AGAIN}") from error


def _check_start(path: pathlib.Path, content: mmap.mmap) -> None:
    start = bytes(content[:512])
    for magic, reason in _NOT_WEIGHTS.items():
        if start.lstrip().startswith(magic):
            raise FsisError(f"{path}: {reason}")
    if start[257:262] == b"ustar":
        raise FsisError(f"{path}: a tar archive; unpack it, or, if PyTorch 0.1 wrote it, save it with a newer one")
    if not start.startswith(b"PK\x03\x04") and start[0] not in _PICKLE_STARTS:
        raise FsisError(f"{path}: neither a file of torch.save nor a pickle (it starts with {ascii(start[:8])[1:]})")


# -- the zip archive ----------------------------------------------------------------------------------------------


def _read_zip(path: pathlib.Path, content: mmap.mmap) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise FsisError(f"{path}: a zip archive without the data.pkl of torch.save; give a .pth or .pkl file")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise FsisError(f"{path}: a TorchScript program, not weights; save the state_dict of the model instead")
        order = members.get(f"{folder}byteorder")
        byte_order = ">" if order is not None and bytes(_member(content, order)) == b"big" else "<"
        program = _member(content, members[pickles[0]])
        storages: dict[str, Storage] = {}

        def storage_of(identity: tuple[Any, ...]) -> Storage:
            _, dtype, key, _, size = identity[:5]
            key = _as_text(key)
            if key not in storages:
                values = _member(content, members[f"{folder}data/{key}"])
                storages[key] = _storage(values, dtype, size, byte_order)
            return storages[key]

        return load(io.BytesIO(program.tobytes()), storage_of)


def _member(content: mmap.mmap, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member, in place; torch.save compresses nothing."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{info.filename} is compressed or encrypted, which torch.save never does")
    header = content[info.header_offset : info.header_offset + 30]
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return _slice(content, info.header_offset + 30 + names, info.file_size)


# -- pickles ------------------------------------------------------------------------------------------------------


def _read_pickles(content: mmap.mmap) -> Any:
    first = load(content)
    if type(first) is not int or first != _MAGIC:
        return first
    protocol, system = load(content), load(content)
    if protocol != _PROTOCOL:
        raise ValueError(f"version {protocol} of PyTorch's format")
    if type(system) is not dict:
        raise ValueError("no description of the system that wrote it")
    byte_order = "<" if system["little_endian"] else ">"
    # The storages come last, and where each of them lies is known once the sizes of all are: read twice.
    structure = content.tell()
    storages: dict[str, Storage] = {}

    def declare(identity: tuple[Any, ...]) -> Storage:
        _, dtype, key, _, size = identity[:5]
        if type(size) is not int or size < 0:
            raise ValueError("the size of a storage")
        return storages.setdefault(_as_text(key), Storage(_with_order(dtype, byte_order), size, None))

    load(content, lambda identity: _view(declare(identity), identity))
    keys = [_as_text(key) for key in sequence(load(content))]
    position = content.tell()
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(bytes(_slice(content, position, 8)), "little" if byte_order == "<" else "big")
        values = _slice(content, position + 8, size * storage.dtype.itemsize)
        storages[key] = _storage(values, storage.dtype, storage.size, byte_order)
        position += 8 + values.nbytes
    if absent := [key for key, storage in storages.items() if storage.values is None]:
        raise ValueError(f"storage {absent[0]} is not in the file")
    content.seek(structure)
    return load(content, lambda identity: _view(declare(identity), identity))


def _view(storage: Storage, identity: tuple[Any, ...]) -> Storage:
    """The part of a storage that the sixth item of an old identity, (key, offset, size), names."""
    part = identity[5] if len(identity) > 5 else None
    if part is None:
        return storage
    _, offset, size = sequence(part)
    if not (type(offset) is int and type(size) is int):
        raise ValueError("a part of a storage without a size")
    if not 0 <= offset <= offset + size <= storage.size:
        raise ValueError("a part of a storage reaches over its end")
    values = None if storage.values is None else storage.values[offset : offset + size]
    return Storage(storage.dtype, size, values)


# -- both ---------------------------------------------------------------------------------------------------------


def _storage(values: np.ndarray, dtype: Any, size: Any, byte_order: str) -> Storage:
    dtype = _with_order(dtype, byte_order)
    if type(size) is not int or values.nbytes != size * dtype.itemsize:
        raise ValueError(f"a storage of {values.nbytes} bytes is said to have {size} elements of {dtype}")
    return Storage(dtype, size, values.view(dtype))


def _with_order(dtype: Any, byte_order: str) -> np.dtype:
    if not isinstance(dtype, np.dtype):
        raise ValueError("a storage of an unknown type")
    if byte_order == "<" or dtype.itemsize == 1:
        return dtype
    if dtype.kind == "V":
        raise ValueError("bfloat16 of a big-endian machine")
    return dtype.newbyteorder(">")


def _slice(content: mmap.mmap, start: int, size: int) -> np.ndarray:
    if not 0 <= start <= start + size <= len(content):
        raise ValueError(f"bytes {start} to {start + size} of a file of {len(content)}")
    return np.frombuffer(content, np.uint8)[start : start + size]


def _as_text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
