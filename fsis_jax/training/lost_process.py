"""What a process of several says when it has lost the others: one line, in the place of JAX's thirty.

JAX aborts a process that misses another one, with its services' messages and a stack, where no Python code of that
process has a say. So `hosts.py` leads its standard error through this program, which knows nothing of the package:

    python lost_process.py DISTRIBUTED < STDERR    (the value of config.distributed)
"""

import os
import re
import signal
import sys

WAIT_SECONDS = 120
"""How long processes wait for one another at the start."""
HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is lost. JAX's default is 100."""
REMEDY = "start all again, fewer or more, with the same command: the run goes on from its last checkpoint"
_LAST_WORDS = re.compile(
    rb"[EF]\d{4} [\d:.]+ +\d+ (?:coordination_service\w*\.cc:\d+\]|\S+ Terminating process because the JAX distributed)"
)


def in_one_line(words: bytes, distributed: str) -> str:
    """What JAX's last words mean."""
    if b"RegisterTask" in words:
        return (
            f"config.distributed is {distributed!r}: the processes did not all meet within {WAIT_SECONDS} s: start all "
            "of them, with the same address, and see that process 0 can be reached there"
        )
    named = re.search(rb"stopped sending heartbeats\):\s+(\d+)", words)
    return f"process {int(named[1]) if named else 0} of the training was lost: {REMEDY}"


def main(distributed: str) -> None:
    """Pass on the standard input until JAX's last words."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they often go to all processes of a job
        signal.signal(number, signal.SIG_IGN)
    words, ended = b"", True
    while read := os.read(0, 1 << 16):
        if not words:
            found = _LAST_WORDS.search(read)
            passed = read[: found.start()] if found else read
            sys.stderr.buffer.write(passed)
            sys.stderr.flush()
            ended = passed.endswith(b"\n") if passed else ended
            read = read[len(passed) :]
        words += read
    if words:
        print("" if ended else "\n", "fsis: error: ", in_one_line(words, distributed), sep="", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
