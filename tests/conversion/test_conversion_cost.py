"""Time and memory of converting a published detector's 190 MB, in a process of its own."""

import os
import pathlib
import subprocess
import sys
import time

import narrow_weights
import pytest

from fsis_jax.config import base_config
from fsis_jax.conversion.torch_writer import write_file

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "convert_weights.py"


@pytest.mark.slow
def test_a_full_detector_takes_seconds_and_little_memory(tmp_path):
    path = tmp_path / "full.pth"
    write_file(path, {"model": narrow_weights.state_dict(base_config())})
    assert path.stat().st_size > 180e6
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, SCRIPT, path, "--output", tmp_path / "run"])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, gigabytes = time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9
    print(f"{path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s with {gigabytes:.2f} GB")
    assert process.returncode == 0
    assert seconds < 60
    assert gigabytes < 3
