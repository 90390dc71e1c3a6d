"""Clocks, tables and the plain forms of the benchmarks."""

import importlib
import pathlib
import time
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a file of benchmarks/, which is not installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_contenders_take_turns_after_a_warm_up(load: Callable[[str], ModuleType]) -> None:
    calls: list[str] = []
    slow = 0.02

    def contender(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            calls.append(name)
            time.sleep(seconds)

        return call

    times = load("measure").best_times({"a": contender("a", slow), "b": contender("b", 0.0)}, 3)
    assert "".join(calls) == "ab" * 4
    assert slow <= times["a"] < 1
    assert times["b"] < times["a"]


def test_overlapping_intervals_count_once(load: Callable[[str], ModuleType]) -> None:
    union = load("measure")._union
    assert union(iter([])) == 0
    assert union(iter([(0.0, 4e9), (1e9, 2e9), (3e9, 5e9), (7e9, 8e9)])) == pytest.approx(6)


def test_a_sleeping_host_leaves_the_device_idle(load: Callable[[str], ModuleType]) -> None:
    product = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda _, y: y @ x, x))
    x = jnp.zeros((300, 300))
    jax.block_until_ready(product(x))
    with load("measure").traced() as busy:
        start = time.perf_counter()
        jax.block_until_ready(product(x))
        computed = time.perf_counter() - start
        time.sleep(0.3)
    assert 0 < busy.seconds <= computed + 0.05


def test_table(load: Callable[[str], ModuleType]) -> None:
    rows = [{"form": "ours", "ms": 1.25}, {"form": "theirs", "ms": 1234.5, "kept": 7}]
    assert load("report").table(rows).splitlines() == [
        "| form   |    ms | kept |",
        "| ------ | ----: | ---: |",
        "| ours   | 1.250 |      |",
        "| theirs |  1234 |    7 |",
    ]


def test_compiler_counts_a_matrix_product(load: Callable[[str], ModuleType]) -> None:
    program = load("measure").compiled(jnp.matmul, jnp.ones((64, 64)), jnp.ones((64, 64)))
    assert program.gflop == pytest.approx(2 * 64**3 / 1e9, rel=0.1)
    assert program.seconds > 0


def test_forms_of_roi_align_agree(load: Callable[[str], ModuleType]) -> None:
    module = load("roi_ops")
    features = jax.random.normal(jax.random.key(0), (30, 40, 8))
    rois = jnp.asarray(load("cases").cell_boxes(np.random.default_rng(0), 20, (120, 160)))
    expected = module.ours(features, rois, 7)
    for form in (module.dense_einsum, module.gathered_samples):
        np.testing.assert_allclose(form(features, rois, 7), expected, atol=1e-4)


def test_forms_of_suppression_agree(load: Callable[[str], ModuleType]) -> None:
    module = load("suppression")
    boxes, scores = module.crowded_boxes(0, 200)
    kept, count = module.ours(boxes, scores)
    assert 20 < count < 150
    for form in (module.sequential_greedy, module.fixpoint_of_all):
        these, number = form(jnp.asarray(boxes), jnp.asarray(scores))
        assert number == count
        np.testing.assert_array_equal(these[:number], kept[:count])
