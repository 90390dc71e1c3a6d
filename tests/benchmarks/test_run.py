"""A suite runs on the smallest detector, prints every table and saves what it prints."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks in a process that compiles without optimising."""
    command = [sys.executable, "-m", "benchmarks.run", *arguments]
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def tables(folder: pathlib.Path, parts: str) -> dict[str, list[list[str]]]:
    """Title -> rows of cells, of a quick run of these parts on the tiny detector."""
    result = run("--suite", "cpu", "--quick", "--config", "tests/tiny.py", "--out", str(folder), "--only", parts)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*-cpu-quick.md")
    saved = path.read_text()
    assert result.stdout == f"{saved}saved as {path}\n"
    assert re.search(r"- commit: \S+\n- device: cpu", saved)
    found = {}
    for section in saved.split("\n## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        found[section.splitlines()[0]] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return found


@pytest.mark.slow
def test_inference_tables(tmp_path: pathlib.Path) -> None:
    found = tables(tmp_path, "inference,segment")
    assert list(found) == ["inference, config", "segment, config"]
    stages = {row[0]: row[1:] for row in found["inference, config"]}
    for name in ("references (once)", "pyramid", "box head", "soft-NMS", "mask head", "whole detection"):
        assert all(float(cell) >= 0 for cell in stages[name]), name
    assert [row[:2] for row in found["segment, config"]] == [["1", "64x64"], ["5", "64x64"]]
    assert all(0 < int(row[2]) <= 8 for row in found["segment, config"])
    busy = [float(row[5]) for row in found["segment, config"]]
    assert all(0 < share <= 100 for share in busy)


@pytest.mark.slow
def test_the_stages_of_training(tmp_path: pathlib.Path) -> None:
    """Without --quick, which leaves them out."""
    arguments = ("--suite", "cpu", "--config", "tests/tiny.py", "--out", str(tmp_path), "--only", "training")
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert all(f"| {name} " in result.stdout for name in ("pyramid, gradient", "RPN targets", "mask head, gradient"))


@pytest.mark.slow
def test_all_other_tables(tmp_path: pathlib.Path) -> None:
    found = tables(tmp_path, "matmul,training,area,references,instances,nms,soft_nms")
    assert len(found) == 7
    assert all(found.values())
    assert found["training, config"][0][0] == "whole step, batch 4"
    assert all(row[-1] == "yes" for name in ("nms", "soft_nms") for row in found[name])


def test_unknown_part() -> None:
    result = run("--only", "nothing")
    assert result.returncode == 2
    assert "no part nothing; use: " in result.stderr


def test_gpu_suite_without_a_gpu() -> None:
    result = run("--suite", "gpu")
    assert result.returncode == 2
    assert "--suite gpu needs a GPU" in result.stderr
