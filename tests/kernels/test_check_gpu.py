"""The GPU check: what it says without a GPU, and that its parts run (on a CPU, in an interpreter, on small cases)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fsis_jax.kernels import check_gpu

from fsis_jax.ops import dispatch


def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("there is one")
    assert check_gpu.main() == 2
    assert capsys.readouterr().out.startswith("No GPU: JAX sees cpu (cpu). ")


class Gpu:
    """Enough of a device for the report."""

    platform, device_kind, compute_capability = "gpu", "a GPU", "9.0"


def test_a_difference_gives_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jax, "devices", lambda: [Gpu()])
    monkeypatch.setattr(dispatch, "default_device", Gpu)
    monkeypatch.setattr(check_gpu, "times", lambda: iter([("nms", 3.0, 1.0, None), ("roi_align", 3.0, 1.0, 2.0)]))
    for value, status in ((0.0, 0), (2.0, 1), (np.nan, 1)):
        monkeypatch.setattr(check_gpu, "differences", lambda value=value: iter([("roi_align", value, 1.0)]))
        assert check_gpu.main() == status
        assert ("WRONG" in capsys.readouterr().out) == bool(status)


def test_largest_difference() -> None:
    a, b = jnp.array([1.0, 4.0]), jnp.array([True, False])
    assert check_gpu._largest((a, b), (a, b)) == 0
    assert check_gpu._largest((a, b), (a, ~b)) == 1
    assert check_gpu._largest((a * 2, b), (a, b)) == 1
    assert not check_gpu._largest(a * jnp.nan, a) <= 1e9


@pytest.mark.slow
def test_kernels_differ_from_xla_by_no_more_than_allowed() -> None:
    names = []
    for name, found, allowed in check_gpu.differences(rois=8, boxes=40, image=64):
        assert found <= allowed, name
        names.append(name)
    assert len(names) == 15


@pytest.mark.slow
def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(call: Any, wait: Any) -> float:
        wait(call())
        return 1.0

    monkeypatch.setattr(check_gpu, "_best", once)
    monkeypatch.setattr(check_gpu, "_torch", lambda: None)
    assert len(list(check_gpu.times(rois=4, boxes=40, image=64))) == 9
