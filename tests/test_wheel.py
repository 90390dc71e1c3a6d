"""The wheel has every module, the weights and the mark that the package is typed, and works without the repository."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = {"fsis_jax": "fsis_jax", "kernels": "fsis_jax/kernels"}
"""Folder of the repository -> where the wheel has it."""
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[1]), module.__file__
"""
WITH_EXTRAS = ("fsis_jax.app.", "fsis_jax.napari.")
"""Modules that import what an extra brings."""


@pytest.mark.slow
def test_the_wheel_is_whole_and_every_module_can_be_imported(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    files = set(archive.namelist())
    (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    extras = {line for line in archive.read(metadata).decode().splitlines() if line.startswith("Provides-Extra: ")}
    expected = ("app", "cuda", "docs", "export", "napari", "notebooks", "slides", "vendor")
    assert {f"Provides-Extra: {extra}" for extra in expected} <= extras
    sources = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    weights = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fsis_jax" / "pretrained").glob("*.npz")}
    assert sources | weights | {"fsis_jax/py.typed", "fsis_jax/pretrained/SHA256SUMS"} <= files
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", target, wheel], check=True)
    names = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sorted(sources)]
    names = [name for name in names if not name.startswith(WITH_EXTRAS) and not name.endswith("__main__")]
    environment = {**os.environ, "PYTHONPATH": os.fspath(target)}
    command = [sys.executable, "-c", IMPORT_ALL, target, *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
