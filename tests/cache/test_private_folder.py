"""Kept answers: whole, of this user alone, or not there; whatever happens to the folder."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from fsis_jax.cache import private_folder
from fsis_jax.cache.private_folder import PrivateFolder

ANSWER = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path):
    return PrivateFolder(tmp_path / "deep" / "kept")


@pytest.fixture
def file(folder):
    """That of the answer to "what?"."""
    assert folder.put("what?", ANSWER)
    (path,) = folder.path.iterdir()
    return path


def test_there_and_back(folder, file):
    assert folder.get("what?") == ANSWER
    assert folder.get("what else?") is None
    assert folder.put("what?", b"")
    assert folder.get("what?") == b""
    assert [path.name for path in folder.path.iterdir()] == [file.name]
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_kept_yet(folder):
    assert folder.get("what?") is None
    assert not folder.path.parent.exists()


@pytest.mark.parametrize("place", [0, 20, 50, 58, 5000, -1])
def test_a_damaged_file_counts_as_none_until_it_is_written_again(folder, file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert folder.get("what?") is None
    assert folder.put("what?", ANSWER)
    assert folder.get("what?") == ANSWER


@pytest.mark.parametrize("length", [0, 5, 30, 60, 5000])
def test_a_file_that_is_cut_off_counts_as_none(folder, file, length):
    file.write_bytes(file.read_bytes()[:length])
    assert folder.get("what?") is None


def test_a_file_under_the_name_of_another_question_counts_as_none(folder, file):
    folder.put("what else?", b"else")
    (other,) = set(folder.path.iterdir()) - {file}
    os.replace(file, other)
    assert folder.get("what else?") is None


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o777])
def test_a_folder_that_others_may_look_into_is_not_used(folder, file, mode):
    folder.path.chmod(mode)
    assert folder.get("what?") is None
    assert not folder.put("what?", ANSWER)
    assert list(folder.path.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_read_or_write_counts_as_none(folder, file, mode):
    file.chmod(mode)
    assert folder.get("what?") is None


def test_what_another_user_owns_is_not_used(folder, file, monkeypatch):
    user = os.geteuid()
    monkeypatch.setattr(private_folder.os, "geteuid", lambda: user + 1)
    assert folder.get("what?") is None
    assert not folder.put("what?", ANSWER)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_another_user_counts_as_none(folder, file):
    os.chown(file, 12345, -1)
    assert folder.get("what?") is None


def test_symbolic_links_are_not_followed(folder, file, tmp_path):
    moved = tmp_path / "moved"
    file.rename(moved)
    file.symlink_to(moved)
    assert folder.get("what?") is None
    assert folder.put("what?", ANSWER)  # the link gives way
    assert folder.get("what?") == ANSWER
    linked = PrivateFolder(tmp_path / "link")
    linked.path.symlink_to(folder.path)
    assert linked.get("what?") is None
    assert not linked.put("what?", ANSWER)


def test_a_pipe_or_a_folder_in_the_place_of_the_file_counts_as_none(folder, file):
    file.unlink()
    os.mkfifo(file, 0o600)
    assert folder.get("what?") is None
    file.unlink()
    file.mkdir(0o700)
    assert folder.get("what?") is None
    assert not folder.put("what?", ANSWER)
    assert [path.name for path in folder.path.iterdir()] == [file.name]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_still_read(folder, file, monkeypatch, number):
    real = os.open

    def refusing(path, flags, *rest, **named):
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(private_folder.os, "open", refusing)
    assert not folder.put("what?", b"other")
    assert folder.get("what?") == ANSWER


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "kept"):
        assert PrivateFolder(path).get("what?") is None
        assert not PrivateFolder(path).put("what?", ANSWER)


def test_what_was_not_used_for_longest_gives_way(folder, monkeypatch):
    monkeypatch.setattr(private_folder, "_MOST", 3 * len(ANSWER) + 1000)
    for number in range(3):
        folder.put(str(number), ANSWER)
        (newest,) = (path for path in folder.path.iterdir() if path.stat().st_mtime > 1000)
        os.utime(newest, (number, number))
    assert folder.get("0") == ANSWER  # used now
    folder.put("3", ANSWER)
    assert [folder.get(str(number)) is not None for number in range(4)] == [True, False, True, True]


def test_what_a_killed_process_left_is_removed(folder, file):
    (folder.path / ".x.tmp").touch()
    os.utime(folder.path / ".x.tmp", (0, 0))
    (folder.path / ".y.tmp").touch()  # another process is at it
    folder.put("what?", ANSWER)
    assert {path.name for path in folder.path.iterdir()} == {file.name, ".y.tmp"}


_WRITER = """
import pathlib, sys
from fsis_jax.cache.private_folder import PrivateFolder
folder, letter = PrivateFolder(pathlib.Path(sys.argv[1])), sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for turn in range(300):
    assert folder.put("what?", letter * 100_000)
    found = folder.get("what?")
    assert found is not None and len(found) == 100_000 and len(set(found)) == 1, found and set(found)
"""


def test_two_processes_at_once_read_whole_answers(tmp_path):
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "kept")]
    pipe = subprocess.PIPE
    both = [subprocess.Popen([*command, letter], stdin=pipe, stdout=pipe, stderr=pipe, text=True) for letter in "ab"]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert len(list((tmp_path / "kept").iterdir())) == 1
