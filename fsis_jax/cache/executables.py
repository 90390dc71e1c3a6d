"""Programs that were compiled once: in this process for all who need them, and kept for later processes.

A kept program is what `jax.experimental.serialize_executable` makes of it, and the tree of its results. It is loaded in
a tenth of the time that tracing alone takes, and it is the same machine code, so results are the same bit for bit. To
load it unpickles: `PrivateFolder` says whose files that may be, and the question that a file must answer holds all that
the program depends on (`surroundings.py`; its function, what is static, shapes and types).

XLA for CPUs cannot write what was itself read (parts are missing then), so a program that is to be kept is compiled
without JAX's own compilation cache.
"""

import collections
import contextlib
import functools
import logging
import pickle
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from fsis_jax.cache import surroundings
from fsis_jax.cache.memory import give_back
from fsis_jax.cache.private_folder import PrivateFolder

_logger = logging.getLogger(__name__)

Program = Callable[..., Any]
"""A compiled function."""
AT_ONCE = 8
"""Programs of a function that a process holds; beyond, those that were not used for longest are let go.

One of a detector holds about 70 MB, and to read it again takes half a second. Models have up to seven canvases."""
_UNREADABLE = (
    *(jax.errors.JaxRuntimeError, pickle.PickleError, AttributeError, EOFError, ImportError, IndexError, KeyError),
    *(NotImplementedError, TypeError, ValueError),
)
"""What reading or writing a program may raise where this JAX, or this device, cannot do it."""
_SETTING = threading.Lock()


class Static(Protocol):
    """What programs are made for: equal where the same program serves."""

    def __hash__(self) -> int: ...

    @property
    def text(self) -> str:
        """The same for equal ones in any process."""

    def prepare(self) -> None:
        """Called before something is compiled."""


class KeptFunction:
    """A function that is compiled for shapes and types of arguments, as by `jax.jit`, and whose programs are kept.

    Args:
        function: of a module, under its own name; called with what is static, and then with arrays.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._programs: collections.OrderedDict[Hashable, Program] = collections.OrderedDict()
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, static: Static, device: jax.Device, *arguments: Any) -> Any:
        """Its result for arguments that lie on `device`, or on the host."""
        leaves, tree = jax.tree.flatten(arguments)
        shapes = tuple((x.shape, str(x.dtype)) for x in leaves)
        key = (static, device, tree, shapes)
        with self._lock:
            program = self._programs.get(key)
            if program is not None:
                self._programs.move_to_end(key)
        if program is None:
            program = self._made(static, device, arguments, f"{tree}\n{shapes}")
            with self._lock:
                self._programs[key] = program
                while len(self._programs) > AT_ONCE:
                    self._programs.popitem(last=False)
        return program(*arguments)

    @property
    def count(self) -> int:
        """Programs that this process holds."""
        return len(self._programs)

    def forget(self) -> None:
        """Let go of the programs of this process; those on the disk stay."""
        with self._lock:
            self._programs.clear()

    def _made(self, static: Static, device: jax.Device, arguments: tuple[Any, ...], signature: str) -> Program:
        folder, function = surroundings.folder(), functools.partial(self.function, static)
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        if folder is None:
            static.prepare()
            return _compiled(function, self.function.__name__, arguments)
        about = (name, static.text, signature, surroundings.of_code(), surroundings.of_device(device))
        question = "\n".join(about)
        made = _read(folder, question, arguments, device)
        if made is None:
            static.prepare()
            with _without_compilation_cache():
                made = _compiled(function, self.function.__name__, arguments)
            _keep(folder, question, made)
        return made


def _compiled(function: Program, name: str, arguments: tuple[Any, ...]) -> Program:
    def bound(*arguments: Any) -> Any:
        return function(*arguments)

    # A function of its own, so that JAX lets go of what it traced when the program is.
    bound.__name__ = bound.__qualname__ = name
    made = jax.jit(bound).lower(*arguments).compile()
    give_back()
    return made


def _keep(folder: PrivateFolder, question: str, made: Any) -> None:
    try:
        payload, _, out_tree = serialize_executable.serialize(made)
        results = jax.tree.unflatten(out_tree, range(out_tree.num_leaves))
        folder.put(question, pickle.dumps((payload, results)))
    except _UNREADABLE as error:
        _logger.debug("a program is not kept: %s", error)


def _read(folder: PrivateFolder, question: str, arguments: tuple[Any, ...], device: jax.Device) -> Program | None:
    """A program that was kept; None if there is none, or none that this JAX can read."""
    content = folder.get(question)
    if content is None:
        return None
    try:
        payload, results = pickle.loads(content)
        in_tree, out_tree = jax.tree.structure((arguments, {})), jax.tree.structure(results)
        made: Program = serialize_executable.deserialize_and_load(
            payload, in_tree, out_tree, backend=device.client, execution_devices=[device]
        )
    except _UNREADABLE as error:
        _logger.debug("a kept program cannot be read: %s", error)
        return None
    give_back()
    return made


@contextlib.contextmanager
def _without_compilation_cache() -> Iterator[None]:
    """JAX neither reads nor writes its compilation cache. It looks at the setting once, so it is made to look again.

    The setting is the process's: one thread at a time, or the second would keep what the first has set.
    """
    config: Any = jax.config
    with _SETTING:
        before = config.jax_enable_compilation_cache
        config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            config.update("jax_enable_compilation_cache", before)
            compilation_cache.reset_cache()
