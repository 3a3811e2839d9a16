"""Sections to tensors: a section whose prelude has been read gives any of its chunks, checked."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight.archive.checksums import checksum_of_bytes, checksum_of_integers
from netweight.checkpoint import TensorInfo
from netweight.codecs.base import Codec, Parts
from netweight.codecs.registry import EXACT, EXACT_VERSION, by_id
from netweight.entropy.layout import Layout
from netweight.entropy.planes import decode_planes_chunk, decode_planes_head
from netweight.entropy.small import Reader, damaged
from netweight.entropy.stream import Fine, decode_chunk, decode_head
from netweight.errors import FormatError

LARGEST_REALS = 1 << 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk lies in its section, and its checksum."""

    at: int
    size: int
    crc: int


class Opened:
    """A section whose prelude has been read: its chunks can be decoded in any order.

    Args:
        data: the whole section.
        prelude: bytes of its prelude, checked by the caller.
        codec: id.
        version: of the stream.
        members: infos of its tensors.
        params: integers of each.
        first: this is the stream that carries the reals.

    Raises:
        FormatError: the prelude contradicts itself or the infos.
    """

    def __init__(
        self, data: memoryview, prelude: int, codec: tuple[str, int], members: Sequence[TensorInfo],
        params: Sequence[tuple[int, ...]], first: bool,
    ) -> None:  # fmt: skip
        self.members = tuple(members)
        self._data = data
        reader = Reader(data[:prelude])
        count = reader.varint()
        if count * 5 > prelude:
            raise damaged(f"{count} chunks in a prelude of {prelude} bytes")
        self.chunks: list[Chunk] = []
        at = prelude
        for _ in range(count):
            size = reader.varint()
            self.chunks.append(Chunk(at, size, struct.unpack("<I", reader.take(4))[0]))
            at += size
        if at != len(data):
            raise damaged(f"its chunks end at byte {at} of {len(data)}")
        self.codec: Codec | None = None
        self.parts: list[Parts] = []
        if codec[0] == EXACT:
            self._open_exact(reader, codec[1])
        else:
            self.codec = by_id(*codec)
            self.parts = [self._parts(reader, self.codec, p, first) for p in params]
            self._head = decode_head(reader.data[reader.at :], [Layout.of(info.shape) for info in self.members])
            self.plan = self._head.chunks()
        if len(self.plan) != len(self.chunks):
            raise damaged(f"{len(self.chunks)} chunks where its tensors need {len(self.plan)}")
        self.home: list[list[int]] = [[] for _ in self.members]
        for j, pieces in enumerate(self.plan):
            for p in pieces:
                self.home[p.tensor].append(j)

    def _open_exact(self, reader: Reader, version: int) -> None:
        dtypes = {info.dtype for info in self.members}
        if version != EXACT_VERSION:
            raise FormatError(
                f"The file needs the codec 'exact' version {version}, here is {EXACT_VERSION}.", "Upgrade netweight."
            )
        if len(dtypes) != 1:
            raise damaged(f"tensors of {len(dtypes)} dtypes in one section of exact")
        self._planes = decode_planes_head(reader.data[reader.at :], dtypes.pop(), [info.shape for info in self.members])
        self.plan = self._planes.chunks()

    def _parts(self, reader: Reader, codec: Codec, params: tuple[int, ...], first: bool) -> Parts:
        if len(params) != len(codec.params):
            raise damaged(f"{len(params)} parameters for the codec {codec.id!r}, which has {len(codec.params)}")
        reals = {}
        for name in codec.reals if first else ():
            count = reader.varint()
            if count > LARGEST_REALS:
                raise damaged(f"{count} real numbers {name!r}")
            reals[name] = np.frombuffer(reader.take(4 * count), "<f4").astype(np.float32)
            if not np.isfinite(reals[name]).all():
                raise damaged(f"a real number {name!r} is not finite")
        return Parts({}, reals, dict(zip(codec.params, params, strict=True)))

    def decode(self, index: int) -> list[Fine] | list[NDArray[Any]]:
        """Decode and check a chunk: integers of its pieces, or storage elements where the codec is exact.

        Raises:
            FormatError: the chunk is damaged.
        """
        chunk = self.chunks[index]
        data = self._data[chunk.at : chunk.at + chunk.size]
        pieces = self.plan[index]
        out: list[Fine] | list[NDArray[Any]]
        if self.codec is None:
            out = planes = list(decode_planes_chunk(self._planes, pieces, data))
            crc = checksum_of_bytes(data, planes)
        else:
            out = fine = decode_chunk(self._head, pieces, data)
            crc = checksum_of_integers(data, fine)
        if crc != chunk.crc:
            names = self.members[pieces[0].tensor].name
            raise FormatError(
                f"The checksum of a chunk of {names!r} is {crc:08x}, {chunk.crc:08x} is expected.",
                "The file is damaged: get it again.",
            )
        return out

    def factor(self, member: int) -> np.float32 | None:
        """What the integers of a member are multiplied by, if that is all that its codec does."""
        if self.codec is None or not self.codec.linear:
            return None
        scale = self.parts[member].reals.get(self.codec.linear)
        if scale is None or scale.size != 1:
            raise damaged(f"no factor for {self.members[member].name!r}")
        return np.float32(scale[0])

    def rebuild(
        self, member: int, fine: Mapping[str, NDArray[np.signedinteger]], others: Sequence["Opened"] = ()
    ) -> NDArray[np.float32]:
        """Turn the integers of a member into float32, with the reals of all its streams."""
        assert self.codec is not None
        parts = self.parts[member]
        for other in others:
            parts = replace(parts, reals={**other.parts[member].reals, **parts.reals})
        return self.codec.decode(parts, fine, self.members[member].shape)
