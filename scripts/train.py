"""Train a detector, or go on where the folder's last checkpoint stopped.

python scripts/train.py --config configs/cells_cpu.py --config.data.root=DIR --workdir runs/cells
"""

from fsis_jax.cli import train

if __name__ == "__main__":
    train()
