"""`fsis segment --part` and `fsis merge` as a user gives them, and what schedulers say of a task."""

import argparse

import pytest

from fsis_jax.cli.part_option import part

pytestmark = pytest.mark.usefixtures("quick_compile", "read_once")

VARIABLES = (
    *("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"),
    *("SLURM_ARRAY_TASK_STEP", "PBS_ARRAY_INDEX", "PBS_ARRAYID", "LSB_JOBINDEX", "LSB_JOBINDEX_END"),
    *("LSB_JOBINDEX_STEP", "SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
)


@pytest.fixture
def task(monkeypatch):
    """Sets the variables of a scheduler, and no others."""

    def call(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return call


SLURM = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "6"}


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("3/16", {}, (3, 16)),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2"}, (3, 4)),
        ("auto/16", {"SLURM_ARRAY_TASK_ID": "7"}, (7, 16)),
        ("auto/16", {"PBS_ARRAY_INDEX": "16"}, (16, 16)),
        ("auto/9", {"PBS_ARRAYID": "2"}, (2, 9)),
        ("auto", {"LSB_JOBINDEX": "2", "LSB_JOBINDEX_END": "8"}, (2, 8)),
        ("auto", {"SGE_TASK_ID": "5", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "4"}, (2, 3)),
    ],
)
def test_which_part_a_task_is(task, text, variables, expected):
    task(**variables)
    assert part(text) == expected


@pytest.mark.parametrize(
    ("text", "variables", "message"),
    [
        ("17/16", {}, "'17/16': part 17 of 16: parts count from 1"),
        ("0/4", {}, "part 0 of 4"),
        ("3", {}, "'3' is not as 3/16, auto/16 or auto"),
        ("auto", {}, "auto: not in an array"),
        ("auto", {"LSB_JOBINDEX": "0", "SGE_TASK_ID": "undefined"}, "auto: not in an array"),
        ("auto", {"PBS_ARRAY_INDEX": "3"}, "OpenPBS does not say how many tasks the array has: give auto/16"),
        ("auto/4", {"SLURM_ARRAY_TASK_ID": "0"}, "part 0 of 4"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "2"}, "an array of 2 tasks with gaps"),
    ],
)
def test_what_is_no_part(task, text, variables, message):
    task(**variables)
    with pytest.raises(argparse.ArgumentTypeError) as failure:
        part(text)
    assert message in str(failure.value)


def test_two_parts_and_their_merging(fsis, desk, monkeypatch):
    options = ("segment", "good.png", "--references", "crop.png", "--checkpoint", "W", "--min-score", "0")
    options = (*options, "--tile", "48", "--save", "labels", "table", "--pdf")
    assert fsis(*options, "--output", "alone").status == 0
    error = fsis("merge", "out").error
    assert error.startswith("fsis: error: out: has no parts: run `fsis segment ... --part 1/16` into it")
    outcome = fsis(*options, "--output", "out", "--part", "1/2")
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.endswith("out: part 1/2 is done, 1 image: `fsis merge` when all are\n")
    assert "out: part 2 of 2 is missing: run" in fsis("merge", "out").error
    assert "argument --part: '3/2': part 3 of 2" in fsis(*options, "--output", "out", "--part", "3/2").error
    assert (
        "has parts of a run with other parts (3, there 2)" in fsis(*options, "--output", "out", "--part", "3/3").error
    )
    assert "--force with --part 2/2" in fsis(*options, "--output", "out", "--part", "2/2", "--force").error
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert fsis(*options, "--output", "out", "--part", "auto/2").status == 0
    merged = fsis("merge", "out")
    assert merged.status == 0, merged.stderr
    assert "good.png: " in merged.stdout
    for name in ("good-labels.tif", "good-table.csv", "good-overlay.png", "summary.csv"):
        assert (desk / "out" / name).read_bytes() == (desk / "alone" / name).read_bytes()
    assert (desk / "out" / "overlays.pdf").exists()
