"""Checkpoints of CA_FSIS_Cell and its relatives with few channels, made by a rule of random numbers."""

import numpy as np
from flax import nnx

from fsis_jax.config import base_config
from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.momentum import parameter_groups
from fsis_jax.models.detector import Detector
from fsis_jax.recipes import c4_config

VARIANTS = {
    "fpn": {},
    "c4": {},
    "l1": {"matching.kind": "l1"},
    "norel": {"relation": "none"},
    "deform": {"backbone.deformable": "interleaved"},
    "c4-norel-l1": {"relation": "none", "matching.kind": "l1"},
}


def narrow_config(variant):
    """The config of a variant, with an eighth of the channels or less."""
    config = c4_config() if variant.startswith("c4") else base_config()
    model = config.model
    model.backbone.width = 8
    if model.architecture == "fpn":
        model.fpn.channels = 16
        model.box_head.hidden = 32
    model.mask_head.channels = 16
    for key, value in VARIANTS[variant].items():
        section, _, name = key.rpartition(".")
        (model[section] if section else model)[name] = value
    return config


def shapes_of(config):
    """Our flat name -> shape."""
    _, state = nnx.split(nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0))))
    return {"/".join(map(str, path)): variable.shape for path, variable in nnx.to_flat_state(state)}


def state_dict(config, seed=0):
    """PyTorch's name -> tensor."""
    rng = np.random.default_rng(seed)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(config).items()}
    tensors = {}
    for name, value in ca_fsis.to_pytorch(zeros).items():
        other = name.replace("Mask_Head.res5", "Box_Head.res5")
        if other != name:
            tensors[name] = tensors[other]
        elif value.dtype == np.int64:
            tensors[name] = np.array(rng.integers(1, 1000))
        elif name.endswith("running_var"):
            tensors[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        else:
            scale = (2 / max(1, int(np.prod(value.shape[1:])))) ** 0.5 if value.ndim > 1 else 0.1
            tensors[name] = (scale * rng.standard_normal(value.shape)).astype(np.float32)
    return tensors


def sgd(tensors, *, without=(), first_id=140_000_000):
    """The state_dict of torch.optim.SGD: {"state", "param_groups"}, with arbitrary ids.

    No momentum for what the original never uses, nor for names that start with one of `without`.
    """
    rng = np.random.default_rng(1)
    groups = [*parameter_groups(tensors), []]
    ids = {name: first_id + 56 * number for number, name in enumerate([*groups[0], *groups[1]])}
    state = {
        ids[name]: {"momentum_buffer": rng.standard_normal(tensors[name].shape).astype(np.float32)}
        for name in ids
        if ca_fsis.our_name(name) is not None and not name.startswith(tuple(without))
    }
    return {
        "state": state,
        "param_groups": [{"lr": 0.02, "momentum": 0.9, "params": [ids[name] for name in group]} for group in groups],
    }


def checkpoint(config, **training):
    """What CA_FSIS_Cell saves."""
    return {"step": 2, "train_size": 100, "batch_size": 2, "shot": 1, "model": state_dict(config), **training}
