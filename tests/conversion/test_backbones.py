"""Backbones of torchvision, One-Shot-Object-Detection and Detectron: their numbers, and a start for training."""

import dataclasses
import pathlib

import detectron_reference as reference
import drawn_blobs
import jax
import narrow_weights
import numpy as np
import pytest
import torch_bytes
from flax import nnx

from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.config import base_config
from fsis_jax.conversion.convert import convert
from fsis_jax.conversion.detectron.weights import UNIT_VARIANCE
from fsis_jax.conversion.torch_writer import write_file
from fsis_jax.errors import FsisError
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.models.detector import Detector
from fsis_jax.models.layers import EPSILON
from fsis_jax.models.normalise import normalise
from fsis_jax.training.initialise import initialise_from
from fsis_jax.training.step import new_state

pytestmark = pytest.mark.usefixtures("quick_compile")


def narrow_resnet(*, depth=50, groups=1, group_width=0):
    """torchvision's name -> tensor."""
    config = narrow_weights.narrow_config("fpn")
    config.model.backbone.depth = depth
    config.model.backbone.groups = groups
    config.model.backbone.group_width = group_width
    tensors = {}
    for name, value in narrow_weights.state_dict(config).items():
        if name.startswith("Conv_Body.conv_body.res"):
            stage, rest = name.removeprefix("Conv_Body.conv_body.res").split(".", 1)
            tensors[rest if stage == "1" else f"layer{int(stage) - 1}.{rest}"] = value
    tensors["fc.weight"], tensors["fc.bias"] = np.zeros((10, 256), np.float32), np.zeros(10, np.float32)
    return tensors


def arrays_of(workdir):
    checkpoints = Checkpoints(workdir, read_only=True)
    return checkpoints.arrays(0, "model")


FILES = {
    "torchvision": ("r50.pth", lambda tensors: tensors, {}),
    "oneshot": (
        "model_best.pth.tar",
        lambda tensors: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}},
        {},
    ),
    "resnet101": ("r101.pth", lambda tensors: tensors, {"depth": 101}),
    "resnet152": ("r152.pth", lambda tensors: tensors, {"depth": 152}),
    "wide": ("wide50.pth", lambda tensors: tensors, {"group_width": 16}),
    "resnext": ("x101.pth", lambda tensors: tensors, {"depth": 101, "groups": 8, "group_width": 2}),
}


@pytest.mark.parametrize("which", FILES)
def test_features_are_those_of_pytorch(tmp_path, which):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: there is nothing to compare with")
    name, wrapped, options = FILES[which]
    tensors = narrow_resnet(**options)
    write_file(tmp_path / name, wrapped(tensors))
    kind = "oneshot" if which == "oneshot" else "auto"
    converted = convert(tmp_path / name, tmp_path / "run", kind=kind)
    assert converted.source.kind == ("oneshot" if which == "oneshot" else "torchvision")
    assert converted.source.left_out == ["fc.weight", "fc.bias"]
    config = converted.source.config
    image = np.random.default_rng(0).standard_normal((1, 75, 90, 3)).astype(np.float32)
    style = "caffe" if which == "oneshot" else "torchvision"
    with torch.no_grad():
        wanted = _pytorch_features(torch, tensors, image, style=style, groups=options.get("groups", 1))
    model = _filled(config, arrays_of(tmp_path / "run"))
    found = nnx.jit(lambda model, image: model.backbone(image, None))(model, image)
    for level, (ours, theirs) in enumerate(zip(found.values(), wanted, strict=True), start=2):
        assert ours.shape == theirs.shape, level
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max(), err_msg=str(level))


