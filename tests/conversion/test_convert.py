"""`fsis convert`: checkpoints of CA_FSIS_Cell to ours and back, and one line for each kind of bad file."""

import gzip
import io
import json
import pickle
import re
import tarfile
import zipfile

import cv2
import narrow_weights
import numpy as np
import pytest
import torch_bytes

from fsis_jax.checkpoints.config_file import read_config
from fsis_jax.checkpoints.runs import Checkpoints
from fsis_jax.checkpoints.soundness import write_sums
from fsis_jax.conversion import ca_fsis
from fsis_jax.conversion.convert import convert, to_pytorch
from fsis_jax.conversion.torch_file import read_file
from fsis_jax.conversion.torch_writer import write_file
from fsis_jax.errors import FsisError
from fsis_jax.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Variant -> a checkpoint file; made once."""
    folder = tmp_path_factory.mktemp("files")
    paths = {}

    def make(variant):
        if variant not in paths:
            paths[variant] = folder / f"{variant}.pth"
            config = narrow_weights.narrow_config(variant)
            content = narrow_weights.checkpoint(config)
            content["optimizer"] = narrow_weights.sgd(content["model"], without=["Mask_"])
            write_file(paths[variant], content)
        return paths[variant]

    return make


# -- there and back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", narrow_weights.VARIANTS)
def test_there_and_back_bit_for_bit(files, tmp_path, fsis, variant):
    outcome = fsis("convert", files(variant), "--output", tmp_path / "run")
    assert outcome.status == 0, outcome
    assert outcome.stdout.startswith("recognised a detector of CA_FSIS_Cell (")
    wanted = narrow_weights.narrow_config(variant)
    assert read_config(tmp_path / "run" / "config.json").to_dict() == wanted.to_dict()
    assert fsis("convert", tmp_path / "run", "--to-pytorch", tmp_path / "back.pth").status == 0
    original, back = read_file(files(variant))["model"], read_file(tmp_path / "back.pth")["model"]
    assert list(back) == list(original)
    for name, value in original.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    convert(tmp_path / "back.pth", tmp_path / "again")
    first, second = (Checkpoints(tmp_path / name, read_only=True).arrays(0, "model") for name in ("run", "again"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@pytest.mark.parametrize("variant", ["fpn", "c4"])
def test_momentum_and_step_there_and_back(files, tmp_path, variant):
    converted = convert(files(variant), tmp_path / "run", resume=True)
    assert converted.step == 3  # the file's step is the index of the last one, 2
    config = read_config(tmp_path / "run" / "config.json")
    assert (config.training.batch_size, config.data.shots) == (2, 1)
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    assert checkpoints.steps() == [3]
    assert checkpoints.arrays(3, "optimizer")["step"] == 3
    assert checkpoints.arrays(3, "optimizer")["[4].count"] == 3

    to_pytorch(tmp_path / "run", tmp_path / "back.pth")
    original, back = read_file(files(variant)), read_file(tmp_path / "back.pth")
    assert {name: back[name] for name in ("step", "batch_size", "shot", "iter_size")} == {
        "step": 2,
        "batch_size": 2,
        "shot": 1,
        "iter_size": 1,
    }
    theirs, ours = original["optimizer"], back["optimizer"]
    old_ids, new_ids = ([i for group in sgd["param_groups"] for i in group["params"]] for sgd in (theirs, ours))
    assert new_ids == list(range(len(old_ids)))
    buffers = 0
    for old, new in zip(old_ids, new_ids, strict=True):
        if old in theirs["state"]:
            wanted = theirs["state"][old]["momentum_buffer"]
            np.testing.assert_array_equal(ours["state"][new]["momentum_buffer"], wanted)
            buffers += 1
        elif new in ours["state"]:
            assert not ours["state"][new]["momentum_buffer"].any()
    assert buffers == len(theirs["state"]) > 40
    rates = [group["lr"] for group in ours["param_groups"]]
    assert rates[1] == 2 * rates[0]
    assert rates[0] == pytest.approx(
        config.optimizer.learning_rate
        * 2
        / converted.source.config.optimizer.reference_batch_size
        * (1 / 3 + 2 / 3 * 2 / 500)
    )


def test_pytorch_optimiser_takes_the_momentum(files, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: there is no optimiser to load")
    convert(files("fpn"), tmp_path / "run", resume=True)
    to_pytorch(tmp_path / "run", tmp_path / "back.pth")
    content = torch.load(tmp_path / "back.pth", weights_only=True)
    groups = narrow_weights.parameter_groups(content["model"])
    parameters = [[torch.nn.Parameter(content["model"][name].clone()) for name in names] for names in (*groups, [])]
    optimizer = torch.optim.SGD([{"params": group} for group in parameters], lr=1.0)
    optimizer.load_state_dict(content["optimizer"])
    first = parameters[0][groups[0].index("Conv_Body.conv_top.weight")]
    original = read_file(files("fpn"))["optimizer"]
    wanted = original["state"][original["param_groups"][0]["params"][0]]["momentum_buffer"]
    np.testing.assert_array_equal(optimizer.state[first]["momentum_buffer"].numpy(), wanted)


def test_accumulated_gradients(tmp_path):
    """iter_size there is accumulate here, where each pass counts as a step."""
    content = narrow_weights.checkpoint(narrow_weights.narrow_config("fpn"), iter_size=4)
    content["optimizer"] = narrow_weights.sgd(content["model"])
    write_file(tmp_path / "file.pth", content)
    assert convert(tmp_path / "file.pth", tmp_path / "run", resume=True).step == 12
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    assert checkpoints.arrays(12, "optimizer")[".inner[4].count"] == 3
    assert read_config(tmp_path / "run" / "config.json").optimizer.accumulate == 4
    to_pytorch(tmp_path / "run", tmp_path / "back.pth")
    back = read_file(tmp_path / "back.pth")
    assert (back["step"], back["iter_size"]) == (2, 4)


def test_a_model_of_ours_goes_to_pytorch_with_zeros_for_what_is_unused(tmp_path):
    config = narrow_weights.narrow_config("c4")
    arrays = {name: np.ones(shape, np.float32) for name, shape in narrow_weights.shapes_of(config).items()}
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save_items(7, {"model": arrays}, config=config)
    checkpoints.close()
    assert to_pytorch(tmp_path / "run", tmp_path / "ours.pth") == len(narrow_weights.state_dict(config))
    content = read_file(tmp_path / "ours.pth")
    assert content["step"] == 6
    for name, value in content["model"].items():
        assert value.all() == (ca_fsis.our_name(name) is not None), name


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(
    "variant", ["fpn", "c4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("l1", "norel", "deform"))]
)
def test_a_converted_model_segments(files, tmp_path, fsis, variant):
    """With random weights it finds nothing sensible, but something."""
    convert(files(variant), tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "0" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["config"]["data"]["test_canvases"] = [[64, 96]]
    meta["config"]["data"]["transform"].update(shortest_side=64, longest_side=96, reference_size=32)
    meta["config"]["model"]["rpn"].update(test_pre_nms=64, test_post_nms=32)
    meta["config"]["model"]["detections"].update(max_instances=16, score_threshold=0.0)
    path.write_text(json.dumps(meta))
    write_sums(path.parents[1])
    image = np.random.default_rng(0).integers(0, 256, (48, 60, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    cv2.imwrite(str(tmp_path / "crop.png"), image[10:30, 10:30])
    options = ["--references", tmp_path / "crop.png", "--checkpoint", tmp_path / "run", "--output", tmp_path / "out"]
    outcome = fsis("segment", tmp_path / "image.png", *options, "--min-score", 0)
    assert outcome.status == 0, outcome
    assert int(outcome.stdout.split()[-2]) > 0


def test_names_with_the_prefix_of_data_parallel_and_bare_state_dicts(tmp_path):
    tensors = narrow_weights.state_dict(narrow_weights.narrow_config("l1"))
    contents = {"bare": tensors, "parallel": {"model": {f"module.{name}": value for name, value in tensors.items()}}}
    for name, content in contents.items():
        write_file(tmp_path / f"{name}.pth", content)
        assert convert(tmp_path / f"{name}.pth", tmp_path / name).whole


# -- refusals -----------------------------------------------------------------------------------------------------


def test_every_difference_is_listed_and_nothing_is_written(tmp_path, fsis):
    config = narrow_weights.narrow_config("fpn")
    tensors = narrow_weights.state_dict(config)
    del tensors["RPN.FPN_RPN_conv.bias"], tensors["match_net.theta.weight"], tensors["match_net.Q.1.running_var"]
    del tensors["Conv_Body.conv_body.fc.weight"]  # is never used
    tensors["Box_Outs.extra.weight"] = np.zeros(1, np.float32)
    tensors["Box_Head.fc2.weight"] = np.zeros((32, 31), np.float32)
    tensors["Mask_Outs.classify.bias"] = np.zeros(2, np.int32)
    tensors["match_net.g.bias"][0] = np.nan
    tensors["match_net.phi.bias"][0] = np.inf
    tensors["match_net.W.0.bias"] = [1.0]
    write_file(tmp_path / "file.pth", {"model": tensors})
    outcome = fsis("convert", tmp_path / "file.pth", "--output", tmp_path / "run")
    assert "3 missing (match_net.Q.1.running_var, match_net.theta.weight, RPN.FPN_RPN_conv.bias)" in outcome.error
    assert "1 unknown (Box_Outs.extra.weight)" in outcome.error
    assert "1 of another shape (Box_Head.fc2.weight (32, 31) instead of (32, 32))" in outcome.error
    assert "2 no numbers of a network (match_net.W.0.bias (list), Mask_Outs.classify.bias (int32))" in outcome.error
    assert "2 not finite (match_net.g.bias, match_net.phi.bias)" in outcome.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pth"]


def test_tensors_that_may_be_missing(tmp_path, fsis):
    tensors = narrow_weights.state_dict(narrow_weights.narrow_config("fpn"))
    tensors = {name: value for name, value in tensors.items() if not name.startswith("Mask_")}
    write_file(tmp_path / "file.pth", {"model": tensors})
    command = ["convert", tmp_path / "file.pth", "--output", tmp_path / "run"]
    assert "12 missing (Mask_Head.conv_fcn.0.weight, " in fsis(*command, "--allow-missing", "Box_*").error
    outcome = fsis(*command, "--allow-missing", "Mask_Head.*", "Mask_Outs.*")
    assert outcome.status == 0, outcome
    assert "missing: Mask_Head.conv_fcn.0.weight, " in outcome.stdout
    assert f"--config.init_from={tmp_path / 'run'}" in outcome.stdout
    with pytest.raises(FsisError, match="holds weights to start from"):
        Segmenter.from_checkpoint(tmp_path / "run")
    assert "cannot go on without" in _resume_error(tmp_path, tensors, allow_missing=["Mask_*"])


def _resume_error(tmp_path, tensors, *, allow_missing=(), **training):
    write_file(tmp_path / "resume.pth", {"model": tensors, **training})
    with pytest.raises(FsisError) as stop:
        convert(tmp_path / "resume.pth", tmp_path / "resumed", resume=True, allow_missing=allow_missing)
    assert not (tmp_path / "resumed").exists()
    return str(stop.value)


def test_what_cannot_be_resumed(tmp_path):
    tensors = narrow_weights.state_dict(narrow_weights.narrow_config("fpn"))
    sgd = narrow_weights.sgd(tensors)
    assert "without an optimiser; convert without --resume" in _resume_error(tmp_path, tensors, step=3)
    assert "no step in it" in _resume_error(tmp_path, tensors, optimizer=sgd)
    assert "its step is not a whole number" in _resume_error(tmp_path, tensors, optimizer=sgd, step=0.5)
    assert "no state of an optimiser" in _resume_error(tmp_path, tensors, optimizer={"adam": 1}, step=1)
    sgd["param_groups"][0]["params"].pop()
    assert "the optimiser's groups have " in _resume_error(tmp_path, tensors, optimizer=sgd, step=1)
    sgd = narrow_weights.sgd(tensors)
    sgd["state"][140_000_000]["momentum_buffer"] = np.zeros(3, np.float32)
    message = _resume_error(tmp_path, tensors, optimizer=sgd, step=1)
    assert "the momentum of Conv_Body.conv_top.weight has not the shape (16, 256, 1, 1)" in message
    message = _resume_error(tmp_path, tensors, optimizer=narrow_weights.sgd(tensors), step=1, batch_size=0.5)
    assert "its batch_size is not a whole number" in message


def test_nothing_is_overwritten(files, tmp_path, fsis):
    command = ["convert", files("l1"), "--output", tmp_path / "run"]
    assert fsis(*command).status == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert "run: has a checkpoint already" in fsis(*command).error
    (tmp_path / "file.pth").write_bytes(b"mine")
    back = ["convert", tmp_path / "run", "--to-pytorch", tmp_path / "file.pth"]
    assert "file.pth: exists already" in fsis(*back).error
    assert (tmp_path / "file.pth").read_bytes() == b"mine"
    assert {path: path.stat().st_mtime_ns for path in before} == before | {
        tmp_path / "run": (tmp_path / "run").stat().st_mtime_ns
    }


def test_two_names_of_one_module_must_agree(tmp_path):
    tensors = narrow_weights.state_dict(narrow_weights.narrow_config("c4"))
    tensors["Mask_Head.res5.1.conv2.weight"] = tensors["Mask_Head.res5.1.conv2.weight"] + 1
    write_file(tmp_path / "file.pth", {"model": tensors})
    with pytest.raises(FsisError, match=r"Mask_Head.res5.1.conv2.weight differs from Box_Head.res5.1.conv2.weight"):
        convert(tmp_path / "file.pth", tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value"), [("legacy_boxes", False), ("backbone.padded_pool", True), ("backbone.stride_in_1x1", False)]
)
def test_runs_that_pytorch_would_compute_differently(tmp_path, key, value):
    config = narrow_weights.narrow_config("l1")
    section, _, name = key.rpartition(".")
    (config.model[section] if section else config.model)[name] = value
    arrays = {name: np.ones(shape, np.float32) for name, shape in narrow_weights.shapes_of(config).items()}
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save_items(1, {"model": arrays}, config=config)
    checkpoints.close()
    with pytest.raises(FsisError, match=f"run: was trained with config.model.{key}={value}"):
        to_pytorch(tmp_path / "run", tmp_path / "file.pth")


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(FsisError, match="no such folder"):
        to_pytorch(tmp_path / "none", tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


def _tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return buffer.getvalue()


def _zip(*members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member in members:
            archive.writestr(member, pickle.dumps({}, 2))
    return buffer.getvalue()


_VALUES = np.zeros(6, np.float32)
_LEGACY = torch_bytes.legacy(torch_bytes.tensor(), [("0", _VALUES)])
BAD_FILES = {
    "empty": (b"", r"the file is empty; download or copy it again"),
    "a web page": (b"\n<!DOCTYPE html><html>", r"a web page, not weights"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer.*git lfs pull"),
    "gzip": (gzip.compress(b"x"), r"compressed by gzip"),
    "tar": (_tar(), r"a tar archive"),
    "another magic": (b"\x00\x01\x02\x03", r"neither a file of torch.save nor a pickle \(it starts with '\\x00\\x01"),
    "text": (b"weights", r"neither a file of torch.save nor a pickle"),
    "a zip of something": (_zip("weights.npy"), r"a zip archive without the data.pkl of torch.save"),
    "a program": (_zip("m/data.pkl", "m/constants.pkl"), r"a TorchScript program"),
    "a compressed zip": (_zip("m/data.pkl", compression=zipfile.ZIP_DEFLATED), r"compressed or encrypted"),
    "a zip cut off": (_zip("m/data.pkl")[:-30], r"damaged or cut off \(BadZipFile"),
    "a legacy file cut off": (_LEGACY[:-1], r"damaged or cut off \(ValueError: bytes \d+ to \d+ of a file of \d+\)"),
    "cut off in its structure": (_LEGACY[:230], r"damaged or cut off"),
    "cut off at once": (b"\x80\x02", r"damaged or cut off \(EOFError"),
    "another version": (_LEGACY.replace(b"M\xe9\x03", b"M\xea\x03"), r"version 1002 of PyTorch's format"),
    "a storage of another size": (
        torch_bytes.legacy(torch_bytes.tensor(size=7), [("0", _VALUES)]),
        r"a storage of 24 bytes is said to have 7 elements",
    ),
    "a storage that is missing": (
        torch_bytes.legacy(torch_bytes.tensor()),
        r"ValueError: storage 0 is not in the file",
    ),
    "a storage of no known type": (
        torch_bytes.legacy(torch_bytes.tensor(storage="QInt8Storage"), [("0", _VALUES)]),
        r"refused, because loading it would run 'torch.QInt8Storage'",
    ),
    "a list": (pickle.dumps([1, 2]), r"weights of no known kind \(a list of: \)"),
    "other weights": (
        pickle.dumps({"encoder.0.weight": _VALUES, 3: 1}),
        r"a dict of: encoder.0.weight, 3\); known are",
    ),
    "no mapping": (pickle.dumps({"model": [1]}), r"weights of no known kind"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_files(tmp_path, fsis, bad):
    content, message = BAD_FILES[bad]
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    error = fsis("convert", path, "--output", tmp_path / "run").error
    assert re.search(rf"{path}: .*{message}", error), error
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_file(tmp_path, fsis):
    assert "cannot be read (Is a directory)" in fsis("convert", tmp_path, "--output", tmp_path / "run").error


def test_one_target_must_be_given(tmp_path, fsis):
    outcome = fsis("convert", tmp_path / "file.pth")
    assert outcome.status == 2
    assert "one of the arguments --output/-o --to-pytorch is required" in outcome.stderr
