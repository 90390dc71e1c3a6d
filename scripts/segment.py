"""Segment every cell like the references.

python scripts/segment.py IMAGE... --references CROP... --output OUT
"""

import sys

from fsis_jax.cli import command, run

if __name__ == "__main__":
    run(command("segment"), sys.argv[1:])
