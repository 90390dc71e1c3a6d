"""Locks: who may write a result, and what becomes of a lock whose process is gone."""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys

import pytest

from fsis_jax.errors import OutputError
from fsis_jax.inference import lock as module
from fsis_jax.inference.finished_images import FinishedImages
from fsis_jax.inference.lock import BusyError, acquire

HOLD = """
import pathlib, sys, time
from fsis_jax.inference.lock import acquire
acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that has the lock `a.lock`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a.lock")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def _change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_lock_is_had_once_and_leaves_nothing(tmp_path):
    path = tmp_path / "out" / "a.lock"
    with acquire(path) as lock:
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(BusyError, match=r"a\.lock: another run is at work .*: that is this process") as error:
            acquire(path)
        assert not error.value.passes
        assert str(os.getpid()) in str(error.value)
        with acquire(tmp_path / "out" / "b.lock"):
            pass
    assert os.listdir(path.parent) == []
    lock.release()


@pytest.mark.parametrize("reaped", [False, True])
def test_a_lock_of_a_killed_process_is_taken_over(other, tmp_path, reaped):
    path = tmp_path / "a.lock"
    with pytest.raises(BusyError, match=rf"process {other.pid} on .*: wait until it has ended$") as error:
        acquire(path, force=True)
    assert error.value.passes
    other.kill()
    if reaped:
        other.wait()
    else:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    with acquire(path) as lock:
        assert lock.holder.pid == os.getpid()
    assert os.listdir(tmp_path) == []


def test_a_number_of_a_process_that_came_again_is_another_process(tmp_path):
    path = tmp_path / "a.lock"
    acquire(path)
    if not json.loads(path.read_text())["started"]:
        pytest.skip("this system does not tell when a process started")
    _change(path, started="1")
    acquire(path).release()


@pytest.mark.parametrize("changed", [{"host": "elsewhere"}, {"processes": "pid:[1]"}])
def test_a_lock_of_another_machine_stays_unless_forced(tmp_path, changed):
    path = tmp_path / "a.lock"
    old = acquire(path)
    _change(path, pid=99999999, **changed)
    with pytest.raises(
        BusyError, match=r"process 99999999 on .*: wait until .*; if it has, delete this file, or .* --force"
    ) as error:
        acquire(path)
    assert not error.value.passes
    new = acquire(path, force=True)
    old.release()  # it was taken over
    assert path.exists()
    new.release()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", "no lock"])
def test_a_file_that_says_nothing_may_be_of_anyone(tmp_path, monkeypatch, content):
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    path = tmp_path / "a.lock"
    path.write_text(content)
    with pytest.raises(BusyError, match="an unknown process"):
        acquire(path)
    acquire(path, force=True).release()
    assert os.listdir(tmp_path) == []


def test_a_removal_that_was_killed_stops_nobody(other, tmp_path):
    path = tmp_path / "a.lock"
    other.kill()
    other.wait()
    token = json.loads(path.read_text())["token"]
    (tmp_path / f"a.lock.{token}").write_text(path.read_text().replace(token, "ffff"))
    acquire(path).release()
    assert os.listdir(tmp_path) == []


def test_a_lock_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a part of the path is a file"):
        acquire(tmp_path / "file" / "a.lock")
    (tmp_path / "a.lock").mkdir()
    with pytest.raises(OutputError, match="a folder has that name"):
        acquire(tmp_path / "a.lock")


def _count(folder, number):
    """Take the lock a hundred times; each time the number in a file grows by one, and the record by a line."""
    folder, record = pathlib.Path(folder), FinishedImages(pathlib.Path(folder))
    for turn in range(100):
        while True:
            try:
                lock = acquire(folder / "a.lock")
                break
            except BusyError:
                continue
        with lock:
            value = int((folder / "value").read_text())
            (folder / "value").write_text(str(value + 1))
            if turn % 10 == 0:  # as if the process had been killed; the lock stays
                dead = dataclasses.replace(lock.holder, started="1")
                lock.path.write_text(json.dumps(dataclasses.asdict(dead)))
        record.append({"name": f"{number}-{turn}", "path": "x" * 2000, "key": "k", "files": {}})


def test_of_several_processes_one_has_it(tmp_path):
    (tmp_path / "value").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(str(tmp_path), number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "value").read_text() == "300"
    assert len(FinishedImages(tmp_path).lines) == 300
    assert {line["path"] for line in FinishedImages(tmp_path).lines.values()} == {"x" * 2000}


@pytest.mark.parametrize("target", ["nowhere", "there"])
def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path, target):
    (tmp_path / "there").touch()
    (tmp_path / "a.lock").symlink_to(tmp_path / target)
    with pytest.raises(OutputError, match=r"a\.lock"):
        acquire(tmp_path / "a.lock")
