"""The benchmark of stages runs, on the smallest detector."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_prints_a_row_for_every_stage() -> None:
    command = [sys.executable, "-m", "benchmarks.stages", "--config", "tests/tiny.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = {line[:36].strip(): line[36:].split() for line in result.stdout.splitlines()}
    for name in ("pyramid, gradient", "mask head, gradient", "whole step", "soft-NMS", "whole detection"):
        assert len(rows[name]) == 3, name
        assert float(rows[name][0]) >= 0
