"""Weights files: there and back, what is refused, and training that starts from one."""

import json
import re
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from fsis_jax import pretrained
from fsis_jax.checkpoints.flat import filled, flat_arrays, flat_model
from fsis_jax.checkpoints.weights import Trained, load_weights, save_weights
from fsis_jax.errors import FsisError
from fsis_jax.models.detector import Detector
from fsis_jax.training.initialise import initialise_from
from fsis_jax.training.step import new_state

VALIDATION = {"mask_ap50": 0.5, "min_score": 0.31}
NAME = "backbone/stem/kernel"


def _detector(config, seed):
    """With random numbers in every array."""
    graph, like = nnx.split(nnx.eval_shape(lambda: Detector(config.model, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    arrays = {name: jnp.asarray(rng.normal(size=x.shape), x.dtype) for name, x in flat_arrays(like).items()}
    return nnx.merge(graph, filled(like, arrays))


@pytest.fixture(scope="module")
def trained():
    config = tiny.get_config()
    return Trained.of(_detector(config, 0), config, VALIDATION)


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    save_weights(path, trained)
    return path


def _arrays(trained):
    return {name: np.asarray(value) for name, value in flat_arrays(nnx.state(trained.model)).items()}


# -- there and back -----------------------------------------------------------------------------------------------


def test_there_and_back(trained, file):
    back = load_weights(file)
    expected = trained.config.to_dict()
    expected["data"]["root"] = ""  # a place on the machine that trained it
    assert back.config.to_dict() == expected
    assert back.validation == VALIDATION
    before, after = _arrays(trained), _arrays(back)
    assert list(after) == list(before)
    assert NAME in after
    for name, value in before.items():
        assert after[name].dtype == np.float32
        np.testing.assert_array_equal(after[name], value.astype(np.float16).astype(np.float32), err_msg=name)
    assert file.stat().st_size < 0.6 * sum(value.nbytes for value in before.values()) + 300 * len(before)


def test_saved_again_it_is_the_same_file(file, tmp_path):
    save_weights(tmp_path / "again.npz", load_weights(file))
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


class Counted(nnx.Module):
    """With an integer, which none of our detectors has."""

    def __init__(self, value):
        self.kernel = nnx.Param(jnp.full((2, 3), value, jnp.float32))
        self.count = nnx.Variable(jnp.int32(70001))


def test_integers_stay_as_they_are(tmp_path):
    save_weights(tmp_path / "counted.npz", Trained.of(Counted(1 / 3), tiny.get_config(), {}))
    with np.load(tmp_path / "counted.npz") as archive:
        assert archive["kernel"].dtype == np.float16
        assert (archive["count"].dtype, archive["count"]) == (np.int32, 70001)


@pytest.mark.parametrize("value", [1e5, np.nan])
def test_numbers_that_float16_does_not_have(tmp_path, value):
    with pytest.raises(FsisError, match=r"x.npz: kernel has values that are not finite or above 65504.0: keep the run"):
        save_weights(tmp_path / "x.npz", Trained.of(Counted(value), tiny.get_config(), {}))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(FsisError, match=r"x.npz: cannot be written \(Is a directory\)"):
        save_weights(tmp_path / "x.npz", trained)


# -- what is refused ----------------------------------------------------------------------------------------------


def _rewrite(path, file, change, save=np.savez):
    """A copy of a weights file whose arrays and meta were changed."""
    with np.load(file) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays.pop("meta")))
    change(arrays, meta)
    save(path, meta=np.array(json.dumps(meta)), **arrays)


def _with_member(path, file, name, data):
    """A copy with other bytes of a member."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            new.writestr(member, data if member == f"{name}.npy" else old.read(member))


def _huge(shape, dtype="<f2"):
    """An array that declares far more than it has."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


def _overlapping(path, file):
    """Members that are all the same part of the file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.npy", bytes(1000))
        for number in range(9):
            archive.filelist.append(archive.filelist[0])
            archive.NameToInfo[f"{number}.npy"] = archive.filelist[0]


class Trap:
    """Tells if it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def _objects(arrays, meta):
    arrays[NAME] = np.full(arrays[NAME].shape, Trap())


FOREIGN = {
    "empty": lambda path, file: path.write_bytes(b""),
    "text": lambda path, file: path.write_text("weights"),
    "cut off": lambda path, file: path.write_bytes(file.read_bytes()[:-1000]),
    "the middle is missing": lambda path, file: path.write_bytes(file.read_bytes()[:5000] + file.read_bytes()[9000:]),
    "a bit": lambda path, file: path.write_bytes(_flipped(file.read_bytes())),
    "another npz": lambda path, file: np.savez(path, a=np.zeros(3)),
    "another zip": lambda path, file: zipfile.ZipFile(path, "w").close(),
    "compressed": lambda path, file: _rewrite(path, file, lambda arrays, meta: None, np.savez_compressed),
    "a config of another type": lambda path, file: _rewrite(path, file, lambda arrays, meta: meta.update(config=[3])),
    "no config": lambda path, file: _rewrite(path, file, lambda arrays, meta: meta.pop("config")),
    "a depth that is none": lambda path, file: _rewrite(
        path, file, lambda arrays, meta: meta["config"]["model"]["backbone"].update(depth=7)
    ),
    "a threshold that is none": lambda path, file: _rewrite(
        path, file, lambda arrays, meta: meta.update(validation={"min_score": "high"})
    ),
    "objects": lambda path, file: _rewrite(path, file, _objects),
    "objects in the meta": lambda path, file: np.savez(path, meta=np.array([Trap()] * 999)),
    "a terabyte": lambda path, file: _with_member(path, file, NAME, _huge((1 << 20, 1 << 19))),
    "a terabyte of meta": lambda path, file: _with_member(path, file, "meta", _huge((), f"<U{1 << 38}")),
    "overlapping": _overlapping,
}


def _flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_another_kind_of_file_or_a_damaged_one(file, tmp_path, make):
    path = tmp_path / "x.npz"
    make(path, file)
    with pytest.raises(FsisError) as stop:
        load_weights(path)
    damaged = f"{path}: no weights file, or a damaged one (", "): make one with `fsis export`"
    expected = damaged if make is not FOREIGN["a depth that is none"] else (f"{path}: config.model.backbone.depth", "")
    assert str(stop.value).startswith(expected[0])
    assert str(stop.value).endswith(expected[1])
    assert not Trap.sprung


def test_the_tests_would_notice(file, tmp_path):
    """The same file does run its code when it is allowed to."""
    _rewrite(tmp_path / "x.npz", file, _objects)
    with np.load(tmp_path / "x.npz", allow_pickle=True) as archive:
        assert archive[NAME].shape
    assert Trap.sprung
    Trap.sprung = False


def _rename(arrays, meta):
    arrays["backbone/stem/kernal"] = arrays.pop(NAME)


def _reshape(arrays, meta):
    arrays[NAME] = arrays[NAME][..., :2]


def _retype(arrays, meta):
    arrays[NAME] = arrays[NAME].astype(np.float32)


def _widen(arrays, meta):
    meta["config"]["model"]["box_head"]["hidden"] = 40


MISMATCHES = {
    "a name": (_rename, r"1 missing \(backbone/stem/kernel\); 1 extra \(backbone/stem/kernal\)"),
    "a shape": (_reshape, r"1 of another shape \(backbone/stem/kernel \(7, 7, 3, 2\) instead of \(7, 7, 3, 8\)\)"),
    "a type": (_retype, r"1 of another type \(backbone/stem/kernel float32\)"),
    "the config": (_widen, r"\d+ of another shape \(box_head/\S+ .* instead of .*, \.\.\.\)"),
}


@pytest.mark.parametrize(("change", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_arrays_that_do_not_fit_are_named(file, tmp_path, change, message):
    path = tmp_path / "x.npz"
    _rewrite(path, file, change)
    message = rf"^{path}: arrays that do not fit its config: {message}: export the run again$"
    with pytest.raises(FsisError, match=message):
        load_weights(path)


def test_a_file_of_another_format(file, tmp_path):
    _rewrite(tmp_path / "x.npz", file, lambda arrays, meta: meta.update(format=2))
    with pytest.raises(FsisError, match=r"x.npz: weights of format 2, not 1: use the fsis_jax that wrote them"):
        load_weights(tmp_path / "x.npz")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(FsisError, match=r"none.npz: no such file: check the path"):
        load_weights(tmp_path / "none.npz")
    with pytest.raises(FsisError, match=r": cannot be read \(Is a directory\): give a readable weights file"):
        load_weights(tmp_path)


# -- training that starts from one --------------------------------------------------------------------------------


def _state(**model):
    config = tiny.get_config()
    config.model.update(model)
    return new_state(config, _detector(config, 1))[1], config


def test_training_starts_from_a_file(trained, file, caplog):
    state, config = _state()
    start, _ = initialise_from(str(file), state, config)
    for name, value in flat_model(start).items():
        np.testing.assert_array_equal(np.asarray(value), _arrays(trained)[name].astype(np.float16), err_msg=name)
    assert caplog.text == ""
    config.model.backbone.padded_pool = not config.model.backbone.padded_pool
    initialise_from(file, state, config)
    assert f"the weights of {file} are made for False; consider --config.model.backbone.padded_pool=" in caplog.text


def test_training_starts_from_weights_of_the_package(trained, file, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    (tmp_path / "cells-small.npz").symlink_to(file)
    (tmp_path / "SHA256SUMS").write_text("")
    state, config = _state()
    with pytest.raises(FsisError, match=r"cells-small.npz: its SHA-256 is not that"):
        initialise_from("cells-small", state, config)
    monkeypatch.setattr("fsis_jax.pretrained.shipped_file", lambda name: tmp_path / f"{name}.npz")
    start = flat_model(initialise_from("cells-small", state, config)[0])
    np.testing.assert_array_equal(np.asarray(start[NAME]), _arrays(trained)[NAME].astype(np.float16))


def test_training_does_not_start_from_another_architecture(file):
    state, config = _state(relation="concat")
    with pytest.raises(
        FsisError, match=f"^{re.escape(str(file))}: a checkpoint of another architecture: .* (extra|miss)"
    ):
        initialise_from(file, state, config)
