"""Where the tests lie, and scripts that they start on the tiny config."""

import os
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).parent
TINY_CONFIG = TESTS / "tiny.py"


def script(name: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a script of scripts/ on the tiny config, in a process that compiles without optimising."""
    command = [sys.executable, str(TESTS.parent / "scripts" / name), "--config", str(TINY_CONFIG)]
    return subprocess.Popen(
        command + [str(argument) for argument in arguments],
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
