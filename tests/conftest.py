"""Fixtures that all tests share: the compilation cache and the folders of real images, where they exist."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "fsis_jax_tests_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import pytest


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
    """Golden vectors of the PyTorch project."""
    return _folder("FSIS_GOLDEN")
