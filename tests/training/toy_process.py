"""Run by test_hosts.py, once for each process: scripts/train.py with the toy detector, which compiles in a second.

python toy_process.py PAUSE WAIT --config tiny.py ...    (seconds before each step, and to wait for the other processes)
"""

import sys
import time

import pytest
from toy import train_the_toy

from fsis_jax.cli import command, run
from fsis_jax.training import hosts
from fsis_jax.training.parallel import DataParallel

if __name__ == "__main__":
    pause, wait, *arguments = sys.argv[1:]
    patch = pytest.MonkeyPatch()
    train_the_toy(patch)
    put_batch = DataParallel.put_batch

    def pause_first(self, batch):
        time.sleep(float(pause))
        return put_batch(self, batch)

    patch.setattr(DataParallel, "put_batch", pause_first)
    patch.setattr(hosts, "WAIT_SECONDS", int(wait))
    run(command("train"), arguments)
