"""Whether what OME-Zarr says of an image has the types that NGFF gives it, so that nobody has to ask again."""

from collections.abc import Mapping
from typing import Any


def check_attributes(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where a part that is read is of another type (NGFF 0.4 and 0.5)."""
    for image in _maps(metadata, "multiscales"):
        _text(image, "name")
        for dataset in _maps(image, "datasets"):
            _text(dataset, "path", needed=True)
            _scales(dataset)
        _scales(image)
        for axis in image.get("axes", []) if isinstance(image.get("axes", []), list) else [None]:
            if isinstance(axis, Mapping):
                _text(axis, "name", needed=True)
            elif not isinstance(axis, str):
                raise ValueError(f"axes {image['axes']!r:.100}")
    _maps(_map(metadata, "omero"), "channels")
    for well in _maps(_map(metadata, "plate"), "wells"):
        _text(well, "path", needed=True)
    for field in _maps(_map(metadata, "well"), "images"):
        _text(field, "path", needed=True)
    series = metadata.get("series", [])
    if not (isinstance(series, list) and all(isinstance(name, str) for name in series)):
        raise ValueError(f"series {series!r:.100}")


def _map(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} {value!r:.100}")
    return value


def _maps(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = content.get(key, [])
    if not (isinstance(value, list) and all(isinstance(item, Mapping) for item in value)):
        raise ValueError(f"{key} {value!r:.100}")
    return value


def _text(content: Mapping[str, Any], key: str, *, needed: bool = False) -> None:
    value = content.get(key)
    if not isinstance(value, str) and (needed or value is not None):
        raise ValueError(f"{key} {value!r:.100}")


def _scales(content: Mapping[str, Any]) -> None:
    for transform in _maps(content, "coordinateTransformations"):
        numbers = transform.get("scale", []) if transform.get("type") == "scale" else []
        if not (isinstance(numbers, list) and all(type(number) in (int, float) for number in numbers)):
            raise ValueError(f"scale {numbers!r:.100}")
