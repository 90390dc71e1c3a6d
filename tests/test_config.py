"""What check_config refuses, of whatever key, with the key, its value and the remedy in the message."""

import importlib.util
import json
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from ml_collections import ConfigDict

from fsis_jax.checkpoints.config_file import config_of, plain_config, read_config
from fsis_jax.config import base_config
from fsis_jax.config_check import NEEDS, ORDERED, Need, check_config, check_values, value_of
from fsis_jax.config_rules import RULES
from fsis_jax.errors import FsisError
from fsis_jax.ops.soft_nms import SoftNmsMethod
from fsis_jax.recipes import c4_config, cells_base_config, cells_config, coco_config, compact_config

BASE = base_config()
CONFIGS = sorted((pathlib.Path(__file__).resolve().parent.parent / "configs").glob("*.py"))
NUMBERS = (None, "nonsense", "", True, -2, -2.0, math.nan, math.inf, -math.inf, 10**400, (), (1,), {})
NONSENSE: dict[type, tuple[Any, ...]] = {
    bool: (None, "True", 0, 1, 1.0, (), (True,)),
    int: (*NUMBERS, 1.5, 1.0),
    float: NUMBERS,
    str: (None, True, 5, 0.5, (), ("fpn",), {}),
    tuple: (None, "nonsense", True, 1, math.nan, (None,), ("",), (True,), (math.nan,), (10**400,), ((1, 2),), {}),
}
"""What no key may have whose default is of a type."""
FREE = {"init_from", "data.root"}
"""Keys of any text."""
ON: dict[str, Any] = {
    "data.aspect_bounds": (0.5, 2.0),
    "model.classes": ("cat", "dog"),
    "model.detections.vote_confidence": 1.0,
    "eval.mosaics": 2,
}
"""A value of each key that needs others whatever its own value is."""
OTHERS = (True, False, 0, 1, 2, 5, "fpn", "c4", "mlp", "interleaved", "l1", "concat", "reference", "wrong", "none")
"""Among these is a second value for whatever a key is needed to be."""


