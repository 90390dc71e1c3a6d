"""What is drawn for all contenders, and the PyTorch project's place, which a stand-in takes."""

import importlib
import pathlib
import sys
from types import ModuleType

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAND_IN = {
    "torch.py": """
import contextlib
class Tensor:
    def __init__(self, *shape): self.shape = shape
class nn:
    class Module:
        def eval(self): return self
def manual_seed(seed): pass
def randn(*shape): return Tensor(*shape)
def tensor(values): return Tensor(len(values), len(values[0]))
inference_mode = contextlib.nullcontext
""",
    "lib/core/config.py": """
read = []
def merge_cfg_from_file(path): read.append(open(path).read())
""",
    "lib/modeling/model_builder.py": """
import core.config, torch
class Generalized_RCNN(torch.nn.Module):
    def __init__(self): assert core.config.read == ["MODEL: x"]
    def __call__(self, data, im_info, query):
        assert data.shape == (1, 3, 608, 800) and im_info.shape == (1, 3) and query[0].shape == (1, 3, 128, 128)
""",
}


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.peers")


def test_drawn_cells_lie_apart_and_are_brighter(peers: ModuleType) -> None:
    task = peers.drawn_cells(140)
    inside = task["labels"] > 0
    assert len(np.unique(task["labels"])) - 1 == 25
    assert task["image"].shape == (140, 140)
    assert task["image"][inside].mean() > 2 * task["image"][~inside].mean()
    for x1, y1, x2, y2 in task["boxes"]:
        assert task["labels"][round((y1 + y2) / 2), round((x1 + x2) / 2)] > 0
        assert 16 <= x2 - x1 <= 24
        assert 16 <= y2 - y1 <= 24


def test_the_original_is_timed_from_a_checkout(peers: ModuleType, tmp_path: pathlib.Path) -> None:
    for name, text in STAND_IN.items():
        place = tmp_path / "checkout" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (tmp_path / "net.yaml").write_text("MODEL: x")
    np.savez(tmp_path / "task.npz", image=np.zeros((8, 8), np.uint8))
    options = ["--original", str(tmp_path / "checkout"), "--config", str(tmp_path / "net.yaml")]
    told = peers.measured(sys.executable, "original", tmp_path / "task.npz", options)
    assert told["weights"] == "random"
    assert 0 <= told["network"] < told["start"] < 60
    assert told["peak"] > 5


def test_rows_are_the_least_of_the_runs_beside_ours(peers: ModuleType) -> None:
    runs = [
        {"weights": "w", "cells": 7, "start": start, "network": network, "rest": 0.1, "peak": 100.0}
        for start, network in ((3.0, 0.4), (2.0, 0.5))
    ]
    ours = peers.row("fsis_jax", runs)
    assert (ours["start to first result s"], ours["network ms"], ours["together ms"]) == (2.0, 400.0, 500.0)
    theirs = peers.row("other", [{**runs[0], "start": 4.0, "network": 0.9}])
    _, compared = peers.compared([ours, theirs])
    assert compared["our start / theirs"] == 0.5
    assert compared["our time / theirs"] == pytest.approx(0.5)
