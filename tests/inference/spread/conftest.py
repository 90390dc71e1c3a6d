"""What tests of work that several processes share have in common."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def segmenter(segmenter):
    """Finds something everywhere."""
    return segmenter.with_options(min_score=0.0)


@pytest.fixture(scope="module")
def references(segmenter):
    return segmenter.encode_references([np.tile(np.arange(20, dtype=np.uint8), (20, 1))])


@pytest.fixture(scope="module")
def client():
    """Of two workers in this process, which share what is compiled."""
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    options = {"silence_logs": 50, "threads_per_worker": 1, "processes": False}
    port = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=2, scheduler_kwargs=port, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
