"""The header of a `.nwt` file: what is in it, and where. Written and checked here, and nowhere else.

    0   8  magic 89 4E 57 54 0D 0A 1A 0A
    8   2  major version          10  2  flags: bits 0-7 unused, 8-15 reserved
    12  4  header bytes           16  4  crc32 of bytes 0-15 and of the header
    20  n  header: zlib of UTF-8 JSON

All numbers are little-endian. Everything a reader allocates is bounded by what has been checked before.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netweight.checkpoint import TensorInfo
from netweight.dtypes import MAX_RANK, nbytes
from netweight.errors import FormatError, NetweightError

MAGIC = b"\x89NWT\r\n\x1a\n"
MAJOR = 1
FIXED_BYTES = 20
LARGEST_PACKED_BYTES = 16 << 20
LARGEST_JSON_BYTES = 64 << 20
LARGEST_COUNT = 1 << 20
LARGEST_TENSOR_BYTES = 1 << 43
AGAIN = "Get the file again, or make it again."


@dataclass(frozen=True, slots=True)
class Section:
    """A block of the file: some tensors of one codec.

    Attributes:
        codec: id.
        version: of the codec's stream.
        stream: name of the stream among the codec's.
        members: indices into the header's tensors.
        prelude: bytes before the first chunk.
        size: bytes, prelude included.
        crc: crc32 of the prelude.
    """

    codec: str
    version: int
    stream: str
    members: tuple[int, ...]
    prelude: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class Group:
    """A weight file of the source: how many of the names, in order, it held.

    Attributes:
        file: relative path, forward slashes.
        prefix: what precedes the names its tensors have in it.
        tensors: how many.
        metadata: its own.
    """

    file: str
    prefix: str
    tensors: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Header:
    """All that a file says about itself.

    Attributes:
        by: writer and version.
        tensors: those with data of their own, in the source's order.
        names: all names, aliases included, in the source's order.
        ties: alias to owner.
        knobs: knob of each tensor.
        params: integers of each tensor's codec.
        sections: in file order.
        metadata: of the source, string to string.
        layout: weight files of the source; empty if it was in memory.
        source: sha256 and bytes of the source.
        plan: slope, target, predicted bytes and loss, and what else the writer records.
    """

    by: str
    tensors: tuple[TensorInfo, ...]
    names: tuple[str, ...]
    ties: Mapping[str, str]
    knobs: tuple[int, ...]
    params: tuple[tuple[int, ...], ...]
    sections: tuple[Section, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    layout: tuple[Group, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)


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
    if header.layout:
        data["layout"] = [[g.file, g.prefix, g.tensors, dict(g.metadata)] for g in header.layout]
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, sort_keys=False).encode("utf-8", "surrogatepass")
    packed = zlib.compress(text, 9)
    if len(packed) > LARGEST_PACKED_BYTES or len(text) > LARGEST_JSON_BYTES:
        raise FormatError(f"The header would have {len(text)} bytes.", f"A file holds headers of at most {LARGEST_JSON_BYTES}.")
    fixed = MAGIC + struct.pack("<HHI", MAJOR, 0, len(packed))
    return fixed + struct.pack("<I", zlib.crc32(packed, zlib.crc32(fixed))) + packed


def _runs(members: Sequence[int]) -> list[int]:
    """First member, then run lengths of consecutive members and gaps, alternating."""
    out: list[int] = [members[0]] if members else []
    length = 1
    for before, after in zip(members, members[1:], strict=False):
        if after == before + 1:
            length += 1
        else:
            out += [length, after - before]
            length = 1
    return [*out, length] if members else []


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
        raise FormatError(f"{name} is no .nwt file: it begins with {fixed[:8].hex(' ') or 'nothing'}.", "Name a file that netweight compress wrote.")
    if len(fixed) < FIXED_BYTES:
        raise FormatError(f"{name} has {available} bytes, less than the {FIXED_BYTES} every .nwt file begins with.", AGAIN)
    major, flags, size, _ = struct.unpack("<HHII", fixed[8:])
    if major > MAJOR:
        raise FormatError(f"{name} has format version {major}, this netweight reads up to {MAJOR}.", "Upgrade netweight.")
    if major < 1:
        raise FormatError(f"{name} has format version {major}.", AGAIN)
    if flags >> 8:
        raise FormatError(f"{name} sets the reserved flags {flags >> 8:#04x}.", "Upgrade netweight, or get the file again.")
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
    except (zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
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
    ties = {alias: names[owner] for alias, owner in data.get("ties", {}).items() if type(owner) is int and 0 <= owner < count}
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
    if layout and (sum(g.tensors for g in layout) != len(order) or any(g.tensors < 0 or _escapes(g.file) for g in layout)):
        raise _broken("the weight files of the source")
    sections = _sections(data, count)
    source, plan = dict(data.get("source", {})), dict(data.get("plan", {}))
    return Header(str(data["by"]), tensors, order, ties, knobs, params, sections, _strings(data.get("metadata", {})), layout, source, plan)


def _escapes(file: str) -> bool:
    """Whether a relative path leads out of its folder; such a file would be written where nobody expects it."""
    parts = file.replace("\\", "/").split("/")
    return not file or file.startswith(("/", "\\")) or ":" in parts[0] or any(part in ("", ".", "..") for part in parts) or "\0" in file


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
        sections.append(Section(*kinds[kind], _members(run, count), prelude, size, crc))
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
