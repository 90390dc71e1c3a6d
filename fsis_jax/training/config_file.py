"""A config as JSON: in the `meta` of checkpoints, and in the file config.json beside them, which `--config` takes."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from fsis_jax.config import base_config
from fsis_jax.errors import FsisError
from fsis_jax.io.files import atomic_write

NAME = "config.json"


def config_of(meta: dict[str, Any]) -> ConfigDict:
    """The config stored in a checkpoint's meta, over today's defaults, or what an older one meant without saying it.

    Raises:
        ValueError: there is none, or what should be a section of it is none.
    """
    config = base_config()
    _check_sections(meta.get("config"), config, "config")
    stored = ConfigDict(_tuples(meta["config"], config))
    with config.unlocked():
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
        FsisError: no such file, no JSON, or a key that does not exist.
    """
    try:
        plain = json.loads(path.read_text())
    except OSError as error:
        raise FsisError(f"{path}: cannot be read ({error.strerror}); give the config.json of a run") from error
    except ValueError as error:
        raise FsisError(f"{path}: not JSON ({error}); give the config.json of a run") from error
    _check_keys(plain, base_config(), path, "config")
    return config_of({"config": plain})


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


def _tuples(value: Any, today: Any = None) -> Any:
    """JSON knows lists only; the config's sequences are tuples, and so is the one value of what takes several today."""
    if isinstance(value, dict):
        return {
            key: _tuples(item, today.get(key) if isinstance(today, ConfigDict) else None) for key, item in value.items()
        }
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return (value,) if isinstance(today, tuple) else value
