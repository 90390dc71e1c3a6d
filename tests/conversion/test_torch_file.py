"""Reading both formats of PyTorch and pickles of numpy arrays without PyTorch, and writing what PyTorch reads."""

import pathlib
import pickle

import numpy as np
import pytest
import torch_bytes

from fsis_jax.conversion.torch_file import read_file
from fsis_jax.conversion.torch_writer import write_file
from fsis_jax.errors import FsisError

DATA = pathlib.Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["tensors_zip.pth", "tensors_legacy.pth"])
def test_files_that_pytorch_wrote(name):
    """What data/make_torch_files.py put into them."""
    content = read_file(DATA / name)
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    model = content["model"]
    wanted = {
        "plain": base,
        "part": base[1:3, ::2],
        "transposed": base.T,
        "half": (base.astype(np.float16).astype(np.float32) / 3).astype(np.float16),
        "double": base.astype(np.float64) / 3,
        "number": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "boolean": np.array([True, False]),
        "bytes": np.arange(3, dtype=np.uint8),
        "parameter": base[0],
    }
    assert list(model) == [*list(wanted)[:4], "bfloat16", *list(wanted)[4:]]
    for key, value in wanted.items():
        assert model[key].dtype == value.dtype, key
        np.testing.assert_array_equal(model[key], value, err_msg=key)
    assert model["bfloat16"].dtype.name == "bfloat16"
    np.testing.assert_allclose(model["bfloat16"].astype(np.float32), base / 3, rtol=2**-8)
    assert content["step"] == 41
    assert content["best"] == 0.5
    assert content["size"] == (4, 6)
    assert content["arch"] == "resnet50"
    assert content["nothing"] is None
    np.testing.assert_array_equal(content["array"], np.arange(6, dtype=np.int16).reshape(2, 3))
    np.testing.assert_array_equal(content["optimizer"]["state"][140]["momentum_buffer"], base + 1)
    assert content["optimizer"]["param_groups"] == [{"params": [140], "lr": 0.02}]


def test_tensors_are_views_of_the_file():
    model = read_file(DATA / "tensors_legacy.pth")["model"]
    assert np.shares_memory(model["plain"], model["transposed"])
    assert not model["plain"].flags.writeable


CONTENT = {
    "step": 3,
    "big": 1 << 40,
    "rate": 0.5,
    "name": "é",
    "flags": [True, False, None],
    "model": {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "t": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "h": np.ones(2, np.float16),
        "n": np.array(-1, np.int64),
        "e": np.zeros((0, 3), np.float32),
    },
}


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "file.pth"
    write_file(path, CONTENT)
    _check_equal(read_file(path), CONTENT)


def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: what it reads cannot be compared")
    path = tmp_path / "file.pth"
    write_file(path, CONTENT)
    content = torch.load(path, weights_only=True)
    content["model"] = {name: value.numpy() for name, value in content["model"].items()}
    _check_equal(content, CONTENT)


def _check_equal(found, wanted):
    assert {key: value for key, value in found.items() if key != "model"} == {
        key: value for key, value in wanted.items() if key != "model"
    }
    assert list(found["model"]) == list(wanted["model"])
    for name, value in wanted["model"].items():
        assert found["model"][name].dtype == value.dtype
        np.testing.assert_array_equal(found["model"][name], value)


def test_what_cannot_be_written():
    with pytest.raises(TypeError, match="type set"):
        write_file("nowhere.pth", {"a": {1}})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_numpy_arrays(tmp_path, protocol):
    content = {
        "float": np.linspace(0, 1, 5000, dtype=np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "bigendian": np.arange(3, dtype=">i4"),
        "bool": np.array([True]),
        "number": np.float32(0.5),
        "empty": np.zeros((2, 0)),
    }
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"blobs": content, "set": {1, 2}, "text": (b"\xff", "ü")}, protocol))
    read = read_file(path)
    assert sorted(read["set"]) == [1, 2]
    assert read["text"] == (b"\xff", "ü")
    for name, value in content.items():
        assert read["blobs"][name].dtype.newbyteorder("=") == value.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(read["blobs"][name], value)


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_python_2(tmp_path, protocol):
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "file.pkl"
    path.write_bytes(torch_bytes.python2_dict({"blobs": {"a": values}, "cfg": b"text"}, protocol))
    read = read_file(path)
    np.testing.assert_array_equal(read["blobs"]["a"], values)
    assert read["cfg"] == b"text"


def test_an_old_view_of_a_part_of_a_storage(tmp_path):
    """The sixth item of an old identity: (key, offset, size)."""
    values = np.arange(10, dtype=np.float32)
    program = torch_bytes.tensor(size=10, shape=(2, 3), strides=(3, 1))
    program = program.replace(b"tQ", b"(X\x01\x00\x00\x00vK\x04K\x06ttQ")
    path = tmp_path / "file.pth"
    path.write_bytes(torch_bytes.legacy(program, [("0", values)]))
    np.testing.assert_array_equal(read_file(path), values[4:10].reshape(2, 3))


def test_big_endian_files(tmp_path):
    values = np.arange(6, dtype=">f4")
    path = tmp_path / "file.pth"
    torch_bytes.write_zip(path, torch_bytes.tensor(), [("0", values)])
    import zipfile

    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(read_file(path), values.reshape(2, 3))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FsisError, match=r"none\.pth: cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "none.pth")
