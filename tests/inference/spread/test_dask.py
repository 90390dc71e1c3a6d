"""Dask workers give the files of one machine, byte for byte, whatever becomes of them; what is wrong is told."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from pictures import draw_discs, written

from fsis_jax.cli.dask_cluster import connected
from fsis_jax.errors import FsisError
from fsis_jax.inference import dask_tiles, dask_worker
from fsis_jax.inference.dask_tiles import DaskTiles
from fsis_jax.inference.files_run import segment_from
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.segment_files import segment_files

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
SETTINGS = OutputSettings(("labels", "table", "geojson"), tile=64)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Three small images, and a large one, a third of which shows nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = {"a": (60, 60), "large": (150, 140), "b": (60, 60), "c": (60, 60)}
    return [
        draw_discs(folder / f"{name}.png", size, discs=9, seed=seed, empty_below=100)
        for seed, (name, size) in enumerate(sizes.items())
    ]


@pytest.fixture(scope="module")
def alone(segmenter, references, paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    outcomes = list(segment_files(segmenter, paths, references, folder, SETTINGS))
    return written(folder), [outcome.cells for outcome in outcomes]


def test_workers_give_the_bytes_of_one_machine(segmenter, references, paths, alone, client, tmp_path, monkeypatch):
    under_way = []
    real = DaskTiles._send

    def watched(self, flight, flying):
        real(self, flight, flying)
        under_way.append(len(flying))

    monkeypatch.setattr(DaskTiles, "_send", watched)
    told, given = [], [*map(pathlib.Path, paths)]
    outcomes = list(
        segment_files(
            segmenter, given, references, tmp_path, SETTINGS, client=client, progress=lambda *now: told.append(now)
        )
    )
    assert [outcome.image for outcome in outcomes] == paths
    assert [outcome.cells for outcome in outcomes] == alone[1]
    assert written(tmp_path) == alone[0]
    assert 1 < max(under_way) <= 4
    assert len(under_way) > 5  # the large one is several tasks
    assert {path for path, done, total in told if done == total} == {*paths}
    assert not dask_worker._SERVED  # forgotten


def test_an_image_that_fails_is_told_in_its_place(segmenter, references, paths, alone, client, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0")
    worse = tmp_path / "worse.png"
    worse.write_bytes((tmp_path / "bad.tif").read_bytes())
    given = [paths[0], str(bad), paths[1], str(tmp_path / "gone.png"), paths[2]]
    outcomes = list(segment_files(segmenter, given, references, tmp_path / "out", SETTINGS, client=client))
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, False, True, False]
    for name in ("a-labels.tif", "large-labels.tif", "b-table.csv"):
        assert (tmp_path / "out" / name).read_bytes() == alone[0][name]


def test_an_image_that_workers_cannot_read_fails_alone(
    segmenter, references, paths, alone, client, tmp_path, monkeypatch
):
    def missing(path, *arguments, **options):
        if path.endswith("large.png"):
            raise FsisError(f"{path}: no such file: check the path")
        return real(path, *arguments, **options)

    real = dask_worker.open_target
    monkeypatch.setattr(dask_worker, "open_target", missing)
    outcomes = list(segment_files(segmenter, paths, references, tmp_path, SETTINGS, client=client))
    assert [outcome.error for outcome in outcomes] == ["", f"{paths[1]}: no such file: check the path", "", ""]
    assert {name: alone[0][name] for name in ("a-labels.tif", "c-labels.tif")}.items() <= written(tmp_path).items()


def test_workers_that_differ_are_refused(segmenter, references, client, paths, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(dask_tiles.fsis_jax, "__version__", "9.9")
        real = dask_worker.about
        patch.setattr(dask_tiles, "_workers", lambda *_: {"tcp://w": {**real(), "version of fsis_jax": "0.1"}})
        with pytest.raises(FsisError, match=r"Dask's worker tcp://w: another version of fsis_jax \(0\.1\) than 9\.9"):
            DaskTiles(segmenter, references, client)
    told = {"tcp://a": dask_worker.about(), "tcp://b": {**dask_worker.about(), "number of threads": 99}}
    with monkeypatch.context() as patch:
        patch.setattr(dask_tiles, "_workers", lambda *_: told)
        with pytest.raises(FsisError, match=r"worker tcp://b: another number of threads \(99\) than"):
            DaskTiles(segmenter, references, client)
    with DaskTiles(segmenter, references, client) as source:
        for served in dask_worker._SERVED.values():
            arrays = served._model.arrays
            name = next(iter(arrays))
            arrays[name] = arrays[name] + 1  # as damaged on its way
        (outcome,) = segment_from(source, paths[:1], references, tmp_path, SETTINGS)
    assert "has other weights than were sent: start it again" in outcome.error


def test_workers_that_cannot_be_asked_are_told(segmenter, references, client, monkeypatch):
    lost = Exception("ModuleNotFoundError(\"No module named 'fsis_jax'\")")  # what comes of a worker without it
    monkeypatch.setattr(client, "run", lambda *_, **__: {"tcp://w": lost})
    with pytest.raises(FsisError, match=r"worker tcp://w: cannot run this package \(Module.+\): install fsis_jax"):
        DaskTiles(segmenter, references, client)
    real = client.wait_for_workers
    monkeypatch.setattr(client, "wait_for_workers", lambda _, timeout: real(3, timeout))
    with pytest.raises(FsisError, match=r"Dask's scheduler has no worker after 0\.01 seconds: start some"):
        DaskTiles(segmenter, references, client, patience=0.01)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("tcp://127.0.0.1:9", "the scheduler does not answer"),
        ("local:0", "give from 1 to 1024 processes, as local:4"),
        ("local:x", "give from 1 to 1024 processes, as local:4"),
        ("nonsense://x:1", "the scheduler does not answer"),
        ("missing.json", "no such scheduler file, nor an address as tls://login1:8786"),
    ],
)
def test_schedulers_that_do_not_answer(scheduler, message, monkeypatch, caplog):
    monkeypatch.setattr("fsis_jax.cli.dask_cluster._PATIENCE", 1.0)
    with pytest.raises(FsisError, match=f"--dask {scheduler}: {message}") as failure, connected(scheduler):
        pass
    assert "\n" not in str(failure.value)
    assert not caplog.records or "://x" in scheduler  # what is no address is not told to be unsafe


def test_local_workers_keep_their_memory_and_runs_do_not_share_a_port(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then it is taken already, as by Dask's dashboard
            stack.enter_context(socket.create_server(("127.0.0.1", 8787)))
        client = stack.enter_context(connected("local:1"))
        (environment,) = client.run(lambda: dict(os.environ)).values()
        assert "MALLOC_TRIM_THRESHOLD_" not in environment
        assert environment["OMP_NUM_THREADS"] == "1"  # of Dask's other settings


def test_plain_addresses_of_other_machines_are_warned_of(caplog):
    from fsis_jax.cli.dask_cluster import _warn_of_plain

    for address in ("tcp://127.0.0.1:8786", "localhost:8786", "tls://node7:8786", "tcp://[::1]:8786"):
        _warn_of_plain(address)
    assert not caplog.records
    _warn_of_plain("tcp://10.1.2.3:8786")
    _warn_of_plain("node7:8786")
    assert [record.getMessage()[:25] for record in caplog.records] == [
        "--dask tcp://10.1.2.3:878",
        "--dask node7:8786: not en",
    ]


@pytest.mark.slow
def test_workers_that_are_killed_cost_no_tile(tiny_run, references, segmenter, tmp_path):
    """Processes; two of them are killed while they are at work."""
    draw_discs(tmp_path / "a.png", (600, 600), discs=300, seed=0)
    references.save(tmp_path / "a.refs")
    command = [sys.executable, "-m", "fsis_jax", "segment", tmp_path / "a.png", "--references", tmp_path / "a.refs"]
    command += ["--checkpoint", tiny_run.workdir, "--min-score", "0", "--tile", "64", "--save", "labels", "geojson"]
    subprocess.run([*command, "--output", tmp_path / "alone"], check=True)
    process = subprocess.Popen([*command, "--output", tmp_path / "out", "--dask", "local:2"])
    killed = set()
    journal = tmp_path / "out" / ".tiles" / "a"
    while process.poll() is None:
        if len(killed) < 2 and journal.exists() and journal.stat().st_size > 20_000 * (len(killed) + 1):
            workers = [pid for pid in _children(process.pid) if pid not in killed]
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[-1], signal.SIGKILL)
                killed.add(workers[-1])
        time.sleep(0.05)
    assert process.returncode == 0
    assert len(killed) == 2
    for name in ("a-labels.tif", "a.geojson", "summary.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def _children(pid):
    """Processes of Dask below one, those that have most memory last."""
    told = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in told.splitlines()]
    known, found = {pid}, []
    for _ in range(4):
        for child, parent, size in rows:
            if parent in known and child not in known:
                known.add(child)
                found.append((size, child))
    return [child for _, child in sorted(found)]
