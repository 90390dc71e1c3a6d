"""Run by test_parallel.py with four virtual devices: three steps by each of some mappings.

python three_mappings.py DATA OUT.npz MAPPING ...
"""

import dataclasses
import sys

import jax
import numpy as np
import tiny
from flax import nnx

from fsis_jax.checkpoints.flat import flat_model
from fsis_jax.config import base_config
from fsis_jax.data.from_config import open_splits, training_batches
from fsis_jax.models.detector import Detector
from fsis_jax.training.parallel import DataParallel
from fsis_jax.training.step import new_state

MAPPINGS = {"one": ("shard_map", 1), "shard_map": ("shard_map", 4), "pmap": ("pmap", 4)}
"""Label -> how the step is mapped, and over how many devices."""


def main(data: str, output: str, *labels: str) -> None:
    config = tiny.get_config()
    config.data.root = data
    config.model.matching.norm = "batch"  # whose statistics run over all devices too
    # Feature maps of a few positions have hardly any variance for norms to divide by, and rounding grows with it.
    config.data.transform.reference_size = 128
    config.data.train_canvases = ((128, 128),)
    config.model.fpn.norm = "none"
    config.optimizer = base_config().optimizer
    config.training.batch_size = 4
    batches = training_batches(config, open_splits(config), 3)
    steps = [next(batches) for _ in range(3)]
    _, state, step = new_state(config, nnx.jit(lambda: Detector(config.model, rngs=nnx.Rngs(0)))())
    # Away from the initial values: branches that start as zero put rectifiers on their kinks, where rounding decides.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32), state.params)
    start = jax.tree.map(np.asarray, dataclasses.replace(state, params=params))
    arrays = {f"start/{name}": np.asarray(value) for name, value in flat_model(start).items()}
    for label in labels:
        kind, count = MAPPINGS[label]
        parallel = DataParallel(step, kind, batch_size=4, devices=jax.devices()[:count])
        state = parallel.put_state(start)
        for i, batch in enumerate(steps):
            state, metrics = parallel.step(state, parallel.put_batch(batch))
            for name, value in parallel.one(metrics).items():
                arrays[f"{label}/metrics/{i}/{name}"] = np.asarray(value)
        arrays |= {f"{label}/{name}": np.asarray(value) for name, value in flat_model(parallel.one(state)).items()}
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
