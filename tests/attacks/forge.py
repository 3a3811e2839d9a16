"""Tools to build files that lie: everything is as it should be, checksums included, but for one thing."""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from netweight.archive.header import FIXED_BYTES, MAGIC
from netweight.entropy.small import Reader, encode_small, signed, varint

Header = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A section before it is sealed.

    Attributes:
        rest: what follows the chunk table in the prelude.
        chunks: bytes and checksum of each.
    """

    rest: bytes
    chunks: tuple[tuple[bytes, int], ...]

    def prelude(self) -> bytes:
        """Chunk table and rest."""
        table = b"".join(varint(len(data)) + struct.pack("<I", crc) for data, crc in self.chunks)
        return varint(len(self.chunks)) + table + self.rest


def seal(text: bytes, *, major: int = 1, flags: int = 0, level: int = 9) -> bytes:
    """Fixed part and packed header, with a right checksum."""
    packed = zlib.compress(text, level)
    fixed = MAGIC + struct.pack("<HHI", major, flags, len(packed))
    return fixed + struct.pack("<I", zlib.crc32(packed, zlib.crc32(fixed))) + packed


def to_text(header: Header) -> bytes:
    """A header as it is written."""
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def take_apart(data: bytes) -> tuple[Header, list[Part]]:
    """Header and sections of a valid file."""
    size = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(zlib.decompress(data[FIXED_BYTES : FIXED_BYTES + size]))
    at, parts = FIXED_BYTES + size, []
    for size, prelude in zip(header["bytes"], header["prelude"], strict=True):
        section = data[at : at + size]
        reader = Reader(section[:prelude])
        table = [(reader.varint(), struct.unpack("<I", reader.take(4))[0]) for _ in range(reader.varint())]
        start, chunks = prelude, []
        for length, crc in table:
            chunks.append((section[start : start + length], crc))
            start += length
        parts.append(Part(bytes(section[reader.at : prelude]), tuple(chunks)))
        at += size
    return header, parts


def put_together(header: Header, parts: Sequence[Part], **fixed: int) -> bytes:
    """The file of a header and sections: sizes and checksums of the sections are made right."""
    preludes = [part.prelude() for part in parts]
    bodies = [b"".join(data for data, _ in part.chunks) for part in parts]
    header = header | {
        "prelude": [len(prelude) for prelude in preludes],
        "bytes": [len(prelude) + len(body) for prelude, body in zip(preludes, bodies, strict=True)],
        "crc": [zlib.crc32(prelude) for prelude in preludes],
    }
    return seal(to_text(header), **fixed) + b"".join(a + b for a, b in zip(preludes, bodies, strict=True))


def one(
    codec: str,
    dtype: str,
    shape: Sequence[int],
    rest: bytes,
    chunks: Sequence[bytes] = (),
    *,
    params: Sequence[int] = (),
) -> bytes:
    """A file of one tensor "w" in one section whose head is given."""
    stream = "planes" if codec == "exact" else "k"
    header = {
        "by": "forge", "names": ["w"], "types": [dtype], "dtype": [0], "shape": [list(shape)], "knob": [0],
        "params": [list(params)], "codecs": [[codec, 1, stream]], "codec": [0], "members": [[0, 1]],
    }  # fmt: skip
    return put_together(header, [Part(rest, tuple((chunk, 0) for chunk in chunks))])


def short(*values: int) -> bytes:
    """A short stream."""
    return encode_small(np.array(values, np.int64))


def scale(*values: float) -> bytes:
    """A real array."""
    return varint(len(values)) + np.array(values, "<f4").tobytes()


def head(
    *, trellis: int = 0, capacity: int = 17, flags: int = 0, base: int = 8, has: int = 0, run: bytes = b"",
    levels: bytes = b"", tables: bytes | None = None,
) -> bytes:  # fmt: skip
    """A head of weights for one tensor, and tables that hold nothing but 0."""
    if tables is None:
        count = 32 * (5 if flags & 1 else 1) * (2 if trellis else 1)
        tables = varint(count) + short(*[0] * count) + short(*[0] * count)
    return varint(trellis) + varint(capacity) + varint(flags) + signed(base) + varint(has) + run + levels + tables


STATES = struct.pack("<I", 1 << 16) * 32  # a chunk in which every symbol is sure


# ---- random damage, with checksums that are right again

INTERESTING = (-(1 << 40), -129, -1, 0, 1, 2, 7, 127, 255, 4096, 1 << 17, (1 << 20) + 1, 1 << 31, 1 << 43, 1 << 62)


def mutate(random: Random, data: bytes) -> bytes:
    """Damage a file in a few places and make all checksums right again but those of chunks."""
    header, parts = take_apart(data)
    kind = random.randrange(4)
    if kind == 0:
        return seal(_bytes(random, to_text(header))) + data[FIXED_BYTES + struct.unpack_from("<I", data, 12)[0] :]
    if kind == 1:
        for _ in range(random.randint(1, 3)):
            _value(random, header)
        return put_together(header, parts)
    number = random.randrange(len(parts))
    part = parts[number]
    if kind == 2 or not part.chunks:
        parts[number] = Part(_bytes(random, part.rest), part.chunks)
        return put_together(header, parts)
    chunk = random.randrange(len(part.chunks))
    broken = list(part.chunks)
    broken[chunk] = (_bytes(random, broken[chunk][0]), broken[chunk][1])
    parts[number] = Part(part.rest, tuple(broken))
    return put_together(header, parts)


def _bytes(random: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out) + 1)
        what = random.randrange(5)
        if what == 0:
            out[at:at] = random.randbytes(random.randint(1, 4))
        elif what == 1:
            del out[at : at + random.randint(1, 4)]
        elif what == 2 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif at < len(out):
            out[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
    return bytes(out)


def _value(random: Random, header: Header) -> None:
    """Replace, remove or repeat one value somewhere in a header."""
    holder: Any = header
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return
        key = random.choice(keys)
        inner = holder[key]
        if isinstance(inner, list | dict) and inner and random.random() < 0.8:
            holder = inner
            continue
        break
    what = random.randrange(4)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, list):
        holder.insert(key, inner)
    elif isinstance(inner, int) and what == 2:
        holder[key] = inner + random.choice((-1, 1))
    else:
        holder[key] = random.choice([*INTERESTING, "", "x", None, True, 1.5, [], {}, [[]]])
