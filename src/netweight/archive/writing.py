"""A header to bytes: JSON by columns, packed, behind the fixed part."""

import json
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from netweight.archive.header import LARGEST_JSON_BYTES, LARGEST_PACKED_BYTES, MAGIC, MAJOR, Header
from netweight.errors import FormatError


def pack(header: Header) -> bytes:
    """Write the fixed part and the header."""
    types = sorted({info.dtype for info in header.tensors})
    owners = {info.name: index for index, info in enumerate(header.tensors)}
    codecs = sorted({(s.codec, s.version, s.stream) for s in header.sections})
    data: dict[str, Any] = {
        "by": header.by,
        "names": [info.name for info in header.tensors],
        "types": types,
        "dtype": [types.index(info.dtype) for info in header.tensors],
        "shape": [list(info.shape) for info in header.tensors],
        "knob": list(header.knobs),
        "codecs": [list(c) for c in codecs],
        "codec": [codecs.index((s.codec, s.version, s.stream)) for s in header.sections],
        "members": [_runs(s.members) for s in header.sections],
        "prelude": [s.prelude for s in header.sections],
        "bytes": [s.size for s in header.sections],
        "crc": [s.crc for s in header.sections],
        "source": dict(header.source),
        "plan": dict(header.plan),
    }
    if any(header.params):
        data["params"] = [list(p) for p in header.params]
    if header.ties:
        data["ties"] = {alias: owners[owner] for alias, owner in header.ties.items()}
    if header.names != tuple(data["names"]):
        data["order"] = list(header.names)
    if header.metadata:
        data["metadata"] = dict(header.metadata)
    if header.refine:
        data["refine"] = header.refine
    if header.layout:
        data["layout"] = [[g.file, g.prefix, g.tensors, dict(g.metadata)] for g in header.layout]
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, sort_keys=False).encode("utf-8", "surrogatepass")
    packed = zlib.compress(text, 9)
    if len(packed) > LARGEST_PACKED_BYTES or len(text) > LARGEST_JSON_BYTES:
        raise FormatError(
            f"The header would have {len(text)} bytes.", f"A file holds headers of at most {LARGEST_JSON_BYTES}."
        )
    fixed = MAGIC + struct.pack("<HHI", MAJOR, 0, len(packed))
    return fixed + struct.pack("<I", zlib.crc32(packed, zlib.crc32(fixed))) + packed


def _runs(members: Sequence[int]) -> list[int]:
    """First member, then run lengths of consecutive members and gaps, alternating."""
    out: list[int] = [members[0]] if members else []
    length = 1
    for before, after in pairwise(members):
        if after == before + 1:
            length += 1
        else:
            out += [length, after - before]
            length = 1
    return [*out, length] if members else []
