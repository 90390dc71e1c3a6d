"""What was found in the tiles of a large image, kept on disk while it is segmented, so that a second run goes on.

One file: a header, then a record for each finished tile, appended at once. A record has its length and a checksum
before it, so that one which was cut off when the process was killed is noticed and dropped, with all after it.
"""

import contextlib
import io
import os
import pathlib
import struct
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from fsis_jax.inference.instances import OF_EACH, CroppedMask, Instances, Size
from fsis_jax.io.atomic import refuse_links, write_failure

_MAGIC = b"fsis tiles 2\n"
_RECORD = struct.Struct("<QI")
"""Length and CRC-32 of what follows."""


class Journal:
    """The finished tiles of one image.

    Args:
        path: file. It is made, with its folder, when the first tile is finished.
        key: what the tiles depend on: image, references, model, settings. A file with another key is begun again.
        again: so is one with this key.

    Raises:
        OutputError: the file is there but cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], key: str, *, again: bool = False) -> None:
        self.path = pathlib.Path(path)
        self.finished: dict[int, Instances] = {}
        self._header = _MAGIC + _record(key.encode())
        self._file: BinaryIO | None = None
        try:
            content = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            raise write_failure(self.path, error) from error
        self._end = self._read(content, len(self._header)) if content.startswith(self._header) and not again else 0

    def add(self, tile: int, found: Instances) -> None:
        """Note that a tile is finished. Not kept: category, `names` and `min_score`, which are the image's.

        Raises:
            OutputError: it cannot be written.
        """
        self.finished[tile] = found
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(_record(pack_tile(tile, found)))
            self._file.flush()
        except OSError as error:
            raise write_failure(self.path, error) from error

    def close(self) -> None:
        """Close the file, which stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a record that `add` could not write, and told of
                self._file.close()

    def _open(self) -> BinaryIO:
        refuse_links(self.path.parent, self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "r+b" if self._end else "wb")  # noqa: SIM115 (closed by `close`)
        file.truncate(self._end)
        file.seek(self._end)
        if not self._end:
            file.write(self._header)
        return file

    def _read(self, content: bytes, start: int) -> int:
        """Take the whole records after `start`; where they end."""
        while start + _RECORD.size <= len(content):
            length, checksum = _RECORD.unpack_from(content, start)
            body = content[start + _RECORD.size : start + _RECORD.size + length]
            if not length or len(body) < length or zlib.crc32(body) != checksum:  # zeros are no record
                break
            try:
                tile, found = unpack_tile(body)
            except (ValueError, KeyError, zipfile.BadZipFile):
                break
            self.finished[tile] = found
            start += _RECORD.size + length
        return start


def _record(body: bytes) -> bytes:
    return _RECORD.pack(len(body), zlib.crc32(body)) + body


def pack_tile(tile: int, found: Instances) -> bytes:
    """What was found in a tile, and its number; not kept: category, `names` and `min_score`, which are the image's."""
    bits = [crop.mask.ravel() for crop in found.masks]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        tile=tile,
        size=found.size,
        boxes=found.boxes,
        scores=found.scores,
        places=np.array([(crop.y, crop.x, *crop.mask.shape) for crop in found.masks], np.int64).reshape(-1, 4),
        bits=np.packbits(np.concatenate(bits) if bits else np.zeros(0, bool)),
        **found.of_each(),
    )
    return buffer.getvalue()


def unpack_tile(body: bytes) -> tuple[int, Instances]:
    """What `pack_tile` wrote.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile: it is something else.
    """
    with np.load(io.BytesIO(body), allow_pickle=False) as record:
        places = record["places"].tolist()
        pixels = np.unpackbits(record["bits"]).astype(bool)
        masks, start = [], 0
        for y, x, height, width in places:
            masks.append(CroppedMask(y, x, pixels[start : start + height * width].reshape(height, width).copy()))
            start += height * width
        size: Size = (int(record["size"][0]), int(record["size"][1]))
        told = {name: record[name] for name in OF_EACH if name in record}
        return int(record["tile"]), Instances(record["boxes"], record["scores"], tuple(masks), size, **told)
