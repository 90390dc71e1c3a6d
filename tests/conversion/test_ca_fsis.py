"""Names, shapes, order and layouts of CA_FSIS_Cell's tensors, against the list of a published model."""

import json

import narrow_weights
import numpy as np
import pytest

from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.momentum import parameter_groups
from fsis_jax.conversion.state_dict import is_trained, state_dict_names
from fsis_jax.errors import FsisError

VARIANTS = {
    "V1_fpn_full": {"architecture": "fpn", "relation": "concat", "matching.kind": "co_attention"},
    "V2_c4_full": {"architecture": "c4", "relation": "concat", "matching.kind": "co_attention"},
    "V3_fpn_l1": {"architecture": "fpn", "relation": "concat", "matching.kind": "l1"},
    "V4_fpn_norel": {"architecture": "fpn", "relation": "none", "matching.kind": "co_attention"},
    "V5_fpn_deform": {"architecture": "fpn", "backbone.deformable": "interleaved"},
}


@pytest.fixture(params=VARIANTS)
def manifest(request, golden):
    path = golden / request.param / "manifest.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return request.param, json.loads(path.read_text())


def test_every_tensor_has_its_name_shape_and_place(manifest):
    variant, listed = manifest
    shapes = {name: tuple(shape) for name, shape in listed["state_dict"]}
    config = ca_fsis.model_config(shapes)
    for key, value in VARIANTS[variant].items():
        section, _, name = key.rpartition(".")
        assert (config.model[section] if section else config.model)[name] == value
    ours = narrow_weights.shapes_of(config)
    assert list(state_dict_names(ours)) == list(shapes)
    used = {name: found for name in shapes if (found := ca_fsis.our_name(name)) is not None}
    assert set(used.values()) == set(ours)
    assert {name: ca_fsis.their_shape(found, ours[found]) for name, found in used.items()} == {
        name: shapes[name] for name in used
    }


def test_trained_parameters_are_those_with_gradients(manifest):
    _, listed = manifest
    names = [name for name, _ in listed["state_dict"]]
    wanted = [
        name for name in names if listed["requires_grad"].get(name, False) and not name.startswith("Mask_Head.res5.")
    ]
    assert [name for name in names if is_trained(name)] == wanted
    weights, biases = parameter_groups(names)
    assert sorted(weights + biases) == sorted(wanted)
    assert all("bias" in name for name in biases)


@pytest.mark.parametrize("variant", narrow_weights.VARIANTS)
def test_the_reverse_is_exact(variant):
    config = narrow_weights.narrow_config(variant)
    tensors = narrow_weights.state_dict(config)
    found = ca_fsis.model_config({name: value.shape for name, value in tensors.items()})
    assert found.model.to_dict() == config.model.to_dict()
    pairs = {name: ca_fsis.to_ours(name, value) for name, value in tensors.items()}
    arrays = {pair[0]: pair[1] for pair in pairs.values() if pair is not None}
    assert {name: value.shape for name, value in arrays.items()} == narrow_weights.shapes_of(config)
    unused = {name: tensors[name] for name, pair in pairs.items() if pair is None}
    back = ca_fsis.to_pytorch(arrays, unused)
    assert list(back) == list(tensors)
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    blank = ca_fsis.to_pytorch(arrays)
    assert {name: value.shape for name, value in blank.items()} == {n: value.shape for n, value in tensors.items()}
    assert all(not blank[name].any() for name in unused)


def test_layouts_by_hand():
    linear = np.arange(6.0).reshape(2, 3)  # (out, in)
    name, ours = ca_fsis.to_ours("Box_Outs.cls_score.1.weight", linear)
    assert name == "box_head/class_out/kernel"
    assert ours[2, 0] == linear[0, 2]
    conv = np.arange(2 * 3 * 3 * 3.0).reshape(2, 3, 3, 3)  # (out, in, row, column)
    _, ours = ca_fsis.to_ours("RPN.FPN_RPN_conv.weight", conv)
    assert ours[1, 2, 0, 1] == conv[1, 0, 1, 2]
    deconv = np.arange(2 * 3 * 4.0).reshape(2, 3, 2, 2)  # (in, out, row, column)
    _, ours = ca_fsis.to_ours("Mask_Head.upconv.weight", deconv)
    assert ours.reshape(2, 2, 2, 3)[1, 0, 1, 2] == deconv[1, 2, 0, 1]
    first = np.arange(4 * 5 * 49.0).reshape(4, 5 * 49)  # (out, (channel, row, column))
    _, ours = ca_fsis.to_ours("Box_Head.fc1.weight", first)
    assert ours.reshape(7, 7, 5, 4)[2, 3, 1, 0] == first.reshape(4, 5, 7, 7)[0, 1, 2, 3]


@pytest.mark.parametrize(
    "name", ["Conv_Body.res9.0.conv1.weight", "Box_Outs.cls_score.0.gamma", "weight", "RPN.x.bias"]
)
def test_a_name_that_is_not_theirs(name):
    with pytest.raises(KeyError):
        ca_fsis.our_name(name)


def test_architectures_that_are_not_known():
    config = narrow_weights.narrow_config("fpn")
    shapes = {name: value.shape for name, value in narrow_weights.state_dict(config).items()}
    with pytest.raises(FsisError, match="of 4 anchors"):
        ca_fsis.model_config({**shapes, "RPN.FPN_RPN_cls_score.weight": (4, 16, 1, 1)})
    fewer = {name: shape for name, shape in shapes.items() if not name.startswith("Conv_Body.conv_body.res4.5")}
    with pytest.raises(FsisError, match="has 5 blocks; known are ResNet-50, -101 and -152"):
        ca_fsis.model_config(fewer)


def test_a_model_that_the_original_does_not_have():
    config = narrow_weights.narrow_config("fpn")
    arrays = {name: np.zeros(shape, np.float32) for name, shape in narrow_weights.shapes_of(config).items()}
    with pytest.raises(FsisError, match="1 arrays have no name in the PyTorch project: box_head/extra/kernel"):
        ca_fsis.to_pytorch({**arrays, "box_head/extra/kernel": np.zeros(1)})
    del arrays["rpn/conv/kernel"]
    with pytest.raises(FsisError, match="no array 'rpn/conv/kernel', which PyTorch's RPN"):
        ca_fsis.to_pytorch(arrays)
