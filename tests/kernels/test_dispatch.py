"""What runs RoIAlign and NMS: XLA or the kernels, by device, setting, shapes, and whether there are kernels at all.

No GPU is needed: a device is described, and programs are lowered for CUDA, which takes the kernels through all of
Mosaic GPU's lowering but not through the GPU's own compiler.
"""

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from fsis_jax import ops
from fsis_jax.models.detection import View, detect
from fsis_jax.models.detector import Detector
from fsis_jax.ops import dispatch
from fsis_jax.recipes import compact_config

BOXES = jnp.asarray(np.random.default_rng(0).uniform(0, 20, (40, 4)), jnp.float32)
SCORES, VALID = jnp.linspace(0.0, 1.0, 40), jnp.ones(40, bool)
LEVELS = jnp.arange(40) % 2 + 2


@dataclasses.dataclass(frozen=True)
class Device:
    """What of a jax.Device the choice depends on."""

    compute_capability: str
    platform: str = "gpu"
    device_kind: str = "a GPU"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Traces and log lines of other tests."""
    jax.clear_caches()
    dispatch._log_once.cache_clear()
    yield
    jax.clear_caches()


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a GPU of this compute capability the default device, as far as the choice goes."""
    return lambda capability: monkeypatch.setattr(dispatch, "default_device", lambda: Device(capability))


def pyramid(channels: int = 128, dtype: Any = jnp.float32) -> dict[int, jax.Array]:
    return {level: jnp.ones((4, 6, channels), dtype) for level in (2, 3)}


def align(features: Any, rois: jax.Array = BOXES, **settings: Any) -> jax.Array:
    return ops.multilevel_roi_align(features, rois, LEVELS, output_size=2, **{"backend": "auto", **settings})


def gradient(features: Any, rois: jax.Array = BOXES, **settings: Any) -> Any:
    return jax.grad(lambda features: (align(features, rois, **settings) ** 2).mean().astype(jnp.float32))(features)


def nms(boxes: jax.Array = BOXES, **settings: Any) -> tuple[jax.Array, jax.Array]:
    return ops.nms(boxes, SCORES, VALID, iou_threshold=0.5, max_outputs=10, **{"backend": "auto", **settings})


def kernels_in(function: Callable[..., Any], *arguments: Any) -> int:
    """Mosaic GPU kernels in the program for CUDA."""
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",))
    return lowered.as_text().count("custom_call @mosaic_gpu")


def test_kernels_run_where_they_can(on: Callable[[str], None], caplog: pytest.LogCaptureFixture) -> None:
    counts = {}
    for capability in ("9.0", "10.0", "8.0", "gfx942"):
        on(capability)
        counts[capability] = [kernels_in(align, pyramid()), kernels_in(gradient, pyramid()), kernels_in(nms)]
        jax.clear_caches()
    assert counts == {"9.0": [1, 2, 2], "10.0": [1, 2, 2], "8.0": [0, 0, 0], "gfx942": [0, 0, 0]}
    assert len(caplog.records) == 1  # the same for both devices, since their kind is the same
    assert "a GPU: the Pallas kernels need an NVIDIA GPU of compute capability 9.0" in caplog.text


def test_either_can_be_forced(on: Callable[[str], None], caplog: pytest.LogCaptureFixture, unchecked: None) -> None:
    on("8.0")
    assert kernels_in(lambda x: align(x, backend="pallas"), pyramid()) == 1
    assert kernels_in(lambda: nms(backend="pallas")) == 2
    on("9.0")
    assert kernels_in(lambda x: align(x, backend="xla"), pyramid()) == 0
    assert kernels_in(lambda: nms(backend="xla")) == 0
    assert not caplog.records
    with pytest.raises(ValueError, match="backend is 'cuda'; use one of: auto, xla, pallas"):
        align(pyramid(), backend="cuda")


def test_a_cpu_runs_xla_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fsis_jax")
    assert "pallas" not in str(jax.make_jaxpr(align)(pyramid()))
    assert "pallas" not in str(jax.make_jaxpr(nms)())
    assert not caplog.records
    assert "pallas" in str(jax.make_jaxpr(lambda x: align(x, backend="pallas"))(pyramid()))
    assert "pallas" in str(jax.make_jaxpr(lambda: nms(backend="pallas"))())


def test_the_default_device_counts() -> None:
    cpu = jax.devices("cpu")[0]
    for device in (cpu, "cpu"):
        with jax.default_device(device):
            assert dispatch.default_device() == cpu


