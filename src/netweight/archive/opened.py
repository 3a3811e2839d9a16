"""Sections to tensors: a section whose prelude has been read gives any of its chunks, checked."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight.archive.checksums import checksum_of_bytes, checksum_of_integers
from netweight.checkpoint import TensorInfo
from netweight.codecs.base import Codec, Parts
from netweight.codecs.registry import EXACT, EXACT_VERSION, by_id
from netweight.dtypes import is_float, storage_dtype
from netweight.entropy.decode import Coded, Fine, Head, decode_chunks, decode_head, empty_stream, scale_chunks
from netweight.entropy.planes import decode_planes_chunk, decode_planes_head
from netweight.entropy.small import Reader, damaged
from netweight.entropy.stream import Piece
from netweight.errors import FormatError
from netweight.kernels import Target

LARGEST_REALS = 1 << 16
LARGEST_CHUNK, LARGEST_EXACT_CHUNK = 1 << 20, 1 << 17  # weights, storage elements
PLANES = "planes"
TOGETHER = 256  # chunks that are decoded at once: no more, so that an interrupt is heard


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
        codec: id, version, and which of its streams this is.
        members: infos of its tensors.
        params: integers of each.

    Attributes:
        nbytes: of the section.
        codec: None where it is `exact`.
        head: levels and tables of its integers; None where the codec is `exact`.
        chunks: where each lies.
        plan: which pieces of which members each chunk holds.
        home: by member, the chunks that hold its pieces.

    Raises:
        FormatError: the prelude contradicts itself or the infos.
    """

    def __init__(
        self, data: memoryview, prelude: int, codec: tuple[str, int, str], members: Sequence[TensorInfo],
        params: Sequence[tuple[int, ...]],
    ) -> None:  # fmt: skip
        self.members = tuple(members)
        self.nbytes = len(data)
        self.head: Head | None = None
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
        name, version, stream = codec
        if name == EXACT:
            self.streams: tuple[str, ...] = (PLANES,)
            self._open_exact(reader, version)
        else:
            self.codec = by_id(name, version)
            self.streams = self.codec.streams
            lossless = [info.dtype for info in self.members if not is_float(info.dtype)]
            if lossless:
                raise damaged(f"the codec {name!r} holds a tensor of {lossless[0]}")
            self._require_room([info.size for info in self.members], LARGEST_CHUNK)
            self.parts = [self._parts(reader, self.codec, p, stream == self.streams[0]) for p in params]
            layouts = [self.codec.layout(info.shape) for info in self.members]
            self.head = head = decode_head(reader.data[reader.at :], layouts)
            self.parts = [
                replace(p, streams={stream: empty_stream(head, member)}, bits=head.bits)
                for member, p in enumerate(self.parts)
            ]
            self.plan = self.head.chunks()
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
        sizes = [info.nbytes // storage_dtype(info.dtype).itemsize for info in self.members]
        self._require_room(sizes, LARGEST_EXACT_CHUNK)
        self._planes = decode_planes_head(reader.data[reader.at :], dtypes.pop(), [info.shape for info in self.members])
        self.plan = self._planes.chunks()

    def _require_room(self, sizes: Sequence[int], most: int) -> None:
        """Check sizes against the chunks there are, before anything of these sizes is made."""
        if sum(sizes) > most * len(self.chunks):
            raise damaged(f"{len(self.chunks)} chunks cannot hold {sum(sizes)} elements")

    def _parts(self, reader: Reader, codec: Codec, params: tuple[int, ...], first: bool) -> Parts:
        if len(params) != len(codec.params):
            raise damaged(f"{len(params)} parameters for the codec {codec.id!r}, which has {len(codec.params)}")
        reals = {}
        for name in codec.reals if first else ():
            count = reader.varint()
            if count > LARGEST_REALS:
                raise damaged(f"{count} real numbers {name!r}")
            data = reader.take(4 * count)
            reals[name] = np.frombuffer(data, "<f4").astype(np.float32)
            if not (isfinite(struct.unpack("<f", data)[0]) if count == 1 else np.isfinite(reals[name]).all()):
                raise damaged(f"a real number {name!r} is not finite")
        return Parts({}, reals, dict(zip(codec.params, params, strict=True)))

    def decode(self, index: int) -> list[Fine] | list[NDArray[Any]]:
        """Decode and check a chunk: integers of its pieces, or storage elements where the codec is exact.

        Raises:
            FormatError: the chunk is damaged.
        """
        if self.codec is not None:
            return self._fine([(index, ())])[0]
        data = self._bytes(index)
        planes = list(decode_planes_chunk(self._planes, self.plan[index], data))
        self._require_checksum(index, checksum_of_bytes(data, planes))
        return planes

    def piece(self, index: int, member: int) -> tuple[int, Piece]:
        """Which of a chunk's pieces is a member's, and the piece."""
        return next((j, p) for j, p in enumerate(self.plan[index]) if p.tensor == member)

    def scale(self, targets: Mapping[int, Target]) -> list[int]:
        """Decode and check the chunks that hold pieces of these members and of no other, each to its target.

        Args:
            targets: by member, for all its values in scan order.

        Returns:
            Chunks that are left: those that hold pieces of others too.

        Raises:
            FormatError: a chunk is damaged.
        """
        assert self.head is not None
        chunks = sorted({chunk for member in targets for chunk in self.home[member]})
        whole = [chunk for chunk in chunks if all(p.tensor in targets for p in self.plan[chunk])]
        plain = [chunk for chunk in whole if not any(self.head.shifts[p.tensor] for p in self.plan[chunk])]
        for at in range(0, len(plain), TOGETHER):
            self._scale_plain(plain[at : at + TOGETHER], targets)
        for chunk in sorted({*whole} - {*plain}):
            for p, fine in zip(self.plan[chunk], self._fine([(chunk, ())])[0], strict=True):
                target = targets[p.tensor]
                fine.scaled(target.factor, target.out[p.start : p.start + p.size])
        return sorted({*chunks} - {*whole})

    def _scale_plain(self, chunks: Sequence[int], targets: Mapping[int, Target]) -> None:
        assert self.head is not None
        lie, plan = [self.chunks[chunk] for chunk in chunks], [self.plan[chunk] for chunk in chunks]
        needed = {p.tensor: targets[p.tensor] for pieces in plan for p in pieces}
        checksums = scale_chunks(self.head, self._data, [(c.at, c.size) for c in lie], plan, needed)
        if checksums is None:
            self._fine([(chunk, [_part(needed[p.tensor], p) for p in self.plan[chunk]]) for chunk in chunks])
            return
        for chunk, checksum in zip(chunks, checksums, strict=True):
            self._require_checksum(chunk, checksum)

    def _fine(self, wanted: Sequence[tuple[int, Sequence[Target]]]) -> list[list[Fine]]:
        """Decode and check chunks, each to its targets."""
        assert self.head is not None
        coded = [Coded(self._bytes(index), self.plan[index], targets) for index, targets in wanted]
        found = []
        for (index, _), chunk, (fine, checksum) in zip(wanted, coded, decode_chunks(self.head, coded), strict=True):
            self._require_checksum(index, checksum_of_integers(chunk.data, fine) if checksum is None else checksum)
            found.append(fine)
        return found

    def _bytes(self, index: int) -> memoryview:
        chunk = self.chunks[index]
        return self._data[chunk.at : chunk.at + chunk.size]

    def _require_checksum(self, index: int, crc: int) -> None:
        expected = self.chunks[index].crc
        if crc != expected:
            name = self.members[self.plan[index][0].tensor].name
            raise FormatError(
                f"The checksum of a chunk of {name!r} is {crc:08x}, {expected:08x} is expected.",
                "The file is damaged: get it again.",
            )

    def streams_of(self, count: int) -> tuple[str, ...]:
        """Names of the streams of a tensor that has so many: all, or the last ones of a codec that refines."""
        progressive = self.codec is not None and self.codec.progressive
        return self.streams[max(0, len(self.streams) - count) :] if progressive else self.streams

    def factor(self, member: int) -> np.float32 | None:
        """What the integers of a member are multiplied by, if that is all that its codec does."""
        if self.codec is None or not self.codec.linear:
            return None
        scale = self.parts[member].reals.get(self.codec.linear)
        if scale is None or scale.size != 1:
            raise damaged(f"no factor for {self.members[member].name!r}")
        return np.float32(scale[0])

    def rebuild(self, member: int, fine: Mapping[str, NDArray[np.signedinteger]]) -> NDArray[np.float32]:
        """Turn the integers of a member into float32.

        Raises:
            FormatError: the codec cannot make anything of them.
        """
        assert self.codec is not None
        info = self.members[member]
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                return self.codec.decode(self.parts[member], fine, info.shape)
        except (ArithmeticError, LookupError, ValueError) as error:
            raise damaged(f"the codec {self.codec.id!r} cannot rebuild {info.name!r}: {error}") from None


def _part(target: Target, piece: Piece) -> Target:
    return Target(target.out[piece.start : piece.start + piece.size], target.factor)
