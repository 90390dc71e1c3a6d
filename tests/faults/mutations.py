"""Damage: what transfers, disks and strangers do to the bytes of a file. Each function gives a changed copy."""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]

_INTEGERS = (0, 1, 2, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    *("-1", "0", "1", "300000000", "9" * 20, "9" * 400, "1e308", "1e400", "-1e308", "0.5", "NaN", "Infinity", "null"),
    *("true", "[]", "{}", '""', '"x"', '"\\u0000"', '"\\ud800"', '"../../x"', "[[]]", "[null]", '{"a": 1}', "[" * 3000),
)


def flipped(data: bytes, rng: Rng) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def one_flipped(data: bytes, rng: Rng) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ 1 << rng.integers(8)]) + data[place + 1 :]


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def dropped(data: bytes, rng: Rng) -> bytes:
    """64 bytes are missing."""
    place = int(rng.integers(max(len(data) - 64, 1)))
    return data[:place] + data[place + 64 :]


def zeroed(data: bytes, rng: Rng) -> bytes:
    """64 bytes are 0."""
    place = int(rng.integers(max(len(data) - 64, 1)))
    return data[:place] + bytes(min(64, len(data) - place)) + data[place + 64 :]


def repeated(data: bytes, rng: Rng) -> bytes:
    """A part is there twice."""
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:end] + data[start:end] + data[end:]


def integers(data: bytes, rng: Rng) -> bytes:
    """Numbers of 2 or 4 bytes that are extreme."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        kind = str(rng.choice(["<H", ">H", "<I", ">I"]))
        value = int(rng.choice(_INTEGERS)) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
        place = int(rng.integers(max(min(len(data), 4096) - 4, 1)))
        packed = struct.pack(kind, value)
        changed[place : place + len(packed)] = packed
    return bytes(changed)


def words(data: bytes, rng: Rng) -> bytes:
    """A number or a text in a text becomes another value."""
    found = list(re.finditer(rb'-?[0-9]+(?:\.[0-9]+)?|"[^"\n]*"|true|false|null', data[: 1 << 16]))
    if not found:
        return flipped(data, rng)
    for match in sorted(rng.choice(len(found), min(len(found), int(rng.integers(1, 3))), replace=False), reverse=True):
        start, end = found[match].span()
        data = data[:start] + str(rng.choice(_WORDS)).encode() + data[end:]
    return data


def tree(data: bytes, rng: Rng) -> bytes:
    """A value somewhere in JSON becomes another, is taken out, or comes again."""
    try:
        content = json.loads(data)
    except ValueError:
        return words(data, rng)
    places: list[tuple[Any, Any]] = []
    left = [content]
    while left:
        part = left.pop()
        if isinstance(part, dict | list):
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            places += [(part, key) for key in keys]
            left += [part[key] for key in keys]
    if not places:
        return words(data, rng)
    part, key = places[rng.integers(len(places))]
    how = rng.integers(4)
    if how == 0:
        del part[key]
    elif how == 1 and isinstance(part, list):
        part.append(part[key])
    else:
        word = str(rng.choice(_WORDS))
        try:
            part[key] = json.loads(word)
        except (ValueError, RecursionError):
            part[key] = word
    return json.dumps(content).encode()


PLAIN: tuple[Damage, ...] = (flipped, one_flipped, cut, dropped, zeroed, repeated, integers)
TEXT: tuple[Damage, ...] = (words, words, tree, tree, tree, flipped, cut, dropped)


def any_of(*damages: Damage) -> Damage:
    return lambda data, rng: damages[rng.integers(len(damages))](data, rng)


def png(data: bytes, rng: Rng) -> bytes:
    """Of half of them the checksums are right again."""
    changed = any_of(*PLAIN)(data, rng)
    if rng.integers(2) or not changed.startswith(b"\x89PNG\r\n\x1a\n"):
        return changed
    start, whole = 8, bytearray(changed)
    while start + 12 <= len(whole):
        end = start + 8 + int.from_bytes(whole[start : start + 4], "big")
        if end + 4 > len(whole):
            break
        whole[end : end + 4] = struct.pack(">I", zlib.crc32(whole[start + 4 : end]))
        start = end + 4
    return bytes(whole)


def archive(data: bytes, rng: Rng) -> bytes:
    """Of a zip, mostly of what is in a member, whose checksum is then right."""
    if not rng.integers(4):
        return any_of(*PLAIN)(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as before:
        members = [(info, before.read(info)) for info in before.infolist()]
    chosen, buffer = rng.integers(len(members)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as after:
        for number, (info, content) in enumerate(members):
            if number == chosen:
                how = rng.integers(6)
                if how == 0:
                    continue
                content = any_of(*PLAIN, words)(content, rng) if content else content
            entry = zipfile.ZipInfo(info.filename)
            entry.compress_type = info.compress_type
            after.writestr(entry, content)
    return buffer.getvalue()
