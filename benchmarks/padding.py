"""How much of what devices compute is padding: batches of one canvas (ours), or sizes of its own for each device.

    python -m benchmarks.padding --config configs/fis_cell.py --config.data.root=DIR --devices 8

No network runs. A step ends when the last device is done, so that what is waited for is the largest device of each
step: its pixels per image are the cost. The original's DataParallel pads the images of a device to their common size.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from fsis_jax.cli.training_run import changed_config
from fsis_jax.data.from_config import open_splits
from fsis_jax.data.pipeline import BatchOrder, bucket_targets
from fsis_jax.preprocess.transform_config import transform_config
from fsis_jax.preprocess.transforms import scaled_size, shortest_side_scale

STEPS = 2000


def padded(sizes: np.ndarray) -> int:
    """Pixels of the size, in multiples of 32, that holds all sizes (N, 2)."""
    return int(np.prod(-(-sizes.max(0) // 32) * 32))


def waited_for(batches: Sequence[np.ndarray], devices: int) -> float:
    """Mean over the batches, each (devices * n, 2) sizes, of the largest device's pixels per image."""
    return float(np.mean([max(padded(part) for part in np.split(sizes, devices)) for sizes in batches]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=pathlib.Path, required=True)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--images", type=int, default=2, help="on each device")
    options, changes = parser.parse_known_args()
    config = changed_config(options.config, changes)
    transform, batch = transform_config(config), options.devices * options.images
    source = open_splits(config).train
    sizes = np.array(
        [
            scaled_size((one.height, one.width), shortest_side_scale((one.height, one.width), transform))
            for one in source.annotations
        ]
    )
    buckets = bucket_targets(source, range(len(source)), transform, config.data.train_canvases)
    order = BatchOrder(buckets, batch, config.seed)
    canvases = [np.prod(order(step)[0]) for step in range(STEPS)]
    rng = np.random.default_rng(0)
    drawn = [sizes[rng.choice(len(sizes), batch, replace=len(sizes) < batch)] for _ in range(STEPS)]
    by_aspect = [s[np.argsort(s[:, 1] / s[:, 0], kind="stable")] for s in drawn]
    grouped = [sizes[list(order(step)[1])] for step in range(STEPS)]
    exact = float(np.mean(np.prod(sizes, 1)))
    print(f"{len(sizes)} images, {len(buckets)} of {len(config.data.train_canvases)} canvases in use")
    print(f"{options.devices} devices of {options.images} images; a scaled image has {exact / 1e3:.0f} kpixel")
    for name, cost in (
        ("one canvas for each batch, images grouped by canvas (ours)", float(np.mean(canvases))),
        ("the same groups, each device its own size", waited_for(grouped, options.devices)),
        ("images at random, each device its own size (the original)", waited_for(drawn, options.devices)),
        ("the same, sorted by aspect within a batch", waited_for(by_aspect, options.devices)),
        ("images at random, one size for all devices", waited_for(drawn, 1)),
    ):
        print(f"{cost / 1e3:6.0f} kpixel an image are waited for, {1 - exact / cost:5.1%} of them padding: {name}")


if __name__ == "__main__":
    main()
