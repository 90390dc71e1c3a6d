"""What stands for the functions that a pickle of weights may call: they only build arrays out of bytes that are in it.

Sizes are held against the bytes that are there, mappings have plain keys only, and nothing of numpy or PyTorch is
called with values from the file unchecked. Anything that does not fit raises pickle.UnpicklingError.
"""

import dataclasses
import math
import pickle
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""Element types of PyTorch's typed storages."""


class RefusedError(Exception):
    """The file asks for a name that is not admitted; the message is that name."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """The one-dimensional memory that tensors are views of."""

    dtype: np.dtype
    size: int
    """Number of elements."""
    values: np.ndarray | None
    """(size,); None while only the structure is read."""


class DType:
    """A numpy.dtype while it is read: its byte order comes after it."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[<>=|]?(\?|b1|[iu][1248]|f[248])", name):
            raise RefusedError(f"numpy.dtype({name[:20]!r})")
        self._name = name.lstrip("<>=|")
        self._order = name[0]

    def set_state(self, state: Any) -> None:
        """Take the byte order out of (version, byte order, ...)."""
        order = as_text(sequence(state, 2)[1])
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("byte order of a dtype")
        self._order = order

    @property
    def dtype(self) -> np.dtype:
        """What was read."""
        dtype = np.dtype(self._name)
        return dtype.newbyteorder(">") if self._order == ">" else dtype


def _dtype(name: Any, align: Any = False, copy: Any = False) -> DType:
    return DType(as_text(name))


def _array(kind: Any, shape: Any, typecode: Any) -> np.ndarray:
    """numpy's _reconstruct: an empty array that `_set_array` fills."""
    return np.zeros(0, np.int8)


def set_array(array: np.ndarray, state: Any) -> None:
    """Fill `array`, which `_array` made, from (version, shape, dtype, fortran order, bytes)."""
    shape, kind, fortran, data = sequence(state, 4)[-4:]
    dtype = _dtype_of(kind)
    if type(data) is not bytes:
        raise pickle.UnpicklingError("state of an array")
    if _elements(shape) * dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of {len(data)} bytes has the shape of another size")
    array.__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _array_of_buffer(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """numpy's _frombuffer."""
    array = _array(None, None, None)
    set_array(array, (tuple(sequence(shape)), kind, order == "F", data))
    return array


def _scalar(kind: Any, data: Any) -> Any:
    dtype = _dtype_of(kind)
    if type(data) is not bytes or len(data) != dtype.itemsize:
        raise pickle.UnpicklingError("a number of another size")
    return np.frombuffer(data, dtype)[0]


def _dtype_of(kind: Any) -> np.dtype:
    if not isinstance(kind, DType):
        raise pickle.UnpicklingError("an array without a dtype")
    return kind.dtype


def _encoded(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in old protocols."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin-1")


def _bytes(value: Any = b"", encoding: Any = "latin-1") -> bytes:
    """How Python 3 writes bytes that are empty, and bytearrays."""
    if type(value) is bytes:
        return value
    return _encoded(value, encoding)


def _mapping(items: Any = ()) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in map(sequence, sequence(items)):
        result[plain_key(key)] = value
    return result


def _list(items: Any = ()) -> list[Any]:
    return list(items) if isinstance(items, (list, tuple)) else []


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(_list(items))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray | None:
    """A read-only view of a storage, in elements; None while only the structure is read."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    count = _elements(shape)
    last = _count(offset) + sum(
        (_count(n) - 1) * _count(stride) for n, stride in zip(shape, sequence(strides), strict=True)
    )
    if count > storage.size or (count and last >= storage.size):
        raise pickle.UnpicklingError(f"a tensor reaches over the end of its storage of {storage.size} elements")
    if storage.values is None:
        return None
    if count == 0:
        return np.zeros(shape, storage.dtype)
    steps = [stride * storage.values.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage.values[offset:], shape, steps, writeable=False)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def sequence(value: Any, least: int = 0) -> list[Any] | tuple[Any, ...]:
    """A list or tuple of at least so many items."""
    if not isinstance(value, (list, tuple)) or len(value) < least:
        raise pickle.UnpicklingError("a list expected")
    return value


def _elements(shape: Any) -> int:
    """Number of elements of an array of this shape."""
    if type(shape) is not tuple or len(shape) > 32:
        raise pickle.UnpicklingError("a shape is not a short tuple")
    return math.prod(map(_count, shape))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise pickle.UnpicklingError("a size or stride is not a whole number")
    return value


def plain_key(key: Any) -> Any:
    """A key of a mapping; containers are not admitted, since to hash a deep one may take for ever."""
    if type(key) is bytes:
        return key.decode("latin-1")
    if key is None or type(key) in (str, int, float, bool):
        return key
    raise pickle.UnpicklingError(f"a mapping with a key of type {type(key).__name__}")


def as_text(value: Any) -> str:
    """Text, which comes from Python 2 as bytes."""
    if type(value) is bytes:
        return value.decode("latin-1")
    if type(value) is not str:
        raise pickle.UnpicklingError("text expected")
    return value


_NUMPY = {
    ("multiarray", "_reconstruct"): _array,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _array_of_buffer,
}
ADMITTED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _mapping,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,  # only ever an argument
    **{(f"numpy.{core}.{module}", name): f for core in ("core", "_core") for (module, name), f in _NUMPY.items()},
    **{(module, name): _list for module in ("builtins", "__builtin__") for name in ("list", "set", "frozenset")},
    **{(module, name): _bytes for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    **{(module, "tuple"): _tuple for module in ("builtins", "__builtin__")},
    **{(module, "dict"): _mapping for module in ("builtins", "__builtin__")},
    ("torch", "Size"): _tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{(module, name): dtype for module in ("torch", "torch.cuda") for name, dtype in STORAGES.items()},
}