def test_shapes_without_a_kernel_run_xla(on: Callable[[str], None], caplog: pytest.LogCaptureFixture) -> None:
    on("9.0")
    assert kernels_in(align, pyramid(64)) == 0
    assert kernels_in(align, pyramid(dtype=jnp.float16)) == 0
    assert len(caplog.records) == 2
    assert "no Pallas kernel for roi_align of 64, float32; XLA runs it" in caplog.text
    assert kernels_in(lambda x: align(x, sampling_ratio=0), pyramid()) == 0
    assert (
        kernels_in(
            lambda x: ops.roi_align(x[2], BOXES[:0], spatial_scale=1.0, output_size=2, backend="auto"), pyramid()
        )
        == 0
    )
    many = jnp.zeros((20000, 4))
    assert (
        kernels_in(lambda: ops.nms(many, many[:, 0], many[:, 0] > 0, iou_threshold=0.5, max_outputs=9, backend="auto"))
        == 0
    )
    assert (
        kernels_in(lambda: ops.nms(BOXES[:0], SCORES[:0], VALID[:0], iou_threshold=0.5, max_outputs=9, backend="auto"))
        == 0
    )


@pytest.mark.parametrize("name", ["fsis_jax.kernels", "fsis_jax.kernels.roi_align"])
def test_without_the_folder_xla_runs(
    on: Callable[[str], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in [module for module in sys.modules if module.startswith("fsis_jax.kernels")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    on("9.0")
    assert kernels_in(align, pyramid()) == kernels_in(gradient, pyramid()) == 0
    assert "no Pallas kernels for roi_align here" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernels_lower_for_cuda_under_vmap_and_shard_map(on: Callable[[str], None], dtype: Any) -> None:
    """Types included: with `check_vma`, a result of the wrong one is an error."""
    on("9.0")
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    batch, shared = PartitionSpec("batch"), PartitionSpec()
    features = {level: jnp.stack([x, x]) for level, x in pyramid(256, dtype).items()}
    boxes = jnp.stack([BOXES, BOXES])

    def training(weight: jax.Array, features: Any, boxes: jax.Array) -> jax.Array:
        """The gradient in a weight that all devices share, of a mean over the devices."""

        def of_image(weight: jax.Array, features: Any, boxes: jax.Array) -> jax.Array:
            features = {level: x * weight.astype(x.dtype) for level, x in features.items()}
            rois = boxes[nms(boxes)[0]]
            pooled = ops.multilevel_roi_align(features, rois, LEVELS[:10], output_size=7, backend="auto")
            return (pooled.astype(jnp.float32) ** 2).mean()

        def loss(weight: jax.Array) -> jax.Array:
            return jax.lax.pmean(jax.vmap(of_image, (None, 0, 0))(weight, features, boxes).mean(), "batch")

        return jax.grad(loss)(weight)

    sharded = jax.shard_map(training, mesh=mesh, in_specs=(shared, batch, batch), out_specs=shared)
    assert kernels_in(sharded, jnp.ones(()), features, boxes) == 4


def test_a_gradient_passes_the_chosen_boxes_and_not_the_kernel(on: Callable[[str], None]) -> None:
    """A training step takes proposals in the midst of what it differentiates."""
    on("9.0")

    def total(boxes: jax.Array, scores: jax.Array) -> jax.Array:
        kept, valid = ops.nms(boxes, scores, scores > 0, iou_threshold=0.5, max_outputs=4, backend="auto")
        return jnp.where(valid, scores[kept] * boxes[kept].sum(-1), 0).sum()

    assert kernels_in(jax.grad(total, argnums=(0, 1)), jnp.ones((8, 4)), jnp.ones(8)) == 2


@pytest.mark.parametrize(("setting", "expected"), [("auto", 10), ("xla", 0)])
def test_the_detector_passes_its_config_on(on: Callable[[str], None], setting: str, expected: int) -> None:
    """Two kernels for the NMS of each of four levels, and one for the rois of each head."""
    on("9.0")
    config = compact_config().model
    config.backbone.width = 8
    config.fpn.channels = 128
    config.ops = setting
    graph, state = nnx.split(nnx.eval_shape(lambda: Detector(config, rngs=nnx.Rngs(0))))
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    sizes = jax.ShapeDtypeStruct((2, 2), jnp.int32)
    references = jax.ShapeDtypeStruct((2, 1, 32, 32, 3), jnp.float32)

    def run(state: nnx.State, images: jax.Array, sizes: jax.Array, references: jax.Array) -> Any:
        detector = nnx.merge(graph, state)
        return detect(detector, [View(images, sizes)], detector.encode_references(references))

    assert kernels_in(run, state, images, sizes, references) == expected
