"""Names of a stranger on a terminal and in a spreadsheet."""

import csv
import logging
import types

import numpy as np
import pytest

from fsis_jax import cli
from fsis_jax.cli.streams import say
from fsis_jax.errors import FsisError, printable
from fsis_jax.io.table import write_table

_HOSTILE = "a\x1b[2J\r\n\u202eb\u2028\udcff"
_SHOWN = r"a\x1b[2J\r\n\u202eb\u2028\udcff"


def test_what_is_no_printable_character_is_its_escape():
    assert printable(_HOSTILE) == _SHOWN
    assert printable("Zelle 12 µm, 細胞.tif") == "Zelle 12 µm, 細胞.tif"


def test_errors_and_warnings_are_printed_so(capsys):
    def fail(arguments):
        raise FsisError(f"{_HOSTILE}: no such file")

    with pytest.raises(SystemExit):
        cli.run(fail, [])
    assert capsys.readouterr().err == f"fsis: error: {_SHOWN}: no such file\n"
    record = logging.LogRecord("fsis_jax", logging.WARNING, "", 0, "%s: passed over", (_HOSTILE,), None)
    assert cli._OneLine().format(record) == f"{_SHOWN}: passed over"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_category_is_no_formula(tmp_path, name):
    mask = types.SimpleNamespace(x=0, y=0, mask=np.ones((2, 2), bool))
    result = types.SimpleNamespace(
        size=(4, 4),
        masks=[mask, mask],
        scores=[1.0, 1.0],
        classes=[0, 1],
        categories=[name, "cell - round"],
        kind_scores=None,
    )
    write_table(tmp_path / "table.csv", result, np.zeros((4, 4), np.uint8))
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["category"] for row in csv.DictReader(file)] == [f"'{name}", "cell - round"]


def test_too_little_memory_is_one_line(capsys):
    def fail(arguments):
        raise MemoryError

    with pytest.raises(SystemExit) as stop:
        cli.run(fail, [])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("fsis: error: too little memory: ")


def test_lines_of_a_report_are_escaped_each(capsys):
    say("a: 1\nb\x1b[2J\r: 2")
    assert capsys.readouterr().out == "a: 1\nb\\x1b[2J\\r: 2\n"
