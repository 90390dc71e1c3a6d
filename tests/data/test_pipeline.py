import collections
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from memory_source import MemorySource, disc_source
from scripts_of_tests import TESTS

from fsis_jax.batch import Batch
from fsis_jax.data.episodes import EpisodeSampler
from fsis_jax.data.pipeline import BatchOrder, bucket_targets, make_batches
from fsis_jax.errors import FsisError
from fsis_jax.preprocess.transform_config import TransformConfig
from fsis_jax.preprocess.transforms import own_scale

CONFIG = TransformConfig(
    scale="reference",
    max_scale=8.0,
    intensity="percentile",
    antialias=True,
    reference_size=32,
    mask_size=14,
    max_instances=16,
    scale_jitter=1.3,
    rot90=True,
    noise=0.05,
)


class BrokenSource(MemorySource):
    def __getitem__(self, index):
        raise FsisError(f"{index}.png: truncated")


def _batches(source, *, workers=0, steps=12, seed=5, config=CONFIG, canvases=((96, 96),), rows=None):
    sampler = EpisodeSampler(
        source.annotations,
        categories={1, 2},
        targets=range(len(source)),
        shots=2,
        scale_of=functools.partial(own_scale, config=config),
        seed=seed,
    )
    return make_batches(
        source,
        sampler,
        config,
        trainable={1, 2},
        canvases=canvases,
        batch_size=3,
        steps=steps,
        workers=workers,
        seed=seed,
        rows=rows,
    )


def _same(first, second):
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(Batch)
    )


@pytest.fixture(scope="module")
def source():
    return disc_source(7)


@pytest.fixture(scope="module")
def straight(source):
    with _batches(source) as batches:
        return list(batches)


def test_batches_have_the_shapes_and_dtypes_of_the_contract(straight):
    assert len(straight) == 12
    expected = {
        "images": ((3, 96, 96, 3), np.uint8),
        "image_sizes": ((3, 2), np.int32),
        "references": ((3, 2, 32, 32, 3), np.uint8),
        "reference_present": ((3,), np.bool_),
        "contrast_references": ((3, 0, 32, 32, 3), np.uint8),
        "contrast_classes": ((3,), np.int32),
        "gt_boxes": ((3, 16, 4), np.float32),
        "gt_valid": ((3, 16), np.bool_),
        "gt_classes": ((3, 16), np.int32),
        "gt_matches": ((3, 16), np.bool_),
        "gt_ignore": ((3, 16), np.bool_),
        "gt_masks": ((3, 16, 14, 14), np.uint8),
        "gt_keypoints": ((3, 16, 0, 3), np.float32),
        "targets": ((3,), np.int32),
        "sample_ids": ((3,), np.int32),
    }
    for step, batch in enumerate(straight):
        assert {name: (v.shape, v.dtype.type) for name, v in vars(batch).items()} == expected
        np.testing.assert_array_equal(batch.sample_ids, np.arange(3) + 3 * step)
        assert all(isinstance(value, np.ndarray) for value in vars(batch).values())


def test_every_target_is_used_once_per_epoch(straight):
    order = np.concatenate([batch.targets for batch in straight])
    for start in range(0, 35, 7):
        assert sorted(order[start : start + 7]) == [0, 1, 2, 3, 4, 5, 6]


def test_a_resumed_run_equals_an_uninterrupted_one(source, straight):
    with _batches(source) as batches:
        for _ in range(5):
            next(batches)
        state = json.loads(json.dumps(batches.get_state()))
    with _batches(source) as resumed:
        resumed.set_state(state)
        rest = list(resumed)
    assert len(rest) == 7
    assert all(_same(a, b) for a, b in zip(rest, straight[5:], strict=True))


def test_processes_that_make_some_of_the_rows_each_make_the_same_batch(source, straight):
    with _batches(source, rows=(0, 2)) as first, _batches(source, rows=(1,)) as second:
        for whole in straight[:4]:
            outer, inner = next(first), next(second)
            for field in dataclasses.fields(Batch):
                value = getattr(whole, field.name)
                np.testing.assert_array_equal(getattr(outer, field.name), value[[0, 2]], err_msg=field.name)
                np.testing.assert_array_equal(getattr(inner, field.name), value[[1]], err_msg=field.name)
        assert first.get_state() == second.get_state() == {"step": 4, "seed": 5, "batch_size": 3, "targets": 7}


def test_worker_processes_change_nothing(source, straight):
    with _batches(source, workers=2) as batches:
        assert all(_same(next(batches), straight[i]) for i in range(4))
        state = batches.get_state()
        assert state["step"] == 4
        batches.set_state({**state, "step": 9})
        assert all(_same(a, b) for a, b in zip(batches, straight[9:], strict=True))


