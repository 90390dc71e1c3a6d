"""A batch has the types and shapes that its annotations say, and one size for each letter."""

import dataclasses
import pathlib
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import jaxtyped
from tiny import get_config

from fsis_jax.batch import Batch
from fsis_jax.data.from_config import open_splits, training_batches


@jaxtyped(typechecker=None)
def unlike(batch: Batch) -> list[str]:
    """The fields that are not what they are annotated as, of arrays of JAX or of numpy."""
    return [
        name
        for name, either in typing.get_type_hints(Batch).items()
        if not any(isinstance(getattr(batch, name), annotation) for annotation in typing.get_args(either))
    ]


@pytest.mark.parametrize("contrast", [False, True])
def test_a_batch_is_what_its_annotations_say(tiny_data: pathlib.Path, contrast: bool) -> None:
    config = get_config()
    config.data.root, config.data.contrast = str(tiny_data), contrast
    with training_batches(config, open_splits(config), 1) as batches:
        batch = next(iter(batches))
    assert (batch.contrast_references.shape[1] > 0) == contrast
    assert unlike(batch) == []
    assert unlike(jax.tree.map(jnp.asarray, batch)) == []

    def with_(**fields: typing.Any) -> Batch:
        return dataclasses.replace(batch, **fields)

    assert unlike(with_(images=batch.images.astype(np.float32))) == ["images"]
    assert unlike(with_(gt_valid=batch.gt_valid[:, :-1])) == ["gt_valid"]
    assert unlike(with_(targets=batch.targets[:-1], gt_boxes=batch.gt_boxes[..., :3])) == ["gt_boxes", "targets"]
    assert unlike(with_(image_sizes=None)) == ["image_sizes"]
