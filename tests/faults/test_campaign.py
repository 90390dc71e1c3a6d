"""The campaign, whole where it is asked for (`python -m pytest -m faults`), and the part of it that takes seconds."""

import subprocess
import sys
import time

import pytest
from campaign import FAULTS, mutated
from outcome import table


@pytest.mark.faults
def test_nothing_is_lost_and_nothing_told_wrong():
    done = subprocess.run([sys.executable, str(FAULTS / "campaign.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_damaged_files_of_every_kind_are_read_or_refused(tmp_path):
    tallies = mutated(tmp_path, 400, time.monotonic() + 600, seed=1)
    assert sum(tally.tried for tally in tallies) == 400
    assert not any(tally.failed for tally in tallies), table(tallies)
    assert len(tallies) >= 12
