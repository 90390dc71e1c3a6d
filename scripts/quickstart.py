"""The whole way in some minutes on two CPU cores, on cells that it draws itself: train, test, segment, look.

python scripts/quickstart.py

Writes data/synthetic and runs/quickstart below the current folder. Run again, it goes on where it stopped.
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from fsis_jax.cli import run
from fsis_jax.cli.training import train
from fsis_jax.data.from_config import held_out, open_split
from fsis_jax.evaluation.predictions import read_target, segment_targets
from fsis_jax.evaluation.selectivity import measure_selectivity
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.overlay import draw_overlay
from fsis_jax.io.writers import write_png

CONFIG = pathlib.Path(__file__).resolve().parent.parent / "configs" / "quickstart.py"
WORKDIR = pathlib.Path("runs/quickstart")


def quickstart(_: Sequence[str]) -> None:
    """Train, print how well the references are heeded, and draw one image segmented twice."""
    train(["--config", str(CONFIG), "--workdir", str(WORKDIR)])
    segmenter = Segmenter.from_checkpoint(WORKDIR)
    config = segmenter.config
    targets, references = open_split(config, "test"), open_split(config, "train")
    seen, _unseen = held_out(targets, config.data.fold)
    print(measure_selectivity(segmenter, targets, references, seen))

    several = [i for i, found in enumerate(targets.annotations) if len(set(found.classes.tolist())) == 2]
    position = several[len(several) // 2]
    image = to_rgb8(read_target(targets, position), stretch=True)
    pictures = []
    for category in sorted(set(targets.annotations[position].classes.tolist())):
        work = [(position, category)]
        (found,) = segment_targets(segmenter, targets, references, work, shots=1, references="train")
        instances = found.instances.without_overlaps()
        print(
            f"{targets.annotations[position].file_name}, shown {targets.categories[category]}: {len(instances)} cells"
        )
        pictures.append(draw_overlay(image, instances, references=list(found.references), text=None))
    write_png(WORKDIR / "quickstart.png", np.concatenate(pictures, axis=1))
    print(f"the picture: {WORKDIR / 'quickstart.png'}")


if __name__ == "__main__":
    run(quickstart, sys.argv[1:])