def _filled(config, arrays, *, elsewhere=0.0):
    """A detector with these arrays, and one number everywhere else."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0))))
    flat = {}
    for path, variable in nnx.to_flat_state(state):
        value = arrays.get("/".join(map(str, path)), np.full(variable.shape, elsewhere, np.float32))
        flat[path] = variable.replace(jax.numpy.asarray(value))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _pytorch_features(torch, tensors, image, *, style, groups):
    """The outputs of the four stages, channels last: torchvision's ResNet, or Caffe's with the stride on the 1x1."""
    f = torch.nn.functional
    weights = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}

    def norm(x, layer):
        tensors = (weights[f"{layer}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return f.batch_norm(x, *tensors, eps=1e-5)

    def conv(x, layer, **options):
        return f.conv2d(x, weights[f"{layer}.weight"], **options)

    x = torch.relu(norm(conv(torch.from_numpy(image).permute(0, 3, 1, 2), "conv1", stride=2, padding=3), "bn1"))
    x = f.max_pool2d(x, 3, 2, padding=1) if style == "torchvision" else f.max_pool2d(x, 3, 2, ceil_mode=True)
    outputs = []
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in weights:
            layer = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            first, second = (1, stride) if style == "torchvision" else (stride, 1)
            y = torch.relu(norm(conv(x, f"{layer}.conv1", stride=first), f"{layer}.bn1"))
            y = conv(y, f"{layer}.conv2", stride=second, padding=1, groups=groups)
            y = norm(conv(torch.relu(norm(y, f"{layer}.bn2")), f"{layer}.conv3"), f"{layer}.bn3")
            if block == 0:
                x = norm(conv(x, f"{layer}.downsample.0", stride=stride), f"{layer}.downsample.1")
            x = torch.relu(x + y)
            block += 1
        outputs.append(x.permute(0, 2, 3, 1).numpy())
    return outputs


# -- what a backbone is for ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A converted torchvision ResNet-50, and its tensors."""
    folder = tmp_path_factory.mktemp("backbone")
    tensors = narrow_resnet()
    write_file(folder / "r50.pth", tensors)
    convert(folder / "r50.pth", folder / "run")
    return folder / "run", tensors


@dataclasses.dataclass
class Start:
    before: dict
    after: dict


def _initialise(path, config):
    _, state, _ = new_state(config, _filled(config, {}, elsewhere=-7.0))

    def flat(state):
        parts = (state.params, state.statistics, state.frozen)
        return {
            "/".join(map(str, path)): np.asarray(variable.get_value())
            for part in parts
            for path, variable in nnx.to_flat_state(part)
        }

    return Start(flat(state), flat(initialise_from(path, state, config)[0]))


