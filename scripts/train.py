"""Train a detector, or go on where the folder's last checkpoint stopped.

python scripts/train.py --config configs/cells_cpu.py --config.data.root=DIR --workdir runs/cells
"""

import sys

from fsis_jax.cli import command, run

if __name__ == "__main__":
    run(command("train"), sys.argv[1:])
