"""Commands whose standard streams are closed, missing, or pipes that nobody reads any more."""

import os
import subprocess
import sys

import pytest

CHECK = f"{sys.executable} -m fsis_jax data check"
WHAT_IS_OPEN = "import os; from fsis_jax.cli.streams import open_streams; open_streams(); print(os.open('x', 66))"


def shell(command, **options):
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tiny_data, closed):
    outcome = shell(f"{CHECK} {tiny_data} {closed}")
    assert outcome.returncode == 0, outcome
    assert outcome.stderr == ""
    assert ("no problems" in outcome.stdout) == (" >&-" not in f" {closed}")


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_an_error_has_its_status_where_nobody_hears_it(tmp_path, closed):
    assert shell(f"{CHECK} {tmp_path}/nowhere {closed}").returncode == 2


def test_no_file_gets_the_number_of_a_stream(tmp_path):
    """What libraries print to file descriptor 2 would else be in it."""
    program = f'{sys.executable} -c "{WHAT_IS_OPEN}" <&- 2>&-'
    assert int(shell(program, cwd=tmp_path).stdout) > 2


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_processes_that_are_started_have_the_streams_too(tmp_path, closed):
    """Workers that make batches; what one of them prints would else go into the pipe that got the number."""
    program = (
        "import os, subprocess; from fsis_jax.cli.streams import open_streams; open_streams(); "
        "open('x', 'w').write(str([os.get_inheritable(number) for number in range(3)])); "
        "subprocess.run(['bash', '-c', 'echo y >&2 && echo y >> x'], check=True)"
    )
    assert shell(f'{sys.executable} -c "{program}" {closed}', cwd=tmp_path).returncode == 0
    assert (tmp_path / "x").read_text() == "[True, True, True]y\n"


def test_streams_that_are_none(tiny_data):
    program = (
        "import sys; from fsis_jax.cli import main; sys.stdin = sys.stdout = sys.stderr = None; "
        f"sys.argv = ['fsis', 'data', 'check', {str(tiny_data)!r}]; main()"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_stops_nothing(data, unbuffered):
    (data / "folds.json").write_text("{}")  # many problems
    command = f"{CHECK} {data}; echo $? >&2; rm {data}/folds.json; {CHECK} {data}; echo $? >&2"
    outcome = shell(f"({command}) | true", env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    assert outcome.stderr == "1\n0\n"
