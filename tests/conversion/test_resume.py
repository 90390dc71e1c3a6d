"""A converted checkpoint goes on training: one real step, with the momentum that came from PyTorch."""

import narrow_weights
import numpy as np
import pytest

from fsis_jax.checkpoints.config_file import read_config
from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.conversion.convert import convert
from fsis_jax.conversion.state_dict import is_trained, is_unused
from fsis_jax.conversion.torch_file import read_file
from fsis_jax.conversion.torch_writer import write_file
from fsis_jax.training.schedule import learning_rate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]

OPTIONS = {
    "data.train_canvases": "((64,64),)",
    "data.test_canvases": "((64,64),)",
    "data.transform.shortest_side": 64,
    "data.transform.longest_side": 64,
    "data.transform.reference_size": 32,
    "data.transform.mask_size": 14,
    "data.transform.max_instances": 24,
    "data.validation_fraction": 0.0,
    "model.rpn.train_pre_nms": 32,
    "model.rpn.train_post_nms": 16,
    "model.rpn.test_pre_nms": 16,
    "model.rpn.test_post_nms": 8,
    "model.detections.max_instances": 4,
    "model.box_head.samples": 8,
    "training.steps": 4,
    "training.overlays": 0,
}


def _trained(fsis, folder, content, data):
    """The checkpoint after step 4 of a file whose last step had the index 2, as PyTorch's tensors."""
    write_file(folder / "file.pth", content)
    command = ["convert", folder / "file.pth", "--output", folder / "run", "--resume"]
    assert fsis(*command).status == 0
    options = [f"--config.{key}={value}" for key, value in {**OPTIONS, "data.root": data}.items()]
    outcome = fsis("train", "--config", folder / "run" / "config.json", "--workdir", folder / "run", *options)
    assert outcome.status == 0, outcome
    checkpoints = Checkpoints(folder / "run", read_only=True)
    assert checkpoints.steps() == [3, 4]  # as converted, and the step
    assert checkpoints.meta(4)["data_state"]["step"] == 4
    assert fsis("convert", folder / "run", "--to-pytorch", folder / "trained.pth").status == 0
    return read_file(folder / "trained.pth")


@pytest.mark.parametrize("variant", ["fpn", "c4"])
def test_a_step_with_the_momentum_of_pytorch(fsis, tmp_path, tiny_data, variant):
    """Two runs that differ in their momentum m only differ by rate * 0.9 m after a step; biases by twice that."""
    config = narrow_weights.narrow_config(variant)
    tensors = narrow_weights.state_dict(config)
    content = narrow_weights.checkpoint(config, optimizer=narrow_weights.sgd(tensors), model=tensors)
    rest = {**content, "optimizer": {**content["optimizer"], "state": {}}}
    results = []
    for name, file in (("moving", content), ("resting", rest)):
        (tmp_path / name).mkdir()
        results.append(_trained(fsis, tmp_path / name, file, tiny_data))
    moving, resting = results
    assert moving["step"] == 3
    rate = float(learning_rate(read_config(tmp_path / "moving" / "run" / "config.json"))(3))
    sgd = content["optimizer"]
    weights, biases = narrow_weights.parameter_groups(tensors)
    ids = [number for group in sgd["param_groups"] for number in group["params"]]
    moved = 0
    for name, number in zip([*weights, *biases], ids, strict=True):
        buffer = sgd["state"].get(number, {}).get("momentum_buffer")
        difference = moving["model"][name] - resting["model"][name]
        wanted = 0 if buffer is None else -rate * (2 if "bias" in name else 1) * 0.9 * buffer
        np.testing.assert_allclose(difference, wanted * np.ones_like(difference), atol=2e-6, err_msg=name)
        moved += buffer is not None
    assert moved == len(sgd["state"]) > 40
    for name, value in tensors.items():
        if not (is_trained(name) or is_unused(name) or name.startswith(("match_net.", "Mask_Head."))):  # frozen
            np.testing.assert_array_equal(moving["model"][name], value, err_msg=name)


def test_weights_alone_start_at_the_first_step(tmp_path):
    write_file(tmp_path / "file.pth", narrow_weights.checkpoint(narrow_weights.narrow_config("fpn")))
    assert convert(tmp_path / "file.pth", tmp_path / "run").step == 0
