"""Files that would run code when loaded are refused before anything runs, in every format; bombs do not go off."""

import pickle
import sys
import threading
import time

import numpy as np
import pytest
import torch_bytes

from fsis_jax.conversion.torch_file import read_file
from fsis_jax.errors import FsisError

ran: list[object] = []


def trap(*arguments):
    """What the files try to call."""
    ran.append(arguments)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _named(text, arguments=b"(t"):
    """A pickle that calls what it names as text: "module name"."""
    return b"\x80\x02c" + text.replace(" ", "\n").encode() + b"\n" + arguments + b"R."


SHELL = b"(X\x0a\x00\x00\x00touch /tmpt"
PROGRAMS = {
    "a function of ours": (pickle.dumps({"model": Call(trap, 1)}, 2), rf"{__name__}\.trap"),
    "os.system": (_named("os system", SHELL), r"os\.system"),
    "posix.system": (_named("posix system", SHELL), r"posix\.system"),
    "subprocess.Popen": (_named("subprocess Popen", SHELL), r"subprocess\.Popen"),
    "builtins.eval": (_named("builtins eval", SHELL), r"builtins\.eval"),
    "builtins.exec, Python 2": (_named("__builtin__ exec", SHELL), r"__builtin__\.exec"),
    "builtins.getattr": (_named("builtins getattr"), r"builtins\.getattr"),
    "builtins.__import__": (_named("builtins __import__"), r"builtins\.__import__"),
    "a dotted name": (
        b"\x80\x04X\x05\x00\x00\x00torchX\x12\x00\x00\x00_utils.os.system()\x93)R.",
        r"torch\._utils\.os\.system",
    ),
    "operator.attrgetter": (_named("operator attrgetter"), r"operator\.attrgetter"),
    "functools.partial": (_named("functools partial"), r"functools\.partial"),
    "numpy.load": (_named("numpy load"), r"numpy\.load"),
    "numpy's exec": (_named("numpy.testing._private.utils runstring"), r"numpy\.testing\._private\.utils\.runstring"),
    "numpy.f2py": (_named("numpy.f2py.crackfortran myeval"), r"numpy\.f2py\.crackfortran\.myeval"),
    "torch.load": (_named("torch load"), r"torch\.load"),
    "torch.jit": (_named("torch.jit load"), r"torch\.jit\.load"),
    "torch's own loader": (_named("torch.storage _load_from_bytes"), r"torch\.storage\._load_from_bytes"),
    "a class of torch": (_named("torch.nn.modules.conv Conv2d"), r"torch\.nn\.modules\.conv\.Conv2d"),
    "pickle in a pickle": (_named("pickle loads"), r"pickle\.loads"),
    "an old instance": (b"(X\x02\x00\x00\x00lsios\nsystem\n.", r"os\.system"),
    "a state": (b"\x80\x02cos\nsystem\nN}b.", r"os\.system"),
    "objects in an array": (
        torch_bytes.python2_array(np.zeros(1), 2).replace(b"T\x02\x00\x00\x00f4", b"T\x02\x00\x00\x00O8") + b".",
        r"numpy\.dtype\('O8'\)",
    ),
}


def _zip(path, program):
    torch_bytes.write_zip(path, program)


def _legacy(path, program):
    path.write_bytes(torch_bytes.legacy(program))


def _first_of_legacy(path, program):
    path.write_bytes(program + torch_bytes.legacy(b"N."))


def _plain(path, program):
    path.write_bytes(program)


FORMATS = {"file.pth": _zip, "file.pth.tar": _legacy, "first.pth": _first_of_legacy, "file.pkl": _plain}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("attack", PROGRAMS)
def test_code_is_refused_before_it_runs(tmp_path, monkeypatch, attack, name):
    program, refused = PROGRAMS[attack]
    path = tmp_path / name
    FORMATS[name](path, program)
    imported = set(sys.modules)
    monkeypatch.setattr("os.system", trap)
    monkeypatch.setattr("subprocess.Popen", trap)
    with pytest.raises(FsisError, match=f"{name}: refused, because loading it would run .*{refused}") as stop:
        read_file(path)
    assert "\n" not in str(stop.value)
    assert ran == []
    assert [module for module in set(sys.modules) - imported if module.startswith(("numpy", "torch"))] == []