def test_workers_leave_no_shared_memory(source, monkeypatch):
    monkeypatch.setattr("multiprocessing.shared_memory.SharedMemory", lambda *_, **__: pytest.fail("shared memory"))
    with _batches(source, workers=1) as batches:
        assert next(batches).images.flags.writeable


@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="no /proc to look for processes in")
def test_workers_end_with_a_trainer_that_is_killed(tmp_path):
    """The worker is heard of by the process that started it."""
    program = tmp_path / "trains.py"
    program.write_text(
        "import multiprocessing, time, test_pipeline as t\n"
        "if __name__ == '__main__':\n"
        "    batches = t._batches(t.disc_source(7), workers=1)\n"
        "    next(batches)\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), str(TESTS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    (worker,) = map(int, process.stdout.readline().split())
    os.kill(worker, signal.SIGTERM)  # as a cluster sends to all of a job: the trainer still needs it
    time.sleep(1)
    assert _is_running(worker)
    process.kill()
    _, stderr = process.communicate()  # ends when no process has the stream any more
    assert not _is_running(worker)
    assert "shared_memory" not in stderr


def _is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_another_seed_gives_other_batches_and_refuses_the_state(source, straight):
    with _batches(source, seed=6) as batches:
        assert not _same(next(batches), straight[0])
        with pytest.raises(FsisError, match="seed was 5 and is now 6"):
            batches.set_state({"step": 1, "seed": 5, "batch_size": 3, "targets": 7})


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_source_reach_the_user_as_they_are(source, workers):
    broken = BrokenSource([np.zeros((96, 128), np.uint8)] * 7, source.annotations)
    with _batches(broken, workers=workers) as batches, pytest.raises(FsisError) as caught:
        next(batches)
    assert str(caught.value).endswith(".png: truncated")


def test_buckets_follow_the_shapes_of_the_images():
    wide, high = disc_source(4, size=(96, 128)), disc_source(3, size=(128, 96))
    annotations = [*wide.annotations, *high.annotations]
    source = MemorySource([np.zeros((a.height, a.width), np.uint8) for a in annotations], annotations)
    config = TransformConfig(scale="shortest_side", shortest_side=48, longest_side=64)
    buckets = bucket_targets(source, range(7), config, [(48, 64), (64, 48), (64, 64)])
    assert buckets == {(48, 64): [0, 1, 2, 3], (64, 48): [4, 5, 6]}
    with _batches(source, config=config, canvases=[(48, 64), (64, 48)], steps=7) as batches:
        shapes = collections.Counter(batch.images.shape[1:3] for batch in batches)
    assert shapes == {(48, 64): 4, (64, 48): 3}
    with pytest.raises(FsisError, match="give one canvas"):
        bucket_targets(source, range(7), CONFIG, [(48, 64), (64, 48)])


def test_the_order_uses_every_target_equally_often_whatever_the_buckets():
    buckets = {(10, 10): range(17), (10, 20): range(17, 20), (20, 10): [20]}
    order = BatchOrder(buckets, batch_size=4, seed=0)
    used = collections.Counter()
    for step in range(2 * 21):
        canvas, targets = order(step)
        assert set(targets) <= set(buckets[canvas])
        used.update(targets)
    assert set(used.values()) == {8}
    again = BatchOrder(buckets, batch_size=4, seed=0)
    assert [again(step) for step in reversed(range(42))][::-1] == [order(step) for step in range(42)]
    first = collections.Counter(order(step)[0] for step in range(7))
    assert 4 <= first[(10, 10)] <= 7  # about 17 of 21


def test_real_images(cells_tiny):
    from fsis_jax.data.opening import open_source

    source = open_source(cells_tiny, "train")
    config = dataclasses.replace(CONFIG, reference_size=128, mask_size=28)
    sampler = EpisodeSampler(
        source.annotations,
        categories=set(source.categories),
        targets=range(len(source)),
        shots=1,
        scale_of=functools.partial(own_scale, config=config),
    )
    with make_batches(
        source,
        sampler,
        config,
        trainable=set(source.categories),
        canvases=[(128, 128)],
        batch_size=6,
        steps=4,
        workers=0,
        seed=0,
    ) as batches:
        for batch in batches:
            assert batch.reference_present.any()
            assert batch.gt_valid.any(axis=1).all()
            assert (batch.gt_masks[batch.gt_valid].max(axis=(1, 2)) > 127).all()
