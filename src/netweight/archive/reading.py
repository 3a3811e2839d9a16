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
    LARGEST_GROWTH,
    LARGEST_JSON_BYTES,
    LARGEST_PACKED_BYTES,
    LARGEST_STREAMS,
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

    A file that may be refined may end early, but not before its first network is whole.

    Raises:
        FormatError: in every other case.
    """
    crc = struct.unpack("<I", fixed[16:20])[0]
    if zlib.crc32(packed, zlib.crc32(fixed[:16])) != crc:
        raise FormatError("The header's checksum is wrong.", AGAIN)
    engine = zlib.decompressobj()
    try:
        most = min(LARGEST_JSON_BYTES, (1 << 20) + LARGEST_GROWTH * len(packed))
        text = engine.decompress(packed, most + 1)
        if len(text) > most or not engine.eof or engine.unused_data:
            raise _broken(f"it does not expand to one text of at most {most} bytes")
        data = json.loads(text.decode("utf-8", "surrogatepass"), object_pairs_hook=_unique, parse_constant=_no_number)
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
    available = file_bytes - FIXED_BYTES - len(packed)
    cut = available < content and 0 < header.refine <= header.whole_sections(available)
    if available != content and not cut:
        fact = f"The file has {file_bytes} bytes, its header and sections need {FIXED_BYTES + len(packed) + content}."
        raise FormatError(fact, AGAIN)
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _broken("an object has a key twice")
    return found


def _no_number(text: str) -> None:
    raise _broken(f"{text} is no number of JSON")


def _ints(values: Any, least: int = 0, most: int = 1 << 53) -> list[int]:
    if not isinstance(values, list) or any(type(v) is not int or not least <= v <= most for v in values):
        raise _broken(f"a list of integers of {least} .. {most} is something else")
    return values


def _strings(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or any(not isinstance(v, str) for v in values.values()):
        raise _broken("metadata are not all text")
    return values


def _texts(values: Any, what: str) -> list[str]:
    if not isinstance(values, list) or any(not isinstance(v, str) for v in values) or len(values) > LARGEST_COUNT:
        raise _broken(f"the {what} are no list of at most {LARGEST_COUNT} texts")
    return values


def _header(data: Any) -> Header:
    names = _texts(data["names"], "names")
    count = len(names)
    types = _texts(data["types"], "types")
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
    order = tuple(_texts(data.get("order", names), "names in order"))
    if sorted(order) != sorted([*names, *ties]) or len(set(order)) != len(order):
        raise _broken(f"{len(order)} names for {count} tensors and {len(ties)} ties")
    knobs = tuple(_ints(data["knob"], -(1 << 40)))
    params = tuple(tuple(_ints(p, -(1 << 40))) for p in data.get("params", [[]] * count))
    if len(knobs) != count or len(params) != count:
        raise _broken(f"{len(knobs)} knobs and {len(params)} parameters for {count} tensors")
    layout = _layout(data.get("layout", []), len(order))
    sections = _sections(data, count)
    if not isinstance(data["by"], str):
        raise _broken("its writer has no name")
    source, plan = dict(data.get("source", {})), dict(data.get("plan", {}))
    (refine,) = _ints([data.get("refine", 0)], 0, len(sections))
    return Header(
        data["by"],
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
        refine,
    )


def _layout(groups: Any, names: int) -> tuple[Group, ...]:
    layout = []
    for file, prefix, tensors, metadata in groups:
        _texts([file, prefix], "file and prefix of a group")
        _ints([tensors])
        if _escapes(file):
            raise _broken(f"the source's file {file!r} would lie outside its folder")
        layout.append(Group(file, prefix, tensors, _strings(metadata)))
    total = sum(g.tensors for g in layout)
    if layout and (total != names or len({g.file for g in layout}) != len(layout)):
        raise _broken(f"{len(layout)} files of the source hold {total} of {names} tensors")
    return tuple(layout)


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
    # Without its zeros too: NumPy refuses a tensor of 0 x 2^48 x 2^48.
    if len(shape) > MAX_RANK or nbytes(dtype, shape) > LARGEST_TENSOR_BYTES or _extent(shape) > LARGEST_TENSOR_BYTES:
        raise _broken(f"the tensor {name!r} of {dtype} {list(shape)}")
    return TensorInfo(name, dtype, shape)


def _extent(shape: tuple[int, ...]) -> int:
    return math.prod(size for size in shape if size)


def _sections(data: Any, count: int) -> tuple[Section, ...]:
    kinds = [
        (*_texts([codec, stream], "codec and stream"), *_ints([version])) for codec, version, stream in data["codecs"]
    ]
    columns = [_ints(data[key]) for key in ("codec", "prelude", "bytes", "crc")]
    runs = [_ints(r, 0, LARGEST_COUNT) for r in data["members"]]
    sections = []
    codecs: dict[int, tuple[str, int]] = {}
    streams: set[tuple[str, int]] = set()
    for (kind, prelude, size, crc), run in zip(zip(*columns, strict=True), runs, strict=True):
        if prelude > size:
            raise _broken(f"a section of {size} bytes begins with {prelude}")
        codec, stream, version = kinds[kind]
        members = _members(run, count)
        sections.append(Section(codec, version, stream, members, prelude, size, crc))
        if len(streams) + len(members) > LARGEST_STREAMS * count:
            raise _broken(f"its {count} tensors have more than {LARGEST_STREAMS} streams each")
        for member in members:
            if (stream, member) in streams or codecs.setdefault(member, (codec, version)) != (codec, version):
                raise _broken(f"tensor {member} is coded twice")
            streams.add((stream, member))
    if len(codecs) != count:
        raise _broken(f"{count - len(codecs)} tensors are in no section")
    return tuple(sections)


def _members(runs: Sequence[int], count: int) -> tuple[int, ...]:
    """Undo `_runs`: at least one member, rising, all below `count`."""
    out: list[int] = []
    if not runs or len(runs) % 2:
        raise _broken(f"a section's list of tensors has {len(runs)} numbers")
    for gap, length in zip(runs[0::2], runs[1::2], strict=True):
        at = out[-1] + gap if out else gap
        if length < 1 or (out and gap < 1) or at + length > count:
            raise _broken(f"a section has the tensors {at} .. {at + length - 1} of {count}")
        out += range(at, at + length)
    return tuple(out)


def _broken(fact: str) -> FormatError:
    return FormatError(f"The header is damaged: {fact}.", AGAIN)