@pytest.mark.parametrize("variant", ["fpn", "c4", "deform"])
def test_init_from_a_backbone(backbone, variant, caplog):
    path, tensors = backbone
    start = _initialise(path, narrow_weights.narrow_config(variant))
    res5 = "box_head/embedding/blocks" if variant == "c4" else "backbone/stages/3"
    for theirs, ours in (("layer1.0.conv2", "backbone/stages/0/0/conv2"), ("layer4.2.conv3", f"{res5}/2/conv3")):
        expected = tensors[f"{theirs}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(start.after[f"{ours}/kernel"], expected)
    np.testing.assert_array_equal(
        start.after[f"{res5}/0/shortcut_norm/var"], tensors["layer4.0.downsample.1.running_var"]
    )
    changed = {name for name in start.before if not np.array_equal(start.before[name], start.after[name])}
    stages = {name for name in start.before if name.startswith(("backbone/", f"{res5}/")) and "/offsets" not in name}
    assert changed == stages
    assert "config.model.backbone.stride_in_1x1 is True, but the weights of" in caplog.text
    assert "consider --config.model.backbone.padded_pool=True" in caplog.text


def test_a_mask_head_with_a_res5_of_its_own_starts_from_the_backbone_too(backbone):
    path, tensors = backbone
    config = narrow_weights.narrow_config("c4")
    config.model.mask_head.kind = "res5"
    start = _initialise(path, config)
    expected = tensors["layer4.2.conv3.weight"].transpose(2, 3, 1, 0)
    for head in ("box_head/embedding/blocks", "mask_head/trunk/blocks"):
        np.testing.assert_array_equal(start.after[f"{head}/2/conv3/kernel"], expected)


def test_a_config_that_reads_the_weights_as_they_are_meant_gets_no_warning(backbone, caplog):
    path, _ = backbone
    config = narrow_weights.narrow_config("fpn")
    config.model.backbone.stride_in_1x1 = False
    config.model.backbone.padded_pool = True
    _initialise(path, config)
    assert caplog.text == ""


@pytest.mark.parametrize("change", [{"depth": 101}, {"width": 16}, {"norm": "group"}])
def test_init_from_a_backbone_of_another_architecture(backbone, change):
    config = narrow_weights.narrow_config("fpn")
    config.model.backbone.update(change)
    with pytest.raises(FsisError, match="a checkpoint of another architecture"):
        _initialise(backbone[0], config)


def test_a_backbone_does_not_segment_and_is_not_resumed(backbone, fsis, tiny_data):
    path, _ = backbone
    told = f"holds weights to start from .* train one by `fsis train --config FILE --config.init_from={path} --"
    with pytest.raises(FsisError, match=told):
        Segmenter.from_checkpoint(path)
    options = ["--config", path / "config.json", "--workdir", path, f"--config.data.root={tiny_data}"]
    options += [f"--config.data.{split}_canvases=((64,64),)" for split in ("train", "test")]
    options += [f"--config.data.transform.{side}_side=64" for side in ("shortest", "longest")]
    assert "holds weights to start from (a backbone), not a trained detector" in fsis("train", *options).error


# -- Detectron ----------------------------------------------------------------------------------------------------

_LETTERS = {"1": "a", "2": "b", "3": "c"}


def detectron_blobs(tensors):
    """Detectron's name -> blob, from torchvision's."""
    blobs = {"conv1_w": tensors["conv1.weight"], "conv1_b": np.zeros(8, np.float32)}
    blobs |= {"res_conv1_bn_s": tensors["bn1.weight"], "res_conv1_bn_b": tensors["bn1.bias"]}
    for name, value in tensors.items():
        if not name.startswith("layer") or name.rpartition(".")[2] not in ("weight", "bias"):
            continue
        stage, block, layer, *rest = name.removeprefix("layer").split(".")
        norm = layer.startswith("bn") or (layer == "downsample" and rest[0] == "1")
        branch = "branch1" if layer == "downsample" else f"branch2{_LETTERS[layer[-1]]}"
        ending = ("bn_s" if rest[-1] == "weight" else "bn_b") if norm else "w"
        blobs[f"res{int(stage) + 1}_{block}_{branch}_{ending}"] = value
        if not norm:
            blobs[f"res{int(stage) + 1}_{block}_{branch}_b"] = np.zeros(len(value), np.float32)
    return blobs | {"fc1000_w": np.zeros((10, 256), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}


def _write_detectron(path, blobs, *, protocol=2):
    content = {"blobs": blobs, "cfg": b"MODEL: {}"} if protocol == 2 else blobs
    path.write_bytes(torch_bytes.python2_dict(content, protocol))


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_backbone_of_detectron_sees_the_same_picture(tmp_path, protocol):
    """Blue, green, red less a mean through Detectron's stem, and normalised red, green, blue through ours."""
    blobs = detectron_blobs(narrow_resnet())
    blobs["conv1_w"] = blobs["conv1_w"] / 50  # for values up to 255
    _write_detectron(tmp_path / "R-50.pkl", blobs, protocol=protocol)
    converted = convert(tmp_path / "R-50.pkl", tmp_path / "run")
    assert converted.source.kind == "detectron"
    assert "conv1_b" in converted.source.left_out
    assert not converted.whole
    config = converted.source.config
    backbone = config.model.backbone
    assert (backbone.depth, backbone.width, backbone.stride_in_1x1, backbone.padded_pool) == (50, 8, True, True)

    image = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3)).astype(np.uint8)
    model = _filled(config, arrays_of(tmp_path / "run")).backbone
    ours = np.asarray(model.stem_norm(model.stem(normalise(image, mean=config.model.image_mean))))
    theirs = (image[..., ::-1] - reference.PIXEL_MEANS).transpose(0, 3, 1, 2)
    theirs = reference.conv(theirs, blobs["conv1_w"], None, 2, 3).transpose(0, 2, 3, 1)
    theirs = theirs * blobs["res_conv1_bn_s"] + blobs["res_conv1_bn_b"]
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_a_backbone_with_group_norm(tmp_path, caplog):
    drawing = drawn_blobs.Drawing(0, "gn")
    drawing.backbone(50, 4)
    _write_detectron(tmp_path / "R-50-GN.pkl", drawing.blobs)
    converted = convert(tmp_path / "R-50-GN.pkl", tmp_path / "run")
    assert not converted.whole
    assert converted.source.left_out == ["pred_w", "pred_b"]
    config = converted.source.config
    assert (config.model.backbone.norm, config.model.backbone.stride_in_1x1) == ("group", False)
    start = _initialise(tmp_path / "run", config)
    np.testing.assert_array_equal(start.after["backbone/stem_norm/scale"], drawing.blobs["conv1_gn_s"])
    blob = drawing.blobs["res5_2_branch2b_gn_b"]
    np.testing.assert_array_equal(start.after["backbone/stages/3/2/norm2/bias"], blob)
    assert caplog.text == ""
    config.model.image_mean = base_config().model.image_mean
    _initialise(tmp_path / "run", config)
    assert "consider --config.model.image_mean=(0.48" in caplog.text


def test_the_norms_of_detectron_scale_by_their_scale_exactly(tmp_path):
    assert UNIT_VARIANCE + np.float32(EPSILON) == np.float32(1)
    assert float(jax.lax.rsqrt(jax.numpy.float32(UNIT_VARIANCE) + EPSILON)) == 1


