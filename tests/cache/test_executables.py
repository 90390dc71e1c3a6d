"""Programs that outlive their process: the same numbers, no tracing, and another program wherever anything differs."""

import dataclasses
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from fsis_jax.cache import executables, memory, surroundings
from fsis_jax.cache.executables import KeptFunction
from fsis_jax.cache.private_folder import PrivateFolder

X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)


@dataclasses.dataclass(frozen=True)
class Power:
    exponent: int

    @property
    def text(self):
        return f"power {self.exponent}"

    def prepare(self):
        """Nothing is to be done."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Found:
    highest: jax.Array
    order: jax.Array
    nothing: None = None


CUBE, HALF = Power(3), np.float32(0.5)
traced: list[int] = []


def ranked(static, data, bias):
    """A sort among other things: a program with one that was itself read cannot be written again."""
    traced.append(static.exponent)
    y = data["x"] ** static.exponent + bias
    return Found(y.max(1), jax.numpy.argsort(y, axis=1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = PrivateFolder(tmp_path / "kept")
    monkeypatch.setattr(surroundings, "folder", lambda: folder)
    traced.clear()
    return folder


@pytest.fixture
def function():
    return KeptFunction(ranked)


def _run(function, static=CUBE, x=X, bias=HALF):
    """The result, and how often it was traced for it."""
    before = len(traced)
    found = function(static, jax.devices()[0], {"x": x}, bias)
    expected = x**static.exponent + np.float32(bias)
    np.testing.assert_allclose(found.highest, expected.max(1), rtol=1e-6)
    assert found.nothing is None
    return found, len(traced) - before


def _same(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_later_process_does_not_trace_and_finds_the_same(folder, function):
    first, times = _run(function)
    assert times == 1
    assert _run(function)[1] == 0
    assert len(list(folder.path.iterdir())) == 1
    later, times = _run(KeptFunction(ranked))
    assert times == 0
    _same(first, later)
    plain = jax.jit(lambda *arguments: ranked(Power(3), *arguments))({"x": X}, np.float32(0.5))
    _same(first, plain)


def test_another_program_for_all_that_it_depends_on(folder, function, monkeypatch):
    assert _run(function)[1] == 1
    assert _run(function, static=Power(2))[1] == 1
    assert _run(function, x=X[:3])[1] == 1
    assert _run(function, x=X.astype(np.float64).astype(np.float32), bias=np.int32(2))[1] == 1
    assert len(list(folder.path.iterdir())) == 4
    monkeypatch.setattr(surroundings.jaxlib, "__version__", "0.0.1")
    assert _run(KeptFunction(ranked))[1] == 1
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} ")
    assert _run(KeptFunction(ranked))[1] == 1
    monkeypatch.setattr(surroundings, "_threads", lambda: 999)
    assert _run(KeptFunction(ranked))[1] == 1
    monkeypatch.setattr(surroundings, "_processor", lambda: "another one")
    assert _run(KeptFunction(ranked))[1] == 1
    monkeypatch.setattr(surroundings, "_sources", lambda: "changed")
    assert _run(KeptFunction(ranked))[1] == 1
    with jax.default_matmul_precision("highest"):
        assert _run(KeptFunction(ranked))[1] == 1
    assert _run(KeptFunction(ranked))[1] == 0


def test_a_damaged_program_is_not_unpickled_and_is_made_again(folder, function, monkeypatch):
    first, _ = _run(function)
    (path,) = folder.path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(executables.pickle, "loads", lambda _: pytest.fail("unpickled"))
        again, times = _run(KeptFunction(ranked))
    assert times == 1
    _same(first, again)
    assert _run(KeptFunction(ranked))[1] == 0


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(3), pickle.dumps((b"no program", 1))])
def test_what_jax_cannot_read_is_made_again(folder, function, monkeypatch, content):
    questions = []
    put = folder.put
    monkeypatch.setattr(folder, "put", lambda question, answer: questions.append(question) or put(question, answer))
    _run(function)
    put(questions[0], content)
    assert _run(KeptFunction(ranked))[1] == 1
    assert _run(KeptFunction(ranked))[1] == 0


def test_a_folder_that_is_not_to_be_written_to(folder, function, monkeypatch):
    monkeypatch.setattr(folder, "put", lambda *_: False)
    first, times = _run(function)
    assert times == 1
    again, times = _run(KeptFunction(ranked))
    assert times == 1
    _same(first, again)


def test_what_cannot_be_written_is_not_kept(folder, function, monkeypatch):
    def refused(_):
        raise NotImplementedError("serialize_executables with const_args")

    monkeypatch.setattr(executables.serialize_executable, "serialize", refused)
    assert _run(function)[1] == 1
    assert folder.get("x") is None
    assert not folder.path.exists()


def test_jax_has_its_own_cache_again_afterwards(folder, function):
    before = jax.config.jax_enable_compilation_cache
    _run(function)
    assert jax.config.jax_enable_compilation_cache == before


def test_where_programs_are_kept(tmp_path, monkeypatch):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
        assert surroundings.folder().path == tmp_path / "xla" / "fsis_jax"
        jax.config.update("jax_compilation_cache_dir", "gs://bucket/xla")
        assert surroundings.folder() is None
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert surroundings.folder().path == tmp_path / "fsis_jax" / "xla" / "fsis_jax"
        jax.config.update("jax_enable_compilation_cache", False)
        assert surroundings.folder() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        jax.config.update("jax_compilation_cache_dir", before)


def test_programs_that_were_not_used_for_longest_are_let_go(folder, function, monkeypatch):
    monkeypatch.setattr(executables, "AT_ONCE", 2)
    for exponent in (1, 2, 1, 3):
        _run(function, static=Power(exponent))
    assert function.count == 2
    assert [_run(function, static=Power(exponent))[1] for exponent in (1, 3, 2)] == [0, 0, 0]
    assert traced == [1, 2, 3]  # 2 was read again, not made
    function.forget()
    assert function.count == 0


def test_memory_of_the_compiler_is_given_back():
    memory.give_back()  # whatever the system


_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
import test_executables as tests
from fsis_jax.cache.executables import KeptFunction
found, times = tests._run(KeptFunction(tests.ranked))
print(times, found.order.tolist())
"""


def test_two_processes_at_once_and_a_third(tmp_path):
    command = [sys.executable, "-c", _PROCESS, str(pathlib.Path(__file__).parent)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    start = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **start) for _ in range(2)]
    told = [process.communicate() for process in both]
    third = subprocess.Popen(command, **start).communicate()
    assert [stderr for _, stderr in (*told, third)] == [""] * 3
    assert len({stdout.partition(" ")[2] for stdout, _ in (*told, third)}) == 1
    assert third[0].startswith("0 ")


def test_compilations_at_once_leave_the_compilation_cache_as_it_was():
    inside, before = threading.Barrier(2), jax.config.jax_enable_compilation_cache
    seen = []

    def compile_one():
        inside.wait(10)
        with executables._without_compilation_cache():
            seen.append(jax.config.jax_enable_compilation_cache)
            time.sleep(0.05)

    threads = [threading.Thread(target=compile_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, jax.config.jax_enable_compilation_cache) == ([False, False], before)
