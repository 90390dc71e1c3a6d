"""TIFFs that tests write, and a count of what is decoded of them."""

import pathlib

import numpy as np
import pytest
import tifffile


def random_image(shape: tuple[int, ...], dtype: str = "u2", seed: int = 0) -> np.ndarray:
    """Levels from 0 to 254."""
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def write(path: pathlib.Path, image: np.ndarray, **options: object) -> pathlib.Path:
    """Returns `path`; `options` are those of `tifffile.imwrite`."""
    tifffile.imwrite(path, image, **options)
    return path


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the tiles or strips that are decoded from now on."""
    decoded: list[int] = []
    decode = tifffile.TiffPage.decode.func

    def counting(page: tifffile.TiffPage):
        inner = decode(page)

        def one(data: bytes, index: int, **options: object):
            decoded.append(index)
            return inner(data, index, **options)

        return one

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(counting))
    return decoded