def test_a_detector_of_detectron_starts_one_with_references(tmp_path, caplog):
    """Its pyramid, RPN and the layers of its heads that see no references are kept; its own classes are not."""
    blobs = drawn_blobs.draw("Mask R-CNN FPN")
    path = tmp_path / "model_final.pkl"
    _write_detectron(path, blobs)
    convert(path, tmp_path / "run")
    config = narrow_weights.narrow_config("fpn")
    config.model.rpn.anchor_ratios = (0.5, 1.0, 2.0)
    config.model.mask_head.channels = 16
    config.model.backbone.padded_pool = True
    start = _initialise(tmp_path / "run", config)
    np.testing.assert_array_equal(start.after["fpn/lateral/3/bias"], blobs["fpn_inner_res5_2_sum_b"])
    np.testing.assert_array_equal(start.after["fpn/lateral/0/bias"], blobs["fpn_inner_res2_2_sum_lateral_b"])
    np.testing.assert_array_equal(start.after["fpn/output/1/bias"], blobs["fpn_res3_3_sum_b"])
    np.testing.assert_array_equal(start.after["mask_head/convs/2/bias"], blobs["_[mask]_fcn4_b"])
    np.testing.assert_array_equal(start.after["box_head/embedding/fc2/kernel"], blobs["fc7_w"].T)
    same = {name for name in start.before if np.array_equal(start.before[name], start.after[name])}
    fresh = {name for name in same if not name.startswith("matching/")}
    assert {name for name in fresh if name.startswith("box_head/")} == {
        f"box_head/{part}/{tensor}"
        for part in ("class_pair", "class_out", "box_pair", "box_out")
        for tensor in ("kernel", "bias")
    }
    assert fresh - {name for name in fresh if name.startswith("box_head/")} == {
        "mask_head/first/kernel",
        *(f"mask_head/out/{tensor}" for tensor in ("kernel", "bias")),
    }
    assert "these parts start fresh: box_head/box_out, box_head/box_pair, box_head/class_out" in caplog.text

    del blobs["fc7_w"], blobs["res3_1_branch2b_bn_s"]
    _write_detectron(path, blobs)
    with pytest.raises(FsisError, match=r"2 missing \(res3_1_branch2b_bn_s, fc7_w\)"):
        convert(path, tmp_path / "other")


# -- what is in a file --------------------------------------------------------------------------------------------


def test_what_two_projects_write_alike_is_not_guessed(tmp_path):
    tensors = {f"module.{name}": value for name, value in narrow_resnet().items()}
    write_file(tmp_path / "model_best.pth.tar", {"epoch": 3, "arch": "resnet50", "state_dict": tensors})
    with pytest.raises(FsisError, match=r"under 'state_dict'.*give --kind torchvision or --kind oneshot$"):
        convert(tmp_path / "model_best.pth.tar", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_kinds_that_differ_in_meaning_only(tmp_path):
    """torchvision's and Caffe's way of the same names: the user may know better than the content tells."""
    write_file(tmp_path / "r50.pth", narrow_resnet())
    converted = convert(tmp_path / "r50.pth", tmp_path / "run", kind="oneshot")
    assert converted.source.config.model.backbone.to_dict() == {
        **base_config().model.backbone.to_dict(),
        "width": 8,
    }
    with pytest.raises(
        FsisError, match="not weights of Detectron, but a ResNet of torchvision; give --kind torchvision"
    ):
        convert(tmp_path / "r50.pth", tmp_path / "other", kind="detectron")


def test_basic_blocks_are_refused(tmp_path):
    tensors = {name: value for name, value in narrow_resnet().items() if ".conv3." not in name and ".bn3." not in name}
    write_file(tmp_path / "r34.pth", tensors)
    with pytest.raises(FsisError, match="has basic blocks; known are ResNet-50, -101 and -152"):
        convert(tmp_path / "r34.pth", tmp_path / "run")


def test_a_backbone_that_is_not_whole(tmp_path):
    tensors = narrow_resnet()
    del tensors["layer2.1.bn2.running_mean"], tensors["bn1.bias"]
    tensors["head.weight"] = np.zeros(3, np.float32)
    write_file(tmp_path / "r50.pth", tensors)
    with pytest.raises(
        FsisError, match=r"2 missing \(bn1\.bias, layer2\.1\.bn2\.running_mean\); 1 unknown \(head\.weight\)"
    ):
        convert(tmp_path / "r50.pth", tmp_path / "run")
    assert not pathlib.Path(tmp_path / "run").exists()