@pytest.mark.parametrize("make", [base_config, c4_config, compact_config, cells_config, cells_base_config, coco_config])
def test_recipes_are_sound(make: Callable[[], ConfigDict]) -> None:
    check_config(make())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_sound(path: pathlib.Path) -> None:
    spec = importlib.util.spec_from_file_location("config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check_config(module.get_config())


# -- each key by itself -------------------------------------------------------------------------------------------


def test_every_key_has_a_rule() -> None:
    assert keys(BASE) == set(RULES)


@pytest.mark.parametrize("key", RULES)
def test_every_key_rejects_nonsense(key: str) -> None:
    default, rule = value_of(BASE, key), RULES[key]
    assert rule.allows(default)
    endless = [math.inf] if key == "optimizer.clip_value" else []  # clips nothing, as Detectron
    assert [value for value in NONSENSE[type(default)] if rule.allows(value)] == endless
    if isinstance(default, str):
        assert rule.allows("nonsense") == (key in FREE)


@pytest.mark.parametrize("key", [key for key in RULES if type(value_of(BASE, key)) in (int, float)])
def test_every_numeric_key_has_the_bounds_that_its_message_tells(key: str) -> None:
    rule, whole = RULES[key], isinstance(value_of(BASE, key), int)
    if options := re.findall(r"^one of: (.*)$", rule.must_be):
        allowed = [int(option) for option in options[0].split(", ")]
        assert [value for value in range(-5, 400) if rule.allows(value)] == allowed
        return
    assert rule.must_be.startswith("a whole number, " if whole else "a number, ")
    bounds = re.findall(r"(at least|above|at most|below) (\d+)", rule.must_be)
    assert bounds
    for word, text in bounds:
        step = (1 if whole else 1e-9) * (1 if word in ("at least", "above") else -1)
        at = int(text)
        inside, outside = (at, at - step) if word in ("at least", "at most") else (at + step, at)
        assert rule.allows(inside)
        assert not rule.allows(outside)


def test_every_key_is_told_in_one_form() -> None:
    for key in RULES:
        with pytest.raises(FsisError, match=rf"^config\.{re.escape(key)} is None; it must be [^\n]+$"):
            check_config(changed(base_config(), {key: None}))


@pytest.mark.parametrize("value", ["{}", '{"a": 1}', "[[1]]", "NaN", "-7", '"a\\nb"', f'"{"long " * 1000}"'])
def test_every_key_of_the_config_of_a_run_is_checked(tmp_path: pathlib.Path, value: str) -> None:
    """Text is told in one line, and what `text` keys take is the only thing that passes."""
    path = tmp_path / "config.json"
    for key in ("seed", "data.root", "data.train_canvases", "model.ops", "model.remat", "optimizer.learning_rate"):
        text = value
        for name in reversed(key.split(".")):
            text = f'{{"{name}": {text}}}'
        path.write_text(text)
        if key == "data.root" and isinstance(json.loads(value), str):
            read_config(path)
            continue
        with pytest.raises(FsisError, match=rf"^{re.escape(f'{path}: config.{key} is ')}.*; it must be ") as caught:
            read_config(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


def test_choices_are_those_of_the_code() -> None:
    message = "config.model.detections.nms_method is 'soft'; it must be one of: linear, gaussian, hard"
    with pytest.raises(FsisError, match=f"^{message}$"):
        check_config(changed(base_config(), {"model.detections.nms_method": "soft"}))
    assert message.endswith(", ".join(SoftNmsMethod.__args__))


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("data.aspect_bounds", [(0.5, 2), (1.0, 1.0)], [(0.5,), (0.0, 2.0), (1.5, 2.0), (0.5, 0.9), (0.5, 1.0, 2.0)]),
        ("data.transform.percentiles", [(0, 100)], [(1.0,), (5.0, 5.0), (99.0, 1.0), (-1.0, 50.0), (1.0, 101.0)]),
        ("data.train_canvases", [((32, 64),)], [(64, 64), ((50, 64),), ((0, 64),), ((64.0, 64),), ((64, 64, 3),)]),
        ("eval.shots", [(1,), (5, 3)], [(0,), (1, 0), (1.5,), (True,), 3]),
        ("eval.scales", [(), (0.5, 2)], [(0,), (1.0, -2.0), (True,)]),
        ("model.rpn.anchor_sizes", [(8, 1.5)], [(8, 0), (8, math.inf)]),
        ("model.box_head.box_weights", [(1, 1, 2.0, 2.0)], [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 0.0)]),
        ("model.rpn.straddle", [-1, 0, 3.5], [-0.5]),
        ("model.classes", [("cat",)], [("",), ("cat", 3), "cat"]),
        (
            "distributed",
            ["", "auto", "node1:8476,2,1", "10.0.0.1:65535,1,0", "[fe80::1]:1,16,15"],
            [
                "node1",
                "node1:8476",
                "node1:8476,2",
                "node1,2,0",
                "node1:0,2,0",
                "node1:65536,2,0",
                "node1:1,2,2",
                ":1,2,0",
                "node1:8476,2,-1",
                "node1:8476,2,0,",
                "node 1:8476,2,0",
                "node1:8476, 2, 0",
                "Auto",
            ],
        ),
    ],
)
def test_what_several_values_and_special_ones_may_be(key: str, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not RULES[key].allows(value)] == []
    assert [value for value in bad if RULES[key].allows(value)] == []


# -- keys together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: f"{need.key}-{need.other}")
def test_every_key_that_needs_another(need: Need) -> None:
    value = need.values[0] if need.values else ON[need.key]
    wrong = next(other for other in OTHERS if RULES[need.other].allows(other) and other != need.needed)
    config = changed(base_config(), {need.key: value})
    config = changed(
        config, {also.other: also.needed for also in NEEDS if (also.key, also.values) == (need.key, need.values)}
    )
    config = changed(config, {need.other: wrong})
    shown = value_of(config, need.other)  # 1 becomes 1.0
    message = f"config.{need.other} is {shown!r}; it must be {need.needed!r} where config.{need.key} is {value!r}"
    with pytest.raises(FsisError, match=f"^{re.escape(message)}"):
        check_config(config)


