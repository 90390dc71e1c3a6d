"""A pickle reader that runs nothing: it admits numbers, text, plain containers, numpy arrays and PyTorch tensors.

A pickle is a program that may call anything importable. This reader looks every name that a file asks for up in a table
of functions of ours (`stand_ins`); any other name is refused before something is called.

Strings of Python 2 come as bytes; the keys of mappings always as text; sets as lists.
"""

import inspect
import pickle
import types
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

import numpy as np

from fsis_jax.conversion.stand_ins import ADMITTED, DType, RefusedError, Storage, as_text, plain_key, set_array


class ByteFile(Protocol):
    """What is read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        ...

    def readline(self) -> bytes:
        """Up to and with the next line feed."""
        ...


StorageOf = Callable[[tuple[Any, ...]], Storage]
"""Storage of a persistent id, whose first item is "storage" and whose second is the dtype."""


def load(file: ByteFile, storage_of: StorageOf | None = None) -> Any:
    """The next pickle of `file`, which is left behind its end.

    Raises:
        RefusedError: for a name that is not admitted.
        Exception: of any type, for a file that is damaged.
    """
    return _Reader(file, storage_of).load()


_NAMES = """
    MARK STOP POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES
    BINBYTES8 EMPTY_LIST APPEND APPENDS LIST EMPTY_DICT EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 PROTO FRAME GLOBAL
    STACK_GLOBAL INST PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET BINPERSID
"""
_OPCODES = [getattr(pickle, name)[0] for name in _NAMES.split()]


class _Operations(dict[int, Any]):
    """Opcode -> what it does; an error that names it for one that is not admitted."""

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"operation {code:#x}, which plain data do not need")


class _Reader(pickle._Unpickler):
    """The standard library's reader in Python, without the operations that make objects, and with those checked that
    call functions or fill what was made before."""

    dispatch: ClassVar[Any] = _Operations((code, pickle._Unpickler.dispatch[code]) for code in _OPCODES)
    stack: list[Any]

    def __init__(self, file: ByteFile, storage_of: StorageOf | None) -> None:
        super().__init__(file, encoding="bytes")
        self._storage_of = storage_of

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise RefusedError(f"{module}.{name}")
        return ADMITTED[module, name]

    def persistent_load(self, identity: Any) -> Storage:
        if self._storage_of is None or type(identity) is not tuple or as_text(identity[0]) != "storage":
            raise pickle.UnpicklingError("a reference that is not to a storage")
        return self._storage_of(identity)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, types.FunctionType) or type(arguments) is not tuple:
            raise pickle.UnpicklingError("a call of what is not a function")
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as error:
            raise pickle.UnpicklingError(f"a call that does not fit: {error}") from error
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, DType):
            target.set_state(state)
        elif type(target) is np.ndarray and target.size == 0 and target.flags.writeable:
            set_array(target, state)
        elif type(target) is not dict:  # the attributes of an OrderedDict, such as _metadata, are not needed
            raise pickle.UnpicklingError("a state for what has none")

    def _fill(self, items: Iterable[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise pickle.UnpicklingError("items for what is no mapping")
        for key, value in items:
            target[plain_key(key)] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([(key, value)])

    def _set_items(self) -> None:
        items: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        self._fill(zip(items[::2], items[1::2], strict=True))

    def _dict(self) -> None:
        items: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        self.stack.append({})
        self._fill(zip(items[::2], items[1::2], strict=True))

    def _bytearray(self) -> None:
        # The standard library's makes room for as many bytes as the file claims to have.
        size = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        self.stack.append(self.read(size))  # type: ignore[attr-defined]

    dispatch |= {
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.BYTEARRAY8[0]: _bytearray,
        # Sets become lists: to hash what is in them may take for ever.
        pickle.EMPTY_SET[0]: pickle._Unpickler.dispatch[pickle.EMPTY_LIST[0]],
        pickle.ADDITEMS[0]: pickle._Unpickler.dispatch[pickle.APPENDS[0]],
        pickle.FROZENSET[0]: pickle._Unpickler.dispatch[pickle.LIST[0]],
    }
