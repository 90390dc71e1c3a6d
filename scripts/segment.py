"""Segment every cell like the references.

python scripts/segment.py IMAGE... --references CROP... --checkpoint runs/cells --output OUT
"""

import sys

from fsis_jax.cli import run, segment

if __name__ == "__main__":
    run(segment, sys.argv[1:])
