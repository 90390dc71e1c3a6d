"""The command `fsis` itself."""

import subprocess
import sys

import pytest


def test_without_a_command_the_usage_is_an_error(fsis):
    outcome = fsis()
    assert outcome.status == 2
    assert "usage: fsis {demo,train,evaluate,segment,references,convert,export,data} ..." in outcome.stderr
    assert "usage: fsis" in fsis("--help").stdout


@pytest.mark.parametrize("where", ["fsis_jax.cli.datasets.data", "fsis_jax.cli.importlib.import_module"])
def test_ctrl_c_ends_in_one_line(fsis, monkeypatch, where):
    """While a command runs, and while its libraries are imported."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    outcome = fsis("data")
    assert outcome.status == 130
    assert outcome.stderr == "fsis: stopped; what was written is complete\n"


def test_the_usage_needs_no_library():
    program = "import sys; from fsis_jax import cli; print(sorted({'jax', 'cv2', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "[]\n"
