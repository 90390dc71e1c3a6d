"""How large the chunks of Zarr become when they are decompressed, before that is done to all of one.

A chunk has the size that the array's metadata declare; zarr notices a larger one when it is in memory, and 100 kB may
become 3 GB. zarr 3, chunks and shards: https://zarr-specs.readthedocs.io
"""

import bz2
import itertools
import lzma
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import imagecodecs
import numpy as np
import zarr

_HEADS = {"blosc": (4, 8), "lz4": (0, 4)}
"""Codec -> where in its data the size of the decompressed ones is written, in little-endian order."""
_KNOWN = {*_HEADS, "zstd", "zlib", "gzip", "bz2", "lzma"}
_WIDENED = 8
"""How much smaller a filter may make the values: from 64 bits to 8, or from bytes to bits."""
_OVERHEAD = 1 << 16
_NOT_THERE = (1 << 64) - 1
"""In the index of a shard, of a chunk that was not written."""


class ChunkSizes:
    """What the chunks of an array may be as files, and decompressed.

    Raises:
        ValueError: chunks that are compressed twice.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        metadata: Any = array.metadata
        self._shard: Any = None
        if array.metadata.zarr_format == 2:
            codecs = [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor else [])]
            names = [codec.codec_id for codec in codecs]
        else:
            codecs = list(metadata.codecs)
            sharding = next((codec for codec in codecs if hasattr(codec, "index_codecs")), None)
            if sharding is not None:
                self._shard, codecs = sharding, list(sharding.codecs)
            names = [str(codec.to_dict()["name"]).removeprefix("numcodecs.") for codec in codecs]
        compressors = [name for name in names if name in _KNOWN]
        if len(compressors) > 1:
            raise ValueError(f"chunks that are compressed twice, by {' and '.join(compressors)}")
        self._compressor = compressors[0] if compressors else ""
        # Of a checksum behind the compressed data.
        self._tail = 4 * ("crc32c" in names[names.index(self._compressor) :]) if compressors else 0
        filtered = set(names) - _KNOWN - {"bytes", "crc32c", "transpose"}
        self._declared = math.prod(array.chunks) * array.dtype.itemsize
        self._most = self._declared * (_WIDENED if filtered else 1) + 8

    def check(self, window: Sequence[int | slice]) -> None:
        """Raise ValueError where a chunk that a window touches is larger than it should be."""
        sides = self._array.shards or self._array.chunks
        ranges = [
            range(place.start // side, -(-place.stop // side)) if isinstance(place, slice) else (place // side,)
            for place, side in zip(window, sides, strict=True)
        ]
        store: Any = self._array.store_path
        for place in itertools.product(*ranges):
            path = os.path.join(store.store.root, store.path, self._array.metadata.encode_chunk_key(place))
            if os.path.exists(path):
                for data in self._stored(path):
                    if self._compressor and not self._fits(data[: len(data) - self._tail]):
                        raise ValueError(f"a chunk of other than the {self._declared} bytes that it should have")

    def _stored(self, path: str) -> Iterator[bytes]:
        """The chunk of a file, or all of a shard."""
        size = os.path.getsize(path)
        count = math.prod(self._array.shards or ()) // math.prod(self._array.chunks) if self._shard else 1
        if size > count * (2 * self._most + _OVERHEAD):
            raise ValueError(f"chunks of {size} bytes, compressed")
        with open(path, "rb") as file:
            if self._shard is None:
                yield file.read()
                return
            names = [codec.to_dict()["name"] for codec in self._shard.index_codecs]
            if names not in (["bytes"], ["bytes", "crc32c"]):
                raise ValueError(f"a shard whose index is stored by {', '.join(names)}")
            length = count * 16 + 4 * (len(names) - 1)
            start = 0 if _configured(self._shard, "index_location") == "start" else size - length
            file.seek(max(start, 0))
            order = "<" if _configured(self._shard.index_codecs[0], "endian") == "little" else ">"
            index = np.frombuffer(file.read(length)[: count * 16], f"{order}u8").reshape(count, 2)
            for offset, length in index.tolist():
                if offset != _NOT_THERE:
                    if offset + length > size:
                        raise ValueError("a shard that is cut off")
                    file.seek(offset)
                    yield file.read(length)

    def _fits(self, data: bytes) -> bool:
        name, most = self._compressor, self._most
        if name in _HEADS:
            start, end = _HEADS[name]
            return int.from_bytes(data[start:end], "little") <= most
        if name == "zstd":
            try:
                imagecodecs.zstd_decode(data, out=most)
            except imagecodecs.ZstdError:
                return False  # or damaged
            return True
        size = 0
        while data and size <= most:  # gzip may be several streams, one behind the other
            stream = _STREAMS[name]()
            size += len(stream.decompress(data, most + 1 - size))
            data = stream.unused_data
        return size <= most


_STREAMS: Mapping[str, Any] = {
    "zlib": zlib.decompressobj,
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}


def _configured(codec: Any, key: str) -> str:
    """What a codec says in zarr.json. (Its attributes are texts in some versions of zarr, enumerated in others.)"""
    return str(codec.to_dict()["configuration"][key])
