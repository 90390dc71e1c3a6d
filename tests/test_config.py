"""What check_config refuses, with the key and the remedy in the message."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.config_check import check_config
from fsis_jax.errors import FsisError
from fsis_jax.recipes import c4_config, cells_config, coco_config, compact_config
from fsis_jax.training.config_file import config_of, plain_config


@pytest.mark.parametrize("make", [base_config, c4_config, compact_config, cells_config, coco_config])
def test_recipes_are_sound(make: Callable[[], ConfigDict]) -> None:
    check_config(make())


@pytest.mark.parametrize(
    ("key", "value", "options"),
    [
        ("model.architecture", "c6", "fpn, p2, c4, c5"),
        ("model.roi_method", "warp", "align, pool, crop"),
        ("model.ops", "cuda", "auto, xla, pallas"),
        ("model.relation", "sum", "concat, compare, compare_bags, none"),
        ("model.matching.kind", "l2", "co_attention, l1, none"),
        ("model.matching.norm", "frozen", "batch, group"),
        ("model.backbone.deformable", "yes", "none, interleaved, split"),
        ("model.backbone.norm", "batch", "frozen, group"),
        ("model.backbone.dilation", 3, "1, 2"),
        ("model.fpn.coarsest", 4, "5, 6"),
        ("model.rpn.objectness", "relu", "sigmoid, softmax"),
        ("model.box_head.kind", "fc", "mlp, convs, res5"),
        ("model.box_head.conv_norm", "batch", "none, group"),
        ("model.box_head.norm", "none", "frozen, batch, group"),
        ("model.mask_head.kind", "mlp", "convs, shared_res5, res5, none"),
        ("model.mask_head.norm", "batch", "none, group"),
        ("model.keypoint_head.kind", "mlp", "none, convs"),
        ("model.detections.nms_method", "soft", "linear, gaussian, hard"),
        (
            "model.detections.box_voting_scores",
            "max",
            "id, avg, iou_avg, temp_avg, generalized_avg, quasi_sum",
        ),
        ("optimizer.name", "lion", "sgd, adam, adamw"),
    ],
)
@pytest.mark.parametrize("make", [base_config, c4_config])
def test_wrong_choices(make: Callable[[], ConfigDict], key: str, value: str, options: str) -> None:
    with pytest.raises(FsisError, match=f"^{re.escape(f'config.{key} is {value!r}; use one of: {options}')}$"):
        check_config(changed(make(), key, value))


@pytest.mark.parametrize(
    "key", ["model.box_head.pooled", "model.mask_head.pooled", "model.keypoint_head.pooled", "data.shots"]
)
def test_numbers_that_are_too_small(key: str) -> None:
    with pytest.raises(FsisError, match=rf"^config\.{key} is 0; it must be at least 1$"):
        check_config(changed(base_config(), key, 0))


@pytest.mark.parametrize("shots", [(), (0,), (1, 0), ("a",), ("",), (1.5,), (True,)])
def test_tests_show_at_least_one_reference(shots: tuple[Any, ...]) -> None:
    with pytest.raises(FsisError, match=r"config\.eval\.shots is \(.*\); give one or more numbers"):
        check_config(changed(base_config(), "eval.shots", shots))


@pytest.mark.parametrize(
    ("key", "value", "most"),
    [
        ("data.mosaic", -0.1, 1),
        ("data.mosaic", 1.5, 1),
        ("model.detections.box_voting", 1.1, 1),
        ("model.keypoint_head.oks_threshold", -0.5, 1),
        ("model.backbone.freeze_at", -1, 5),
        ("model.backbone.freeze_at", 6, 5),
    ],
)
def test_numbers_out_of_their_range(key: str, value: float, most: int) -> None:
    with pytest.raises(FsisError, match=rf"^config\.{key} is {value}; it must be from 0 to {most}$"):
        check_config(changed(base_config(), key, value))


@pytest.mark.parametrize("scales", [(0,), (1.0, -2.0), ("a",), (True,)])
def test_scales_of_a_test_are_positive(scales: tuple[Any, ...]) -> None:
    with pytest.raises(FsisError, match=r"config\.eval\.scales is \(.*\); give numbers above 0: \(0\.5, 2\.0\)"):
        check_config(changed(base_config(), "eval.scales", scales))
    check_config(changed(base_config(), "eval.scales", (0.5, 2)))


@pytest.mark.parametrize("bounds", [(0.5,), (0.0, 2.0), (1.5, 2.0), (0.5, 0.9), ("a", "b"), (0.5, 1.0, 2.0)])
def test_bounds_of_the_aspect_ratio(bounds: tuple[Any, ...]) -> None:
    with pytest.raises(FsisError, match=r"config\.data\.aspect_bounds is \(.*\); give the least width over height"):
        check_config(changed(base_config(), "data.aspect_bounds", bounds))
    check_config(changed(base_config(), "data.aspect_bounds", (0.5, 2)))
    message = (
        r"aspect_bounds is \(0\.5, 2\.0\) and .*scale 'reference': set the scale to shortest_side or the bounds to"
    )
    with pytest.raises(FsisError, match=message):
        check_config(changed(compact_config(), "data.aspect_bounds", (0.5, 2.0)))


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
    for architecture in ("p2", "c5"):
        config = changed(base_config(), "model.architecture", architecture)
        check_config(changed(config, "model.rpn.anchor_sizes", sizes))
        with pytest.raises(FsisError, match="anchor_sizes is empty; give at least one size"):
            check_config(changed(config, "model.rpn.anchor_sizes", ()))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("box_head.kind", "res5", "needs config.model.architecture to be 'c4'; it is 'fpn': change one of them"),
        ("mask_head.kind", "res5", "needs config.model.architecture to be 'c4'; it is 'fpn': change one of them"),
        ("mask_head.kind", "shared_res5", "needs config.model.box_head.kind to be 'res5'; it is 'mlp'"),
        ("keypoint_head.kind", "convs", "only detectors of named classes find keypoints; name them, or set"),
        ("backbone.dilation", 2, "set the dilation to 1 or the architecture to c5"),
    ],
)
def test_parts_that_need_others(key: str, value: Any, message: str) -> None:
    with pytest.raises(FsisError, match=rf"^config\.model\.{re.escape(key)} is {value!r}.*{re.escape(message)}"):
        check_config(changed(base_config(), f"model.{key}", value))


def test_pasting_as_the_original_needs_its_boxes() -> None:
    config = changed(compact_config(), "model.detections.legacy_pasting", True)
    with pytest.raises(FsisError, match=r"legacy_pasting is True, which needs config\.model\.legacy_boxes to be True"):
        check_config(config)


def test_basic_blocks_are_not_dilated() -> None:
    config = changed(changed(base_config(), "model.architecture", "c5"), "model.backbone.dilation", 2)
    check_config(config)
    with pytest.raises(FsisError, match="depth is 18: deformable, grouped and dilated convolutions need a depth of 50"):
        check_config(changed(config, "model.backbone.depth", 18))


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("model.matching.kind", "l1", "none"),
        ("model.relation", "compare", "none"),
        ("data.contrast", True, False),
        ("data.mosaic", 0.5, 0),
        ("data.fold", 1, 0),
        ("data.transform.scale", "reference", "shortest_side"),
        ("eval.mosaics", 3, 0),
    ],
)
def test_a_plain_detector_is_shown_no_references(key: str, value: Any, right: Any) -> None:
    with pytest.raises(FsisError, match=rf"^config\.{key} is {value!r}, but .* no references: set it to {right!r}$"):
        check_config(changed(coco_config(), key, value))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "dog", "cat"), "names 'cat' twice; name each category once"),
        (("cat", 3), r"is \('cat', 3\); give names of categories: \('person', 'car'\), or \(\)"),
        (("",), r"is \('',\); give names"),
    ],
)
def test_classes_are_distinct_names(classes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(FsisError, match=rf"^config\.model\.classes {message}"):
        check_config(changed(coco_config(), "model.classes", classes))


def test_older_configs_mean_what_they_meant() -> None:
    """Keys that they lack have other values than today's defaults."""
    for config, keys in (
        (compact_config(), ["backbone.freeze_at"]),
        (c4_config(), ["box_head.kind", "mask_head.kind"]),
    ):
        plain = plain_config(config)
        for key in keys:
            part, name = key.split(".")
            del plain["model"][part][name]
        assert config_of({"config": plain}).to_dict() == config.to_dict()


def changed(config: ConfigDict, key: str, value: Any) -> ConfigDict:
    config.update_from_flattened_dict({key: value})
    return config
