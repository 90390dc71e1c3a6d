"""Fixtures that all tests share: the compilation cache, tiny training data and runs, and the folders of real images."""

import contextlib
import dataclasses
import fcntl
import functools
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "fsis_jax_tests_cache"))
# One for each process of pytest-xdist: JAX writes in place, and who reads meanwhile gets half an entry.
os.environ["JAX_COMPILATION_CACHE_DIR"] += "/" + os.environ.get("PYTEST_XDIST_WORKER", "")
# Whatever compiled fast too: to read it takes a third as long, and processes that tests start need much of the same.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import cv2
import jax
import jaxtyping
import numpy as np
import pytest
from scripts_of_tests import TESTS, script

pytest_plugins = ["parity_table"]


# The annotations of the ops are executed, wherever one is traced in this process; an int is a float, as for mypy. Those
# of dispatch.py are left out: it sees no arrays, and in its tests stand-ins of devices.
OPS = sorted({path.stem for path in (TESTS.parent / "fsis_jax/ops").glob("*.py")} - {"__init__", "dispatch"})
jaxtyping.install_import_hook(
    [f"fsis_jax.ops.{name}" for name in OPS],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


def _folder(variable: str) -> pathlib.Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"environment variable {variable} is not set: it names a folder that is not part of the project")
    path = pathlib.Path(value)
    if not path.is_dir():
        pytest.fail(f"{variable}={value} is not a folder")
    return path


@pytest.fixture(scope="session")
def cells_tiny() -> pathlib.Path:
    """A dozen small real images in COCO layout."""
    return _folder("FSIS_CELLS_TINY")


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """Golden vectors of the PyTorch project: the folder that FSIS_GOLDEN names, else the compact copy."""
    return _folder("FSIS_GOLDEN") if os.environ.get("FSIS_GOLDEN") else TESTS / "golden"


@contextlib.contextmanager
def _made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[pathlib.Path, bool]]:
    """A folder, and whether it is made already: one for all processes of pytest-xdist, the first of which makes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        yield folder, done.exists()
        done.touch()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Synthetic cells: 9 categories, 33 training and 11 test images of 64 to 96 pixels, some with two categories."""
    from fsis_jax.synthetic.generate import generate

    with _made_once(tmp_path_factory, "tiny-data") as (folder, made):
        if not made:
            generate(folder, images_per_category=4, two_category_images=8, sides=(64, 96))
    return folder


@pytest.fixture
def data(tiny_data: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the synthetic cells that a test may damage."""
    return pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training run."""

    workdir: pathlib.Path
    data: pathlib.Path
    stderr: str


@pytest.fixture(scope="session")
def tiny_run(tiny_data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """tests/tiny.py trained by scripts/train.py, with every compilation in its log."""
    with _made_once(tmp_path_factory, "tiny-run") as (workdir, made):
        log = workdir.with_suffix(".stderr")
        if not made:
            process = script("train.py", "--workdir", workdir, f"--config.data.root={tiny_data}", JAX_LOG_COMPILES="1")
            log.write_text(process.communicate()[1])
            assert process.returncode == 0, log.read_text()
        return Run(workdir, tiny_data, log.read_text())


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """Compile without optimising, here and in processes that are started: for what runs each function a few times."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The annotations of the ops are not executed, as outside the tests: for what the ops themselves refuse."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 1500 kB.

    A full disk leaves coroutines of the storage library behind, which complain when they are collected, whenever that
    is; here it is before the test ends, and unheard, as under the command line (see `fsis_jax.cli`).
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    hook = sys.unraisablehook
    sys.unraisablehook = lambda problem: None if str(problem.exc_value) == "Event loop is closed" else hook(problem)
    yield folder
    gc.collect()
    sys.unraisablehook = hook
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def cell(tiny_run: Run) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A test image in grey, and the box of a cell of it."""
    content = json.loads((tiny_run.data / "annotations/test.json").read_text())
    row = content["annotations"][0]
    name = next(image["file_name"] for image in content["images"] if image["id"] == row["image_id"])
    grey = cv2.imread(str(tiny_run.data / "images" / name), cv2.IMREAD_GRAYSCALE)
    x, y, width, height = map(int, row["bbox"])
    return grey, (x, y, x + width, y + height)


@pytest.fixture
def desk(
    tiny_run: Run,
    cell: tuple[np.ndarray, tuple[int, int, int, int]],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> pathlib.Path:
    """The working folder of a user: the image `good.png`, `crop.png` of a cell of it, and the trained model `W`."""
    grey, (x1, y1, x2, y2) = cell
    folder = tmp_path / "desk"
    folder.mkdir()
    cv2.imwrite(str(folder / "good.png"), grey)
    cv2.imwrite(str(folder / "crop.png"), grey[y1:y2, x1:x2])
    (folder / "W").symlink_to(tiny_run.workdir)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def read_once() -> Iterator[None]:
    """A model is read from its checkpoint once for all tests of a module, which must not change it."""
    from fsis_jax.inference.segmenter import Segmenter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "from_checkpoint", functools.cache(Segmenter.from_checkpoint))
        yield


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int | str | None
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The message of a failed command, which must be its only output."""
        assert self.status == 2, self
        assert self.stderr.startswith("fsis: error: "), self.stderr
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr.strip()


@pytest.fixture
def fsis(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run `fsis ARGUMENTS...` in this process."""
    from fsis_jax import cli

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fsis", *map(str, arguments)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # given back when the test ends
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Outcome(stop.value.code, *capsys.readouterr())

    return call