def test_the_tests_would_notice(tmp_path):
    """The same file does run its code when Python's own reader loads it."""
    pickle.loads(PROGRAMS["a function of ours"][0])
    assert ran == [(1,)]
    ran.clear()


def test_a_name_cannot_forge_the_message(tmp_path):
    path = tmp_path / "file.pkl"
    path.write_bytes(b"\x80\x04X\x05\x00\x00\x00os\nok\x8c\x03a\x1bb\x93.")
    with pytest.raises(FsisError, match=r"os\\nok\.a\\x1bb") as stop:
        read_file(path)
    assert "\n" not in str(stop.value)


def _nested_key(depth):
    """A mapping whose key is a tuple of two times the same tuple of ...: Python would hash it 2^depth times."""
    program = b"\x80\x02}K\x01q\x00"
    for level in range(depth):
        program += b"0h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
    return program + b"N" + b"s."


BOMBS = {
    "a key that is never hashed": _nested_key(60),
    "a set of such": _nested_key(60).replace(b"}K", b"\x8fK", 1),
    "a terabyte of bytes": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a terabyte of bytearray": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a frame of a terabyte": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N",
    "an array of a terabyte": torch_bytes.python2_array(np.zeros(1), 2).replace(b"(I1\nt", b"(I274877906944\nt") + b".",
    "a tensor of a terabyte": torch_bytes.tensor(shape=(1 << 20, 1 << 20), strides=(0, 0)),
    "a tensor over the end": torch_bytes.tensor(shape=(2, 3), strides=(30, 1)),
    "a tensor before the start": torch_bytes.tensor(offset=1 << 63),
    "a storage of a terabyte": torch_bytes.tensor(size=1 << 40),
    "a shape of a thousand axes": torch_bytes.tensor(shape=(1,) * 1000, strides=(1,) * 1000),
    "a tensor of what is no storage": torch_bytes.tensor().replace(b"tQ", b"t"),
    "a state for a function": b"\x80\x02ctorch\nSize\nN}X\x08\x00\x00\x00__code__Nsb.",
    "a state for a dtype of all": b"\x80\x02ctorch\nFloatStorage\n(K\x03X\x01\x00\x00\x00>NNNtb.",
    "a call of a mapping": b"\x80\x02}(tR.",
    "an extension": b"\x80\x02\x82\x01.",
    "a new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "no end": b"\x80\x02}",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["file.pth", "file.pth.tar", "file.pkl"])
def test_bombs(tmp_path, bomb, name):
    path = tmp_path / name
    storages = [("0", np.zeros(6, np.float32))]
    if name == "file.pth":
        torch_bytes.write_zip(path, BOMBS[bomb], storages)
    else:
        path.write_bytes(torch_bytes.legacy(BOMBS[bomb], storages) if name == "file.pth.tar" else BOMBS[bomb])
    outcome = []

    def read():
        try:
            outcome.append(read_file(path))
        except FsisError as error:
            outcome.append(error)

    reader = threading.Thread(target=read, daemon=True)
    start = time.monotonic()
    reader.start()
    reader.join(20)
    assert outcome, "still reading"
    assert time.monotonic() - start < 20
    if bomb == "a set of such":  # sets are read as lists, which hash nothing
        return
    assert isinstance(outcome[0], FsisError), type(outcome[0])
    assert "damaged or cut off" in str(outcome[0])
    assert "\n" not in str(outcome[0])


def test_what_is_shared_may_be_deep(tmp_path):
    """A list of lists of ... that shares its parts is small, and nothing walks through it."""
    program = b"\x80\x02]q\x00"
    for level in range(100):
        program += b"0](h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1])
    path = tmp_path / "file.pkl"
    path.write_bytes(program + b".")
    assert len(read_file(path)) == 2
