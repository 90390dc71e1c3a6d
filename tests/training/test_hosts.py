"""Two processes of two devices train as one of four; one that is lost, SIGTERM, and what cannot work."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from scripts_of_tests import TESTS, TINY_CONFIG

from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.training import lost_process
from fsis_jax.training.lost_process import REMEDY

TOY = pathlib.Path(__file__).with_name("toy_process.py")
CLUSTERS = {
    "slurm": {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"},
    "mpi": {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"},
}
NUMBERS = {
    "slurm": ("SLURM_PROCID", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
WAITING = "waiting for the other processes, up to {} s\n"


def _start(workdir, data, *changes, distributed="", devices=2, pause=0.0, wait=100, **environment):
    command = [sys.executable, str(TOY), str(pause), str(wait), "--config", str(TINY_CONFIG), "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, f"--config.data.root={data}", f"--config.distributed={distributed}", *changes],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _start_two(workdir, data, *changes, of_second=(), **options):
    address = f"127.0.0.1:{_free_port()}"
    return [
        _start(workdir, data, *changes, *of_second * number, distributed=f"{address},2,{number}", **options)
        for number in range(2)
    ]


def _start_two_by(cluster, *arguments):
    """As a cluster's launcher would start them."""
    port = str(_free_port())
    return [
        _start(*arguments, distributed="auto", JAX_COORDINATOR_PORT=port, **{**CLUSTERS[cluster], **numbers})
        for numbers in ({name: str(number) for name in NUMBERS[cluster]} for number in range(2))
    ]


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _ended(processes):
    """Status and standard error of each."""
    outputs = [process.communicate()[1] for process in processes]
    return list(zip((process.returncode for process in processes), outputs, strict=True))


def _train_in_one(workdir, data):
    ((status, stderr),) = _ended([_start(workdir, data, devices=4)])
    assert status == 0, stderr
    return stderr


def _arrays(workdir):
    """The last step, and every array of its checkpoint."""
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        step = checkpoints.steps()[-1]
        items = {item: checkpoints.arrays(step, item) for item in ("model", "optimizer")}
    return step, {f"{item}/{name}": x for item, arrays in items.items() for name, x in arrays.items()}


def _losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}


def _assert_same_run(workdir, whole):
    (step, found), (last, wanted) = _arrays(workdir), _arrays(whole)
    assert step == last == 12
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert _losses(workdir) == _losses(whole)


def _last_lines(processes, lost):
    """What the other process tells, which must end within a minute."""
    began = time.monotonic()
    _, stderr = processes[1 - lost].communicate(timeout=60)
    print(f"process {1 - lost} ended {time.monotonic() - began:.1f} s after process {lost}")
    assert processes[1 - lost].returncode != 0
    return stderr.splitlines()


