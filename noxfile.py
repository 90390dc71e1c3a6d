"""The tests that versions of libraries may break, with the newest and with the oldest ones: `nox`, or `nox -s newest`.

`.ci/run` does the same with a part of them, and the rest.
"""

import nox

nox.options.default_venv_backend = "uv"

TESTS = [
    "-o",
    "filterwarnings=default\nerror:::fsis_jax(\\.|$)",
    *("tests/io", "tests/ops", "tests/cache", "tests/cli", "tests/inference", "tests/training/test_loop.py"),
]


@nox.session(python=["3.12", "3.13"])
def newest(session: nox.Session) -> None:
    """What a newcomer's `pip install` brings."""
    session.install("--upgrade", "-e", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "2", *TESTS, *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The lowest versions that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "-e", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "2", *TESTS, *session.posargs)
