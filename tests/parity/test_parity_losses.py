"""Loss terms and their gradients against the PyTorch project's, on given predictions and targets."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import relative
from golden_files import Vectors, load
from parity_table import Figures

from fsis_jax.models.losses import box_losses, mask_loss, smooth_l1


@pytest.fixture(scope="module")
def vectors(golden: pathlib.Path) -> Vectors:
    return load(golden, "ops.npz")


def present(case: str) -> np.ndarray:
    """(images,) bool of a case such as "q10": whether the references of image 0, 1, ... are of its own category."""
    return np.array([digit == "1" for digit in case.removeprefix("q")])


def by_image(image: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, ...) of images `image` (n,) -> (images, most, ...), padded with zeros, and which are real."""
    counts = np.bincount(image.astype(int))
    padded = np.zeros((len(counts), counts.max(), *values.shape[1:]), values.dtype)
    valid = np.arange(counts.max()) < counts[:, None]
    for row in range(len(counts)):
        padded[row, : counts[row]] = values[image == row]
    return padded, valid


def test_smooth_l1(vectors: Vectors, figures: Figures) -> None:
    """Weighted inside and outside, over the number of rows."""
    prediction, target, inside, outside = (vectors[f"sl1/{name}"] for name in ("pred", "target", "w_in", "w_out"))
    for name in vectors.starting("sl1/loss_beta"):
        beta = float(name.partition("beta")[2])
        beta = 1 / 9 if abs(beta - 1 / 9) < 1e-3 else beta  # the RPN's, of which the name has three digits

        def loss(prediction: jax.Array, beta: float = beta) -> jax.Array:
            return (outside * smooth_l1(inside * (prediction - target), beta)).sum() / len(target)

        value, gradient = jax.value_and_grad(loss)(prediction)
        figures.check("smooth L1, relative", "", relative(value, vectors[name]), 1e-5)
        expected = vectors[name.replace("loss", "grad")]
        figures.check("gradients of losses, relative", "", relative(gradient, expected), 1e-5)


def test_class_and_box_loss(vectors: Vectors, figures: Figures) -> None:
    """References of an absent category turn all labels of their image to background and drop its boxes (Q9)."""
    image = vectors["frcnn/rois_batch"]
    logits, valid = by_image(image, vectors["frcnn/cls_score"])
    deltas, _ = by_image(image, vectors["frcnn/bbox_pred"])
    targets, _ = by_image(image, vectors["frcnn/bbox_targets"])
    labels, _ = by_image(image, vectors["frcnn/labels"])
    for name in vectors.starting("frcnn/q"):
        if not name.endswith("_loss_cls_bbox_acc"):
            continue
        case = name.removeprefix("frcnn/").split("_")[0]

        def losses(logits: jax.Array, deltas: jax.Array, case: str = case) -> jax.Array:
            both = box_losses(logits, deltas[..., 4:], labels, valid, targets[..., 4:], present(case), axis_name=None)
            return jnp.stack(both)

        values = losses(jnp.asarray(logits), jnp.asarray(deltas))
        for ours, theirs in zip(values, vectors[name], strict=False):
            figures.check("class and box loss, relative", "", relative(ours, theirs), 1e-5)
        if f"frcnn/{case}_grad_cls" not in vectors:
            continue
        gradients = jax.grad(lambda *x, f=losses: f(*x).sum(), argnums=(0, 1))(jnp.asarray(logits), jnp.asarray(deltas))
        for ours, kind in zip(gradients, ("cls", "bbox"), strict=True):
            expected = by_image(image, vectors[f"frcnn/{case}_grad_{kind}"])[0]
            figures.check("gradients of losses, relative", "", relative(ours, expected), 1e-5)


def test_mask_loss(vectors: Vectors, figures: Figures) -> None:
    """Of the foreground channel, for the rois that have a mask, of images whose references are present."""
    image, prediction = vectors["maskloss/rois_batch"], vectors["maskloss/pred"]
    side = prediction.shape[-1]
    masks = vectors["maskloss/masks_int32"].reshape(len(image), 2, side, side)[:, 1].astype(np.float32)
    logits, valid = by_image(image, prediction[:, 1])
    targets, _ = by_image(image, masks)  # -1 where a roi has none
    valid &= (targets >= 0).all((-2, -1))
    for name in vectors.starting("maskloss/q"):
        weights = valid & present(name.removeprefix("maskloss/"))[:, None]
        ours = mask_loss(logits, targets, weights, axis_name=None)
        figures.check("mask loss, relative", "", relative(ours, vectors[name]), 1e-5)
