"""A detector with nine parameters and no detections, for tests of the training loop alone: it compiles in a second."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from ml_collections import ConfigDict

import fsis_jax.training.loop
import fsis_jax.training.run
import fsis_jax.training.step
from fsis_jax.batch import Batch


class ToyDetector(nnx.Module):
    """Learns that the mean colour of an image is (1, 1, 1), with a little noise from the step's key."""

    def __init__(self, config: ConfigDict, *, rngs: nnx.Rngs) -> None:
        self.offset = int(config.legacy_boxes)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 2)))
        self.bias = nnx.Param(jnp.zeros(config.fpn.channels))

    def losses(
        self, batch: Batch, key: jax.Array, *, axis_name: str
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        colours = jnp.asarray(batch.images, jnp.float32).mean((1, 2)) / 255  # (B, 3)
        count = jax.lax.psum(jnp.float32(len(colours)), axis_name)
        noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row)))(batch.sample_ids)
        error = (colours @ self.kernel[...] + self.bias[:2] - 1).sum(1) + 0.1 * noise
        return {"colour": (error**2).sum() / count}, {"images": jnp.float32(len(colours))}


def toy_losses(model: ToyDetector, *arguments: Any, axis_name: str) -> Any:
    """In the place of `objective.training_losses`."""
    return model.losses(*arguments, axis_name=axis_name)


def train_the_toy(patch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The loop trains the toy; the list holds what each validation in turn returns, the last one for ever."""
    results: list[dict[str, Any]] = [{"mask_ap50": 0.5, "f1": 0.5, "min_score": 0.25}]
    patch.setattr(fsis_jax.training.run, "Detector", ToyDetector)
    patch.setattr(fsis_jax.training.step, "training_losses", toy_losses)
    patch.setattr(
        fsis_jax.training.loop, "validate", lambda *_, **__: results.pop(0) if len(results) > 1 else results[0]
    )
    return results


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """See `train_the_toy`."""
    return train_the_toy(monkeypatch)
