"""What check_config refuses, with the key and the remedy in the message."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from ml_collections import ConfigDict

from fsis_jax.config import base_config, c4_config, cells_config, check_config, compact_config
from fsis_jax.errors import FsisError


@pytest.mark.parametrize("make", [base_config, c4_config, compact_config, cells_config])
def test_recipes_are_sound(make: Callable[[], ConfigDict]) -> None:
    check_config(make())


@pytest.mark.parametrize(
    ("key", "value", "options"),
    [
        ("model.architecture", "c5", "fpn, c4"),
        ("model.ops", "cuda", "auto, xla, pallas"),
        ("model.relation", "sum", "concat, compare, none"),
        ("model.matching.kind", "l2", "co_attention, l1, none"),
        ("model.matching.norm", "frozen", "batch, group"),
        ("model.backbone.deformable", "yes", "none, interleaved, split"),
        ("model.backbone.norm", "batch", "frozen, group"),
        ("model.box_head.norm", "none", "frozen, batch, group"),
    ],
)
@pytest.mark.parametrize("make", [base_config, c4_config])
def test_wrong_choices(make: Callable[[], ConfigDict], key: str, value: str, options: str) -> None:
    with pytest.raises(FsisError, match=f"^{re.escape(f'config.{key} is {value!r}; use one of: {options}')}$"):
        check_config(changed(make(), key, value))


@pytest.mark.parametrize("key", ["model.box_head.pooled", "model.mask_head.pooled", "data.shots"])
def test_numbers_that_are_too_small(key: str) -> None:
    with pytest.raises(FsisError, match=rf"^config\.{key} is 0; it must be at least 1$"):
        check_config(changed(base_config(), key, 0))


@pytest.mark.parametrize("shots", [(), (0,), (1, 0), ("a",), ("",), (1.5,), (True,)])
def test_tests_show_at_least_one_reference(shots: tuple[Any, ...]) -> None:
    with pytest.raises(FsisError, match=r"config\.eval\.shots is \(.*\); give one or more numbers"):
        check_config(changed(base_config(), "eval.shots", shots))


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_the_share_of_mosaics_is_a_probability(value: float) -> None:
    with pytest.raises(FsisError, match=rf"config\.data\.mosaic is {value}; it must be from 0 to 1"):
        check_config(changed(base_config(), "data.mosaic", value))


def test_the_panels_of_a_mosaic_hold_an_instance_each() -> None:
    config = changed(cells_config(), "data.transform.max_instances", 3)
    with pytest.raises(
        FsisError, match=r"^config\.data\.transform\.max_instances is 3; the four panels .* at least 4$"
    ):
        check_config(config)
    check_config(changed(config, "data.mosaic", 0.0))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("otsu", True, r"config\.eval\.mosaics is 2 and config\.eval\.otsu is True: two tests; give one of them"),
        ("references", "wrong", r"set config\.eval\.references to train, it is 'wrong'"),
        ("references", "target", r"set config\.eval\.references to train, it is 'target'"),
    ],
)
def test_mosaics_are_a_test_of_their_own(key: str, value: Any, message: str) -> None:
    config = changed(base_config(), f"eval.{key}", value)
    check_config(config)
    with pytest.raises(FsisError, match=message):
        check_config(changed(config, "eval.mosaics", 2))


def test_anchor_sizes_of_a_pyramid_are_one_for_each_level() -> None:
    """Without one, the single level has as many as are given."""
    sizes = (8, 16, 32)
    with pytest.raises(FsisError, match=r"anchor_sizes has 3 sizes; the pyramid has 5 levels \(2 to 6\)"):
        check_config(changed(base_config(), "model.rpn.anchor_sizes", sizes))
    check_config(changed(c4_config(), "model.rpn.anchor_sizes", sizes))


def changed(config: ConfigDict, key: str, value: Any) -> ConfigDict:
    config.update_from_flattened_dict({key: value})
    return config
