"""Encoded references: their scale, and files of them."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.references import References, check_shapes
from fsis_jax.inference.references_file import load_references
from fsis_jax.inference.traits import TRAITS
from fsis_jax.preprocess.cropped_mask import CroppedMask


@pytest.fixture
def references():
    rng = np.random.default_rng(0)
    features = {
        2: jnp.asarray(rng.normal(size=(1, 4, 4, 8)), jnp.float32),
        5: jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.bfloat16),
    }
    images = rng.integers(0, 255, (2, 16, 16, 3), np.uint8)
    return References(features, np.array([[20, 30], [22, 28]], np.float32), images, 0.5, "model")


def test_a_file_keeps_everything(references, tmp_path):
    references.save(tmp_path / "nuclei.refs")
    again = load_references(tmp_path / "nuclei.refs")
    for level, features in references.features.items():
        assert again.features[level].dtype == features.dtype
        np.testing.assert_array_equal(again.features[level], features)
    np.testing.assert_array_equal(again.sides, references.sides)
    np.testing.assert_array_equal(again.images, references.images)
    assert (again.pixel_size, again.model) == (0.5, "model")
    assert again.digest == references.digest


def test_the_digest_tells_what_gives_other_results(references):
    others = [
        dataclasses.replace(references, pixel_size=None),
        dataclasses.replace(references, model="another"),
        dataclasses.replace(references, sides=references.sides + 1),
        dataclasses.replace(references, features={2: references.features[2]}),
        dataclasses.replace(references, features={**references.features, 2: references.features[2] + 1}),
    ]
    assert len({references.digest, *(other.digest for other in others)}) == 6


def test_sides_follow_the_pixel_size_where_both_are_known(references):
    np.testing.assert_allclose(references.sides_in(0.25), references.sides * 2)
    np.testing.assert_array_equal(references.sides_in(None), references.sides)
    np.testing.assert_array_equal(dataclasses.replace(references, pixel_size=None).sides_in(0.25), references.sides)


def _npz(**arrays):
    def write(path):
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return write


def _array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file: make it with `fsis references`"),
        (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
        (lambda path: path.write_bytes(b""), "no file of encoded references"),
        (lambda path: path.write_text("text"), "no file of encoded references"),
        (_array, "no file of encoded references"),
        (_npz(sides=np.zeros((1, 2))), "no file of encoded references"),
        (_npz(meta=np.array(json.dumps({"format": 9}))), "references of format 9, not 2: encode them again"),
        (
            _npz(meta=np.array(json.dumps({"format": 1})), sides=np.zeros((0, 2)), images=np.zeros((0, 8, 8, 3))),
            "no file of encoded references",
        ),
        (_npz(meta=np.array("{")), "no file of encoded references"),
        (_npz(meta=np.array({"a": 1}, object)), "no file of encoded references"),  # a pickle is not read
    ],
)
def test_what_is_no_file_of_references(tmp_path, write, message):
    path = tmp_path / "x.refs"
    write(path)
    with pytest.raises(FsisError, match=re.escape(f"x.refs: {message}")):
        load_references(path)


_META = {"format": 1, "model": "model", "pixel_size": 0.5, "levels": {"2": "float32"}}
_ARRAYS = {
    "sides": np.full((1, 2), 20, np.float32),
    "images": np.zeros((1, 16, 16, 3), np.uint8),
    "level2": np.zeros((1, 4, 4, 8), np.float32),
}


def _hostile(meta=None, **arrays):
    return {"meta": np.array(json.dumps({**_META, **(meta or {})})), **_ARRAYS, **arrays}


@pytest.mark.parametrize(
    "arrays",
    [
        _hostile({"model": ""}),
        _hostile({"model": 3}),
        _hostile({"levels": {"x": "float32"}}),
        _hostile({"levels": {"3": "float32"}}),
        _hostile({"levels": {"2": "int32"}}),
        _hostile({"levels": [2]}),
        _hostile({"pixel_size": float("nan")}),
        _hostile({"pixel_size": -1}),
        _hostile({"pixel_size": 10**400}),
        _hostile({"pixel_size": True}),
        _hostile(sides=np.zeros((1, 2), np.float32)),
        _hostile(sides=np.full((1, 2), np.nan, np.float32)),
        _hostile(sides=np.full((1, 2), 1e30, np.float32)),
        _hostile(sides=np.full((1, 2), 20)),
        _hostile(sides=np.full((2, 2), 20, np.float32)),
        _hostile(images=np.zeros((1, 16, 16, 3), np.float32)),
        _hostile(images=np.zeros((1, 16, 16), np.uint8)),
        _hostile(level2=np.full((1, 4, 4, 8), np.inf, np.float32)),
        _hostile(level2=np.zeros((1, 4, 4, 8), np.int32)),
        _hostile(level2=np.array("text")),
        {**_hostile(), "meta": np.array("[" * 200_000)},
        {**_hostile(), "meta": np.array("[]")},
        {**_hostile(), "meta": np.zeros(3)},
        _hostile(other=np.zeros(300 << 20, np.uint8)),
    ],
)
def test_a_file_of_a_stranger(tmp_path, arrays):
    with (tmp_path / "x.refs").open("wb") as file:
        np.savez_compressed(file, **arrays)
    with pytest.raises(FsisError, match=re.escape("x.refs: no file of encoded references")) as stop:
        load_references(tmp_path / "x.refs")
    assert "\n" not in str(stop.value)


def test_the_file_that_the_hostile_ones_are_made_from(tmp_path):
    with (tmp_path / "x.refs").open("wb") as file:
        np.savez_compressed(file, **_hostile())
    assert load_references(tmp_path / "x.refs").model == "model"


@pytest.mark.parametrize(
    "features",
    [{3: (1, 4, 4, 8)}, {2: (1, 4, 4, 8), 3: (1, 2, 2, 8)}, {2: (1, 4, 4, 9)}, {2: (2, 4, 4, 8)}, {2: (4, 4, 8)}],
)
def test_features_that_the_model_does_not_make(references, features):
    like = {2: jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)}
    check_shapes(dataclasses.replace(references, features={2: jnp.zeros((1, 4, 4, 8))}), like)
    with pytest.raises(FsisError, match="not as this model makes them: encode their crops again"):
        check_shapes(dataclasses.replace(references, features={n: jnp.zeros(x) for n, x in features.items()}), like)


def test_a_file_that_was_cut_off(references, tmp_path):
    path = tmp_path / "x.refs"
    references.save(path)
    content = path.read_bytes()
    for kept in (len(content) - 1, len(content) // 2, 10):
        path.write_bytes(content[:kept])
        with pytest.raises(FsisError, match="no file of encoded references"):
            load_references(path)


def test_corrections_of_one_kind_without_a_name_give_it_none(references, tmp_path):
    rng = np.random.default_rng(0)
    traits = rng.normal(0, 0.02, (6, len(TRAITS))).astype(np.float32)
    traits[3:, TRAITS.index("log size")] -= 1  # dust
    mask = CroppedMask(0, 0, np.ones((2, 2), bool))
    found = Instances(
        np.array([[0, 0, 2, 2]] * 6, np.float32),
        np.full(6, 0.5, np.float32),
        (mask,) * 6,
        (9, 9),
        evidence=np.array([[0, 1]] * 6, np.float32),
        traits=traits,
    )
    known = dataclasses.replace(references, traits=traits[:2], trait_kinds=np.zeros(2, np.int32))
    np.testing.assert_allclose(known.rescored(found).scores, 0.5)
    known.refined(traits, wrong=[3, 4], right={2: "cell"}).save(tmp_path / "better.refs")
    better = load_references(tmp_path / "better.refs")
    assert better.kinds == ()
    assert better.trait_kinds.tolist() == [0, 0, 1, 1, 0]
    again = better.rescored(found)
    assert again.kind_scores is None
    np.testing.assert_array_equal(again.traits, traits)  # in the same order: the dust, last, scores less
    assert again.scores[:3].min() == 0.5 > again.scores[3:].max()
    plain = dataclasses.replace(found, evidence=None, traits=None)
    assert better.rescored(plain) is plain
