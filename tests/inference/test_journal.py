"""Finished tiles on disk: what is read back, and what is not trusted."""

import errno
import os

import numpy as np
import pytest

from fsis_jax.errors import OutputError
from fsis_jax.inference.instances import CroppedMask, Instances
from fsis_jax.inference.journal import Journal


def found(seed: int, count: int = 3) -> Instances:
    rng = np.random.default_rng(seed)
    masks = tuple(CroppedMask(seed, i, rng.random((5 + i, 7)) > 0.4) for i in range(count))
    scores = np.sort(rng.random(count).astype(np.float32))[::-1]
    return Instances(rng.random((count, 4)).astype(np.float32), scores, masks, (64, 80))


def same(one: Instances, two: Instances) -> bool:
    return (
        np.array_equal(one.boxes, two.boxes)
        and np.array_equal(one.scores, two.scores)
        and one.size == two.size
        and all(a[:2] == b[:2] and np.array_equal(a.mask, b.mask) for a, b in zip(one.masks, two.masks, strict=True))
    )


@pytest.fixture
def written(tmp_path):
    journal = Journal(tmp_path / "x.partial" / "tiles", "key")
    assert not journal.path.parent.exists()  # nothing is written for an image that is not finished in parts
    for tile, count in ((0, 3), (7, 0), (3, 1)):
        journal.add(tile, found(tile, count))
    journal.close()
    return journal.path


def test_what_was_added_is_there_again(written):
    journal = Journal(written, "key")
    assert list(journal.finished) == [0, 7, 3]
    assert all(same(journal.finished[tile], found(tile, count)) for tile, count in ((0, 3), (7, 0), (3, 1)))


def test_another_key_begins_again(written):
    journal = Journal(written, "another key")
    assert journal.finished == {}
    journal.add(1, found(1))
    journal.close()
    assert list(Journal(written, "another key").finished) == [1]
    assert Journal(written, "key").finished == {}


@pytest.mark.parametrize("kept", range(1, 40, 6))
def test_a_record_that_was_cut_off_is_dropped_and_written_over(written, kept):
    content = written.read_bytes()
    written.write_bytes(content[:-kept])
    journal = Journal(written, "key")
    assert list(journal.finished) == [0, 7]
    journal.add(9, found(9))
    journal.close()
    assert list(Journal(written, "key").finished) == [0, 7, 9]


def test_a_damaged_record_ends_the_journal(written):
    content = bytearray(written.read_bytes())
    content[len(content) // 3] ^= 1
    written.write_bytes(content)
    assert list(Journal(written, "key").finished) == []


@pytest.mark.parametrize("content", [b"", b"fsis", b"fsis tiles 2\n", bytes(range(255, -1, -1))])
def test_another_file_is_begun_again(written, content):
    written.write_bytes(content)
    journal = Journal(written, "key")
    assert journal.finished == {}
    journal.add(2, found(2))
    journal.close()
    assert list(Journal(written, "key").finished) == [2]


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(tmp_path / "tiles", "key")
    monkeypatch.setattr(journal, "_open", Full)
    with pytest.raises(OutputError, match=r"tiles: cannot be written \(No space left on device\): free some space"):
        journal.add(0, found(0))


@pytest.mark.parametrize("zeros", [5, 12, 4096])
def test_zeros_at_the_end_are_no_record(written, zeros):
    """As after a loss of power."""
    with written.open("ab") as file:
        file.write(bytes(zeros))
    assert list(Journal(written, "key").finished) == [0, 7, 3]
