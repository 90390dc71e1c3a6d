"""A config as JSON: in the `meta` of checkpoints, and in the file config.json beside them, which `--config` takes."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.config_check import check_values
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write, open_file

NAME = "config.json"


def config_of(meta: dict[str, Any]) -> ConfigDict:
    """The config stored in a checkpoint's meta, over today's defaults, or what an older one meant without saying it.

    Raises:
        ValueError: there is none, or what should be a section of it is none.
    """
    config = base_config()
    _check_sections(meta.get("config"), config, "config")
    stored = ConfigDict(_like(meta["config"], config))
    with config.unlocked(), config.ignore_type():  # check_values says it better
        config.update(stored)
    model = stored.get("model", ConfigDict())
    if config.model.backbone.norm == "group" and "freeze_at" not in model.get("backbone", {}):
        config.model.backbone.freeze_at = 0
    if config.model.architecture == "c4" and "kind" not in model.get("box_head", {}):
        config.model.box_head.kind = "res5"
        config.model.mask_head.kind = "shared_res5"
    return config


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON."""
    plain: dict[str, Any] = json.loads(config.to_json_best_effort())
    return plain


def write_config(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Write `workdir`/config.json."""
    with atomic_write(workdir / NAME) as file:
        file.write((json.dumps(plain_config(config), indent=1) + "\n").encode())


def read_config(path: pathlib.Path) -> ConfigDict:
    """A config.json of a run.

    Raises:
        FsisError: no such file, no JSON, a key that does not exist, or a value that its key cannot have.
    """
    try:
        with open_file(path) as file:
            plain = json.loads(file.read())
    except OSError as error:
        raise FsisError(f"{path}: cannot be read ({error.strerror}); give the config.json of a run") from error
    except (ValueError, RecursionError) as error:
        raise FsisError(f"{path}: not JSON ({error}); give the config.json of a run") from error
    _check_keys(plain, base_config(), path, "config")
    config = config_of({"config": plain})
    check_values(config, path)
    return config


def _check_sections(plain: Any, known: ConfigDict, name: str) -> None:
    if not isinstance(plain, dict):
        raise ValueError(f"{name} is not a mapping")
    for key in plain.keys() & known.keys():
        if isinstance(known[key], ConfigDict):
            _check_sections(plain[key], known[key], f"{name}.{key}")


def _check_keys(plain: Any, known: Any, path: pathlib.Path, name: str) -> None:
    if not isinstance(plain, dict):
        raise FsisError(f"{path}: {name} is not a mapping; give the config.json of a run")
    for key, value in plain.items():
        if key not in known:
            raise FsisError(f"{path}: there is no key {name}.{key}; fsis_jax/config.py lists the keys")
        if isinstance(known[key], ConfigDict):
            _check_keys(value, known[key], path, f"{name}.{key}")


def _like(value: Any, today: Any = None) -> Any:
    """JSON's value as that of a config: `today` is the key's own, None inside of tuples.

    JSON knows lists only, but the config's sequences are tuples, and so is the one value of what takes several today; a
    whole number may stand for one with a fraction.
    """
    if isinstance(value, dict):
        known = today if isinstance(today, ConfigDict) else {}
        return {key: _like(item, known.get(key)) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_like(item) for item in value)
    if isinstance(today, tuple):
        return (value,)
    # As text, since float(10**400) is an OverflowError and float("1" + 400 * "0") infinite.
    return float(str(value)) if isinstance(today, float) and type(value) is int else value
