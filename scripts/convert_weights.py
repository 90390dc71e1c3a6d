"""Convert weights of CA_FSIS_Cell, torchvision, One-Shot-Object-Detection or Detectron, or a run of ours back.

python scripts/convert_weights.py model_step9999.pth --output runs/converted
python scripts/convert_weights.py runs/cells --to-pytorch cells.pth
"""

import sys

from fsis_jax.cli import command, run

if __name__ == "__main__":
    run(command("convert"), sys.argv[1:])
