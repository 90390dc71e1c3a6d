"""Test a trained detector on the test images; prints a table, writes WORKDIR/evaluation.

python scripts/evaluate.py --config configs/cells_cpu.py --config.data.root=DIR --workdir runs/cells \
    --config.eval.split=unseen --config.eval.shots=1
"""

import sys

from fsis_jax.cli import command, run

if __name__ == "__main__":
    run(command("evaluate"), sys.argv[1:])
