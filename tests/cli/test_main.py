"""The command `fsis` itself."""

import subprocess
import sys

import pytest

import fsis_jax
from fsis_jax.cli import COMMANDS


def test_without_a_command_the_usage_is_an_error(fsis):
    outcome = fsis()
    assert outcome.status == 2
    assert f"usage: fsis {{{','.join(COMMANDS)}}} ..." in outcome.stderr
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--version", f"fsis {fsis_jax.__version__}\n"),
        ("-V", f"fsis {fsis_jax.__version__}\n"),
        ("--help", "usage: fsis {demo,"),
    ],
)
def test_it_says_what_it_is(fsis, arguments, told):
    outcome = fsis(arguments)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith(told)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("segmnt x.tif", "segment"),
        ("Segment x.tif", "segment"),
        ("reference -o x", "references"),
        ("data chek x", "check"),
        ("data prepair x --output y", "prepare"),
        ("data synthetic --output x --layout fiscell", "fis_cell"),
        ("export runs --output x.npz --outptu y", "--output"),
        ("train --config x.py --workdri y", "--workdir"),
        ("evaluate --config x.py --chekpoint y", "--checkpoint"),
    ],
)
def test_a_misspelt_word_is_told_with_the_nearest(fsis, tmp_path, monkeypatch, arguments, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text("def get_config(): ...")
    assert f"; did you mean '{meant}'? " in fsis(*arguments.split()).error


def test_an_unlike_word_is_told_alone(fsis):
    assert fsis("quit").error == "fsis: error: no command 'quit'; `fsis --help` lists the commands"


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "fsis_jax", "data", "check"]
    outcome = subprocess.run(command, capture_output=True, check=False, text=True)
    assert outcome.returncode == 2
    assert outcome.stderr == (
        "fsis: error: the following arguments are required: DIR; `fsis data check --help` lists the arguments\n"
    )


def test_the_parser_of_data_needs_no_jax():
    program = "import sys; from fsis_jax.cli import main; sys.argv = ['fsis', 'data', 'chek']\ntry:\n    main()\n"
    program += "finally:\n    print('jax' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert (outcome.returncode, outcome.stdout) == (2, "False\n")
