"""The summary of a folder: what it says of records of any age, and that no process's lines are lost."""

import csv
import logging
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fsis_jax.errors import FsisError, OutputError
from fsis_jax.inference.finished_images import FinishedImages
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.summary import COLUMNS, Summary, summarised


def _found(areas: dict[str, list[int]], unwanted: tuple[str, ...] = ()) -> Instances:
    """Instances of these areas in an image of 100x200 pixels, as of references of kinds."""
    rows = [row for row, own in enumerate(areas.values()) for _ in own]
    masks = tuple(CroppedMask(0, 0, np.ones((1, area), bool)) for own in areas.values() for area in own)
    count = len(masks)
    shares = np.zeros((count, len(areas) + 1), np.float32)
    shares[np.arange(count), rows] = 1
    boxes = np.zeros((count, 4), np.float32)
    return Instances(
        boxes,
        np.ones(count, np.float32),
        masks,
        (100, 200),
        classes=np.array(rows, np.int32),
        names=tuple(areas),
        kind_scores=shares,
        unwanted=unwanted,
    )


def _plain(areas: list[int], category: str | None = None) -> Instances:
    masks = tuple(CroppedMask(0, 0, np.ones((1, area), bool)) for area in areas)
    return Instances(np.zeros((len(areas), 4)), np.ones(len(areas)), masks, (100, 200), category)