@pytest.mark.parametrize(("smaller", "larger"), ORDERED)
def test_keys_that_must_not_exceed_others(smaller: str, larger: str) -> None:
    low, high = (8, 9) if isinstance(value_of(BASE, smaller), int) else (0.8, 0.9)
    check_config(changed(base_config(), {smaller: low, larger: low}))
    message = f"config.{smaller} is {high}; it must be at most config.{larger}, which is {low}"
    with pytest.raises(FsisError, match=f"^{re.escape(message)}$"):
        check_config(changed(base_config(), {smaller: high, larger: low}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.present": 0.95},
            "data.background is 0.1; it must be at most 1 together with config.data.present, which",
        ),
        (
            {"data.mosaic": 0.3, "data.transform.max_instances": 3},
            "data.transform.max_instances is 3; it must be at least 4, one for each panel",
        ),
        ({"model.rpn.anchor_sizes": (8, 16, 32)}, "model.rpn.anchor_sizes is (8, 16, 32); it must be 5 sizes, one for"),
        ({"model.keypoint_head.kind": "convs"}, "model.keypoint_head.kind is 'convs'; it must be 'none' where config."),
    ],
)
def test_other_keys_that_must_agree(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FsisError, match=f"^{re.escape(f'config.{message}')}"):
        check_config(changed(base_config(), changes))


def test_shares_of_episodes_may_be_all() -> None:
    for percent in range(101):
        check_config(
            changed(
                BASE.copy_and_resolve_references(),
                {"data.present": percent / 100, "data.background": 1 - percent / 100},
            )
        )


def test_without_a_pyramid_a_level_has_as_many_anchor_sizes_as_are_given() -> None:
    sizes = (8, 16, 32)
    check_config(changed(c4_config(), {"model.rpn.anchor_sizes": sizes}))
    for architecture in ("p2", "c5"):
        check_config(changed(base_config(), {"model.architecture": architecture, "model.rpn.anchor_sizes": sizes}))


def test_classes_are_named_once() -> None:
    with pytest.raises(
        FsisError, match=r"^config\.model\.classes is .*; it must be different names; 'cat' is there twice"
    ):
        check_config(changed(coco_config(), {"model.classes": ("cat", "dog", "cat")}))


# -- what comes from elsewhere ------------------------------------------------------------------------------------


def test_the_source_of_a_config_is_told() -> None:
    with pytest.raises(FsisError, match=r"^run/config\.json: config\.seed is -1; it must be"):
        check_values(changed(base_config(), {"seed": -1}), "run/config.json")


def test_a_config_that_lacks_a_key_or_a_section() -> None:
    config = base_config()
    with config.unlocked():
        del config.data.root
        with pytest.raises(FsisError, match=r"^config\.data\.root is None; it must be text"):
            check_config(config)
        del config.data
        with pytest.raises(FsisError, match=r"^config\.data\.root is None; it must be text"):
            check_config(config)


def test_older_configs_mean_what_they_meant() -> None:
    """Keys that they lack have other values than today's defaults."""
    for config, lacking in (
        (compact_config(), ["backbone.freeze_at"]),
        (c4_config(), ["box_head.kind", "mask_head.kind"]),
    ):
        plain = plain_config(config)
        for key in lacking:
            part, name = key.split(".")
            del plain["model"][part][name]
        assert config_of({"config": plain}).to_dict() == config.to_dict()


def keys(section: ConfigDict, prefix: str = "") -> set[str]:
    """Of a config and all its sections, like "data.shots"."""
    found: set[str] = set()
    for name, value in section.items():
        found |= keys(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {prefix + name}
    return found


def changed(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    """The config with other values, of whatever type."""
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    return config
