"""What becomes of images whose tiles fail on a worker, or whose scheduler goes. The client is a stand-in."""

import types

import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference import dask_tiles
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.job import Job, Work
from fsis_jax.inference.journal import Journal, pack_tile
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import NO_REFERENCES
from fsis_jax.inference.tile_source import SourceLostError
from fsis_jax.inference.tiling import Tile
from fsis_jax.io.image_file import ImageFile, Plane
from fsis_jax.preprocess.windows import Window

NOTHING = Instances.none((10, 10))
TILE = Tile(Window(0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10))


class Sent:
    """A future."""

    def __init__(self, found, *, fails):
        self.found, self.fails = found, fails

    def result(self):
        if self.fails:
            raise FsisError("a tile is damaged")
        return self.found


class StandIn:
    """A client whose task number `fails` raises, and the others find nothing."""

    status = "running"

    def __init__(self, fails=None):
        self.fails, self.sent, self.cancelled = fails, 0, []

    def nthreads(self):
        return {"one": 1, "two": 1}

    def submit(self, function, key, task, *, pure):
        self.sent += 1
        return Sent([(k, pack_tile(k, NOTHING)) for k in task.numbers], fails=self.sent == self.fails)

    def cancel(self, futures):
        self.cancelled += futures


@pytest.fixture
def source():
    """Of a client, tiles of images of six tiles."""

    def made(client):
        plan = types.SimpleNamespace(tiles=[TILE] * 6, stretch=None, size=(10, 10), margin=1)
        found = object.__new__(dask_tiles.DaskTiles)
        found.segmenter = types.SimpleNamespace(
            min_score=0.5, work=lambda job, tile: Work(job, [plan], NO_REFERENCES, NOTHING)
        )
        found._client, found._limit, found._looked, found._key = client, 2, -np.inf, "key"
        return found

    return made


def _jobs(tmp_path, *names):
    for name in names:
        plane = Plane(name, (10, 10), np.dtype("u1"), lambda *_: None)
        yield Job(ImageFile(name, [plane], None), None, None, Journal(tmp_path / f"{name}.tiles", "key"))


def test_what_comes_after_an_image_failed_does_not_touch_its_journal(source, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_tiles, "wait", lambda futures, **_: (futures[:1], []))
    client, results = StandIn(fails=2), {}
    for job, found in source(client).candidates(
        _jobs(tmp_path, "A", "B"), settings=OutputSettings(), progress=lambda *_: None
    ):
        results[job.image.path] = found
        job.journal.close()
    assert str(results["A"]) == "a tile is damaged"
    assert len(results["B"]) == 0
    assert client.cancelled


def test_a_scheduler_that_goes_ends_the_run(source, tmp_path, monkeypatch):
    client = StandIn()

    def gone(*_, **__):
        client.status = "closed"
        raise TimeoutError

    monkeypatch.setattr(dask_tiles, "wait", gone)
    stream = source(client).candidates(_jobs(tmp_path, "A", "B"), settings=OutputSettings(), progress=lambda *_: None)
    with pytest.raises(SourceLostError, match="scheduler is gone"):
        next(stream)
