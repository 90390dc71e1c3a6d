"""The command `fsis` itself."""

import signal
import subprocess
import sys
import time


def test_without_a_command_the_usage_is_an_error(fsis, capsys):
    outcome = fsis()
    assert outcome.status == 2
    assert "usage: fsis {train,evaluate,segment,references,convert,data} ..." in outcome.stderr
    assert "usage: fsis" in fsis("--help").stdout


def test_ctrl_c_ends_in_one_line(fsis, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fsis_jax.cli.datasets.data", interrupted)
    outcome = fsis("data")
    assert outcome.status == 130
    assert outcome.stderr == "fsis: stopped; what was written is complete\n"


def test_ctrl_c_is_heard_while_the_libraries_are_imported():
    program = "from fsis_jax.cli import main; print('up', flush=True); main()"
    command = [sys.executable, "-c", program, "segment", "none.png", "--checkpoint", "x", "--output", "y"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stderr == "fsis: stopped; what was written is complete\n"
