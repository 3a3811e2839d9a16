"""Bytes to a header: everything a reader allocates is bounded by what has been checked before."""

import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from netweight.archive.header import (
    AGAIN,
    FIXED_BYTES,
    LARGEST_COUNT,
    LARGEST_JSON_BYTES,
    LARGEST_PACKED_BYTES,
    LARGEST_TENSOR_BYTES,
    MAGIC,
    MAJOR,
    Group,
    Header,
    Section,
)
from netweight.checkpoint import TensorInfo
from netweight.dtypes import MAX_RANK, nbytes
from netweight.errors import FormatError, NetweightError


def packed_size(fixed: bytes, available: int, name: str) -> int:
    """Check the first 20 bytes of a file and give how many bytes of header follow.

    Args:
        fixed: the first 20 bytes, or fewer if the file is shorter.
        available: bytes of the file.
        name: for messages.

    Raises:
        FormatError: no `.nwt`, a newer one, or cut off.
    """
    if not fixed.startswith(MAGIC[: len(fixed)]) or not fixed:
        raise FormatError(
            f"{name} is no .nwt file: it begins with {fixed[:8].hex(' ') or 'nothing'}.",
            "Name a file that netweight compress wrote.",
        )
    if len(fixed) < FIXED_BYTES:
        raise FormatError(
            f"{name} has {available} bytes, less than the {FIXED_BYTES} every .nwt file begins with.", AGAIN
        )
    major, flags, size, _ = struct.unpack("<HHII", fixed[8:])
    if major > MAJOR:
        raise FormatError(
            f"{name} has format version {major}, this netweight reads up to {MAJOR}.", "Upgrade netweight."
        )
    if major < 1:
        raise FormatError(f"{name} has format version {major}.", AGAIN)
    if flags >> 8:
        raise FormatError(
            f"{name} sets the reserved flags {flags >> 8:#04x}.", "Upgrade netweight, or get the file again."
        )
    if size > LARGEST_PACKED_BYTES:
        raise FormatError(f"{name} announces a header of {size} bytes, the limit is {LARGEST_PACKED_BYTES}.", AGAIN)
    if FIXED_BYTES + size > available:
        raise FormatError(f"{name} has {available} bytes, its header alone needs {FIXED_BYTES + size}.", AGAIN)
    return int(size)


