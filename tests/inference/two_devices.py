"""Run by test_augmentation.py with two virtual devices: the same images by one of them and by both.

python two_devices.py
"""

import jax
import numpy as np
import tiny
from tiny_closed_set import discs, untrained

from fsis_jax.inference import programs as module
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job
from fsis_jax.inference.segmenter import Segmenter

SIZES = ((64, 80), (150, 140), (60, 60), (70, 90), (64, 64))


def main() -> None:
    one, two = jax.local_devices()
    config = tiny.get_config()
    config.data.test_canvases = ((96, 96),)
    network = untrained(config)
    images = [discs(size, seed) for seed, size in enumerate(SIZES)]
    crop = images[0][5:26, 10:31]
    shared = network.encode_references([crop])
    used = []
    find = module.find

    def watched(architecture, device, arrays, *arguments):
        used.append(next(iter(jax.tree.leaves(arrays)[0].devices())))
        return find(architecture, device, arrays, *arguments)

    module.find = watched

    def run(network: Segmenter) -> list[Instances]:
        used.clear()
        # Some have references of their own, which are encoded beside the images.
        jobs = [Job(image, shared if number % 2 else [crop]) for number, image in enumerate(images)]
        results = list(network.candidates(iter(jobs), tile=64))
        assert [job for job, _ in results] == jobs
        return [found for _, found in results]

    alone = run(network)
    assert set(used) == {one}
    both = run(network.with_options(devices=[one, two]))
    assert len(used) > len(images)  # one of them is in tiles
    assert used == [(one, two)[number % 2] for number in range(len(used))]
    for expected, found in zip(alone, both, strict=True):
        assert len(found) > 0
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.labels(0.0), expected.labels(0.0))
    print("the same")


if __name__ == "__main__":
    main()
