"""One device, four by shard_map and four by pmap take the same steps."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent


def _steps(data, output, *labels):
    """Parameters and metrics of three steps by each of these mappings."""
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    command = [sys.executable, str(HERE / "three_mappings.py"), str(data), str(output), *labels]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(np.load(output))


@pytest.fixture(scope="module")
def arrays(tiny_data, tmp_path_factory):
    return _steps(tiny_data, tmp_path_factory.mktemp("parallel") / "arrays.npz", "one", "shard_map")


def _part(arrays, label):
    return {name.removeprefix(f"{label}/"): x for name, x in arrays.items() if name.startswith(f"{label}/")}


def _check_equal(one, four):
    assert one.keys() == four.keys()
    for name, value in one.items():
        np.testing.assert_allclose(four[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_four_devices_take_the_steps_of_one(arrays):
    _check_equal(_part(arrays, "one"), _part(arrays, "shard_map"))


@pytest.mark.slow
def test_pmap_takes_the_same_steps(arrays, tiny_data, tmp_path):
    _check_equal(_part(arrays, "one"), _part(_steps(tiny_data, tmp_path / "pmap.npz", "pmap"), "pmap"))


def test_the_steps_do_something(arrays):
    """The comparison would hold for parameters that never move, and for losses that nothing enters."""
    one, start = _part(arrays, "one"), _part(arrays, "start")
    moved = {name for name, value in start.items() if not np.array_equal(value, one[name])}
    assert len(moved) > 0.9 * len(start)
    assert {"matching/target_norm/mean", "matching/target_norm/var", "mask_head/first/kernel"} <= moved
    for term in ("rpn_class", "rpn_box", "box_class", "box_regression", "mask"):
        assert one[f"metrics/2/loss/{term}"] > 0