class _Folder:
    """A folder of results in the making."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.record = path, FinishedImages(path)
        self.summary = Summary(path, self.record)

    def finish(self, name: str, found: Instances | None = None, **values: Any) -> None:
        (self.path / f"{name}-labels.tif").touch()
        line = {"name": name, "path": f"/x/{name}.png", "key": "k", "files": {"labels": f"{name}-labels.tif"}}
        told = {} if found is None else summarised(f"/x/{name}.png", found)
        self.record.append({**line, **told, "plane": [], **values})

    def rows(self) -> list[dict[str, str]]:
        self.summary.update()
        with open(self.path / "summary.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert all(tuple(row) == COLUMNS for row in rows)
        return rows


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> _Folder:
    return _Folder(tmp_path)


def _values(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_a_line_for_each_image_and_kind(folder: _Folder) -> None:
    folder.finish("b", _found({"living": [10, 30, 21], "dead": [], "dust": []}, ("dust",)), pixel_size=0.5)
    folder.finish("a", _found({"living": [4, 7], "dead": [9]}))
    assert _values(folder.rows(), *COLUMNS) == [
        ("a.png", "", "living", "2", "5.5", "", ""),
        ("a.png", "", "dead", "1", "9", "", ""),
        # 3 cells on 100 x 200 pixels of half a micrometre, 0.005 mm^2.
        ("b.png", "", "living", "3", "21", "5.25", "600"),
        ("b.png", "", "dead", "0", "", "", "0"),
    ]


def test_images_without_kinds(folder: _Folder) -> None:
    folder.finish("a", _plain([4, 6]))
    folder.finish("b", _plain([4], "=nuclei"), plane=["DAPI", "Z3"])
    folder.finish("c", _plain([]))
    closed = _found({"rods": [5], "discs": []})
    for name, found in (("d", closed), ("e", closed.select(np.zeros(1, bool)))):
        folder.finish(name, Instances(**{**vars(found), "kind_scores": None}))
    assert _values(folder.rows(), "image", "plane", "kind", "count", "median_area_px") == [
        ("a.png", "", "", "2", "5"),
        ("b.png", "DAPI,Z3", "'=nuclei", "1", "4"),
        ("c.png", "", "", "0", ""),
        ("d.png", "", "rods", "1", "5"),
        ("e.png", "", "", "0", ""),
    ]


def test_an_image_that_is_done_again_is_there_once(folder: _Folder) -> None:
    folder.finish("a", _found({"living": [10]}))
    folder.finish("a", _found({"round": [10, 10], "flat": [3]}))
    assert _values(folder.rows(), "kind", "count") == [("round", "2"), ("flat", "1")]
    folder.finish("a", key="")  # whose files are being replaced
    assert folder.rows() == []


def test_results_that_were_deleted_are_left_out_by_the_next_run(folder: _Folder) -> None:
    folder.finish("a", _plain([4]))
    folder.finish("b", _plain([4]))
    os.remove(folder.path / "a-labels.tif")
    assert _values(_Folder(folder.path).rows(), "image") == [("b.png",)]


def test_lines_of_an_older_version_and_of_nobody(folder: _Folder) -> None:
    folder.finish("a", cells=7, pixel_size=0.5)
    folder.finish("b", size="x", summary=[["living", 1, 2]], pixel_size=0.5)
    folder.finish("c", summary=[["living"]])
    folder.finish("d", summary=3)
    folder.finish("f", cells="=1+1")
    folder.finish("g", _found({"living": [3]}), pixel_size=1e-300)
    folder.finish("e", _found({"living": [3]}), pixel_size="?")
    assert _values(folder.rows(), "image", "kind", "count", "median_area_px") == [("a.png", "", "7", "")]


def test_nothing_is_written_without_results_nor_twice(folder: _Folder) -> None:
    folder.summary.update()
    assert list(folder.path.iterdir()) == []
    folder.finish("a", _plain([4]))
    folder.summary.update()
    before = (folder.path / "summary.csv").stat().st_mtime_ns
    folder.summary.update()
    _Folder(folder.path).summary.update()
    assert (folder.path / "summary.csv").stat().st_mtime_ns == before


def test_a_file_that_is_no_summary_is_not_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "summary.csv").write_text("image;notes\n")
    with pytest.raises(FsisError, match=r"summary\.csv: is no summary of fsis, and would be replaced by it: rename it"):
        _Folder(tmp_path)
    (tmp_path / "summary.csv").write_text(",".join(COLUMNS) + "\n")
    _Folder(tmp_path)


def test_a_summary_that_cannot_be_written_is_a_warning_once_and_an_error_at_the_end(
    folder: _Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    folder.finish("a", _plain([4]))
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr("fsis_jax.io.atomic.os.replace", locked)
        folder.summary.update_or_warn()
        folder.summary.update_or_warn()
        with pytest.raises(OutputError, match="cannot be written"):
            folder.summary.update()
    (message,) = caplog.messages
    assert "summary.csv: cannot be written (Permission denied): choose a folder" in message
    assert message.endswith("; it is tried again after the next image")
    assert len(folder.rows()) == 1


def test_who_writes_an_older_state_writes_again(folder: _Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes an image, and writes, between this one's reading of the record and its writing."""
    from fsis_jax.inference import summary

    other, write = _Folder(folder.path), summary.atomic_write

    def late(path: Any) -> Any:
        monkeypatch.setattr(summary, "atomic_write", write)
        other.finish("b", _plain([4]))
        other.summary.update()
        return write(path)

    folder.finish("a", _plain([4]))
    monkeypatch.setattr(summary, "atomic_write", late)
    folder.summary.update()
    with open(folder.path / "summary.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["a.png", "b.png"]


RUN = """
import pathlib, sys
from fsis_jax.inference.finished_images import FinishedImages
from fsis_jax.inference.summary import Summary

folder, own = pathlib.Path(sys.argv[1]), sys.argv[2]
record = FinishedImages(folder)
summary = Summary(folder, record)
print("ready", flush=True)
input()
for number in range(20):
    line = {"name": f"{own}{number:02}", "path": f"/{own}{number:02}.png", "key": "k", "files": {}, "cells": number}
    record.append(line)
    summary.update()
"""


def test_several_processes_lose_no_line(tmp_path: pathlib.Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, tmp_path, own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for own in "abc"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    with open(tmp_path / "summary.csv", newline="") as file:
        rows = [(row["image"], row["count"]) for row in csv.DictReader(file)]
    assert rows == [(f"{own}{number:02}.png", f"{number}") for own in "abc" for number in range(20)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.jsonl", "summary.csv"]
    assert len((tmp_path / "images.jsonl").read_text().splitlines()) == 60