def unpack(fixed: bytes, packed: bytes, file_bytes: int) -> Header:
    """Read a header and check that it contradicts neither itself nor the file's length.

    Raises:
        FormatError: in every other case.
    """
    crc = struct.unpack("<I", fixed[16:20])[0]
    if zlib.crc32(packed, zlib.crc32(fixed[:16])) != crc:
        raise FormatError("The header's checksum is wrong.", AGAIN)
    engine = zlib.decompressobj()
    try:
        text = engine.decompress(packed, LARGEST_JSON_BYTES + 1)
        if len(text) > LARGEST_JSON_BYTES or not engine.eof or engine.unused_data:
            raise _broken(f"it does not expand to one text of at most {LARGEST_JSON_BYTES} bytes")
        data = json.loads(text.decode("utf-8", "surrogatepass"))
        header = _header(data)
    except NetweightError:
        raise
    except (
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise _broken(f"{type(error).__name__} {str(error)[:80]!r}") from None
    content = sum(section.size for section in header.sections)
    if FIXED_BYTES + len(packed) + content != file_bytes:
        fact = f"The file has {file_bytes} bytes, its header and sections need {FIXED_BYTES + len(packed) + content}."
        raise FormatError(fact, AGAIN)
    return header


def _ints(values: Any, least: int = 0, most: int = 1 << 53) -> list[int]:
    if not isinstance(values, list) or any(type(v) is not int or not least <= v <= most for v in values):
        raise _broken(f"a list of integers of {least} .. {most} is something else")
    return values


def _strings(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or any(not isinstance(v, str) for v in values.values()):
        raise _broken("metadata are not all text")
    return values


def _header(data: Any) -> Header:
    names = data["names"]
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names) or len(names) > LARGEST_COUNT:
        raise _broken("the names of the tensors")
    count = len(names)
    types = [str(t) for t in data["types"]]
    dtypes = [types[t] for t in _ints(data["dtype"], 0, len(types) - 1)]
    shapes = [tuple(_ints(shape, 0, 1 << 48)) for shape in data["shape"]]
    tensors = tuple(_info(*entry) for entry in zip(names, dtypes, shapes, strict=True))
    ties = {
        alias: names[owner]
        for alias, owner in data.get("ties", {}).items()
        if type(owner) is int and 0 <= owner < count
    }
    if len(ties) != len(data.get("ties", {})):
        raise _broken("a tie to a tensor that is not there")
    order = tuple(data.get("order", names))
    if sorted(order) != sorted([*names, *ties]) or len(set(order)) != len(order):
        raise _broken(f"{len(order)} names for {count} tensors and {len(ties)} ties")
    knobs = tuple(_ints(data["knob"], -(1 << 40)))
    params = tuple(tuple(_ints(p, -(1 << 40))) for p in data.get("params", [[]] * count))
    if len(knobs) != count or len(params) != count:
        raise _broken(f"{len(knobs)} knobs and {len(params)} parameters for {count} tensors")
    layout = tuple(Group(str(f), str(p), int(n), _strings(m)) for f, p, n, m in data.get("layout", []))
    if layout and (
        sum(g.tensors for g in layout) != len(order) or any(g.tensors < 0 or _escapes(g.file) for g in layout)
    ):
        raise _broken("the weight files of the source")
    sections = _sections(data, count)
    source, plan = dict(data.get("source", {})), dict(data.get("plan", {}))
    return Header(
        str(data["by"]),
        tensors,
        order,
        ties,
        knobs,
        params,
        sections,
        _strings(data.get("metadata", {})),
        layout,
        source,
        plan,
    )


def _escapes(file: str) -> bool:
    """Whether a relative path leads out of its folder; such a file would be written where nobody expects it."""
    parts = file.replace("\\", "/").split("/")
    return (
        not file
        or file.startswith(("/", "\\"))
        or ":" in parts[0]
        or any(part in ("", ".", "..") for part in parts)
        or "\0" in file
    )


def _info(name: str, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    if len(shape) > MAX_RANK or math.prod(shape) > LARGEST_TENSOR_BYTES or nbytes(dtype, shape) > LARGEST_TENSOR_BYTES:
        raise _broken(f"the tensor {name!r} of {dtype} {list(shape)}")
    return TensorInfo(name, dtype, shape)


def _sections(data: Any, count: int) -> tuple[Section, ...]:
    kinds = [(str(c), int(v), str(s)) for c, v, s in data["codecs"]]
    columns = [_ints(data[key]) for key in ("codec", "prelude", "bytes", "crc")]
    runs = [_ints(r, -LARGEST_COUNT, LARGEST_COUNT) for r in data["members"]]
    sections = []
    for (kind, prelude, size, crc), run in zip(zip(*columns, strict=True), runs, strict=True):
        if prelude > size:
            raise _broken(f"a section of {size} bytes begins with {prelude}")
        codec, version, stream = kinds[kind]
        sections.append(Section(codec, version, stream, _members(run, count), prelude, size, crc))
    codecs: dict[int, tuple[str, int]] = {}
    streams: set[tuple[str, int]] = set()
    for s in sections:
        for member in s.members:
            if (s.stream, member) in streams or codecs.setdefault(member, (s.codec, s.version)) != (s.codec, s.version):
                raise _broken(f"tensor {member} is coded twice")
            streams.add((s.stream, member))
    if len(codecs) != count:
        raise _broken(f"{count - len(codecs)} tensors are in no section")
    return tuple(sections)


def _members(runs: Sequence[int], count: int) -> tuple[int, ...]:
    """Undo `_runs`, each member at most once, all below `count`."""
    out: list[int] = []
    at = 0
    for j, step in enumerate(runs):
        if j % 2 == 0:
            at += step if j == 0 else step - 1
        else:
            if step < 1 or at < 0 or at + step > count:
                raise _broken(f"a section has tensors {at} .. {at + step - 1} of {count}")
            out += range(at, at + step)
            at += step
    if len(runs) % 2:
        raise _broken("a section's list of tensors ends in a gap")
    return tuple(out)


def _broken(fact: str) -> FormatError:
    return FormatError(f"The header is damaged: {fact}.", AGAIN)
