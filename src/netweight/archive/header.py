"""What a `.nwt` file says about itself, and its limits; written by `writing`, checked by `reading`, and nowhere else.

    0   8  magic 89 4E 57 54 0D 0A 1A 0A
    8   2  major version          10  2  flags: bits 0-7 unused, 8-15 reserved
    12  4  header bytes           16  4  crc32 of bytes 0-15 and of the header
    20  n  header: zlib of UTF-8 JSON

All numbers are little-endian.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from netweight.checkpoint import TensorInfo

MAGIC = b"\x89NWT\r\n\x1a\n"
MAJOR = 1
FIXED_BYTES = 20
LARGEST_PACKED_BYTES = 16 << 20
LARGEST_JSON_BYTES = 64 << 20
LARGEST_GROWTH = 64  # bytes of JSON from a packed byte, beyond the first 2^20; real headers stay below 20
LARGEST_COUNT = 1 << 20
LARGEST_STREAMS = 16
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
        refine: sections without which there is no network; each later one refines it. 0 where the file must be whole.
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
    refine: int = 0

    def whole_sections(self, available: int) -> int:
        """How many sections lie in the first so many bytes behind the header."""
        ends = itertools.accumulate(section.size for section in self.sections)
        return sum(1 for end in ends if end <= available)