def _wait_for(path, processes):
    while not path.exists():
        assert all(process.poll() is None for process in processes), _ended(processes)
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """A run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("hosts") / "whole"
    _train_in_one(workdir, tiny_data)
    return workdir


def test_two_processes_of_two_devices_train_as_one_of_four(whole, tiny_data, tmp_path):
    first, second = _ended(_start_two(tmp_path / "run", tiny_data))
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    _assert_same_run(tmp_path / "run", whole)
    assert "4 device(s) of 2 processes: " in first[1]
    assert "step 12: validation mask AP50 0.500" in first[1]
    assert second[1] == WAITING.format(100)  # process 0 alone tells what happens


@pytest.mark.slow
@pytest.mark.parametrize(("cluster", "kind"), [("slurm", "shard_map"), ("mpi", "pmap")])
def test_processes_of_a_cluster_find_one_another(whole, tiny_data, tmp_path, cluster, kind):
    processes = _start_two_by(cluster, tmp_path / "run", tiny_data, f"--config.parallel={kind}")
    first, second = _ended(processes)
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    _assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "again"), [(0, 2), (1, 1)])
def test_a_killed_process_ends_the_other_and_fewer_or_as_many_go_on(whole, tiny_data, tmp_path, lost, again):
    workdir = tmp_path / "run"
    processes = _start_two(workdir, tiny_data, pause=0.3)
    _wait_for(workdir / "checkpoints" / "3", processes)
    processes[lost].kill()
    processes[lost].communicate()
    lines = _last_lines(processes, lost)
    assert lines[-1].startswith("fsis: error: ")
    assert " of the training was lost" in lines[-1]
    assert lines[-1].endswith(REMEDY)
    assert [line for line in lines if "Error" in line or "@ " in line or "E1" in line] == []
    if again == 1:
        assert "going on from step " in _train_in_one(workdir, tiny_data)
    else:
        first, second = _ended(_start_two(workdir, tiny_data))
        assert (first[0], second[0]) == (0, 0), first[1] + second[1]
        assert "going on from step " in first[1]
    _assert_same_run(workdir, whole)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_process_that_no_longer_answers_ends_the_other_within_a_minute(tiny_data, tmp_path, frozen):
    processes = _start_two(tmp_path / "run", tiny_data, pause=0.3)
    _wait_for(tmp_path / "run" / "checkpoints" / "3", processes)
    processes[frozen].send_signal(signal.SIGSTOP)
    try:
        lines = _last_lines(processes, frozen)
    finally:
        processes[frozen].kill()
        processes[frozen].communicate()
    assert lines[-1] == f"fsis: error: process {frozen} of the training was lost: {REMEDY}"


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_sigterm_to_one_process_stops_both_after_the_same_step(whole, tiny_data, tmp_path, asked):
    workdir = tmp_path / "run"
    processes = _start_two(workdir, tiny_data, pause=0.5)
    _wait_for(workdir / "checkpoints" / "3", processes)
    processes[asked].terminate()
    first, second = _ended(processes)
    assert (first[0], second[0]) == (143, 143), first[1] + second[1]
    step, _ = _arrays(workdir)
    assert 3 <= step < 12
    _train_in_one(workdir, tiny_data)
    _assert_same_run(workdir, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_processes_that_do_not_meet_say_so_in_one_line(tiny_data, tmp_path, number):
    place = f"127.0.0.1:{_free_port()},2,{number}"
    process = _start(tmp_path / "run", tiny_data, distributed=place, wait=5)
    _, told, *more = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode != 0
    assert told.startswith(f"fsis: error: config.distributed is '{place}': the processes did not all meet within ")
    assert more == []
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "of_second", "teller", "message"),
    [
        (
            (),
            ("--config.seed=1",),
            1,
            "process 1 has another config or version of fsis_jax than process 0: give all the same",
        ),
        (
            ("--config.training.batch_size=6",),
            (),
            0,
            "config.training.batch_size is 6; it must be a multiple of the 4 devices",
        ),
    ],
)
def test_what_two_processes_cannot_do_is_told_in_one_line(tiny_data, tmp_path, changes, of_second, teller, message):
    ended = _ended(_start_two(tmp_path / "run", tiny_data, *changes, of_second=of_second))
    assert ended[teller] == (2, f"{WAITING.format(100)}fsis: error: {message}\n")
    status, stderr = ended[1 - teller]  # it loses the other, if it does not find the same
    assert status != 0
    assert stderr.startswith(f"{WAITING.format(100)}fsis: error: ")
    assert stderr.count("\n") == 2
    assert not (tmp_path / "run").exists()


def test_auto_without_a_cluster_is_told_in_one_line(tiny_data, tmp_path):
    ((status, stderr),) = _ended([_start(tmp_path / "run", tiny_data, distributed="auto")])
    assert status == 2
    _, told = stderr.splitlines()
    assert told.startswith(
        "fsis: error: config.distributed is 'auto': coordinator_address should be defined.; without "
    )


LAST_WORDS = """\
{}1201 09:49:03.464356    5120 {}] Polled an error from coordination service (this can be an error from this).
F1201 09:49:03.464405    5120 client.h:80] Terminating process because the JAX distributed service detected fatal \
errors. absl::Status: {}
*** Check failure stack trace: ***
    @     0x7fbfda640634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "UNAVAILABLE: unhealthy (stopped sending heartbeats):\n1\nRPC",
            "process 1 of the training was",
        ),
        ("UNAVAILABLE: Failed to send RPC to coordination service.", "process 0 of the training was lost: start all"),
        (
            "DEADLINE_EXCEEDED\nRPC: /CoordinationService/RegisterTask",
            "config.distributed is 'a:1,2,1'",
        ),
    ],
)
@pytest.mark.parametrize("before", ["", "a line\n", "25%| a bar without an end"])
def test_the_last_words_of_jax_become_one_line(before, words, told):
    text = before + LAST_WORDS.format("E", "coordination_service_agent.cc:289", words)
    command = [sys.executable, lost_process.__file__, "a:1,2,1"]
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    kept, _, line = result.stderr.partition("fsis: error: ")
    assert kept == before + "\n" * (before[-1:] not in ("", "\n"))
    assert line.startswith(told)
    assert line.count("\n") == 1


def test_other_text_passes_as_it_is():
    text = "a line\nW1201 09:49:03.46    5120 coordination_service.cc:1] a warning\nF1201 09:49:03.46 1 other.cc:1] a\n"
    command = [sys.executable, lost_process.__file__, "auto"]
    assert subprocess.run(command, input=text, capture_output=True, text=True, check=True).stderr == text
