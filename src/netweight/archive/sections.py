"""Tensors to sections and back: which tensors share one, what a section begins with, what its chunks must give.

Section = prelude, chunks. Prelude = number of chunks, length and checksum of each, real numbers of the members, head of the coder. A
chunk's checksum covers its bytes and what they decode to, so that a decoder that goes wrong is found out as well as a damaged file.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.checkpoint import Checkpoint, TensorInfo
from netweight.codecs.base import Codec, Parts, Stat
from netweight.codecs.registry import EXACT, by_id, codecs
from netweight.dtypes import to_float32
from netweight.entropy.layout import Layout
from netweight.entropy.planes import decode_planes_chunk, decode_planes_head, encode_planes
from netweight.entropy.small import Reader, damaged, varint
from netweight.entropy.stream import Head, IntStream, Piece, decode_chunk, decode_head, encode_section
from netweight.errors import FormatError, UsageError

POOLED = 1 << 17  # weights up to which tensors share tables and chunks
POOLED_EXACT = 1 << 12
LARGEST_POOL = 1 << 22
EXACT_VERSION = 1
LARGEST_REALS = 1 << 16

Fine = NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True)
class Job:
    """What one task codes: tensors that will share a section.

    Attributes:
        codec: id.
        dtype: common to all where the codec is exact.
        names: of the tensors.
        knobs: of each.
        stats: importance of each.
    """

    codec: str
    dtype: str
    names: tuple[str, ...]
    knobs: tuple[int, ...]
    stats: tuple[Stat, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A coded section on its way into a file.

    Attributes:
        codec: id.
        version: of the codec.
        stream: name of the stream.
        names: members.
        params: integers of each member, where this is its codec's first stream.
        prelude: bytes before the chunks.
        chunks: bytes of each.
    """

    codec: str
    version: int
    stream: str
    names: tuple[str, ...]
    params: tuple[tuple[int, ...], ...]
    prelude: bytes
    chunks: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.prelude) + sum(map(len, self.chunks))


def group(choices: Mapping[str, tuple[str, int]], infos: Mapping[str, TensorInfo], stats: Mapping[str, Stat]) -> list[Job]:
    """Share tensors out over sections: small ones of one codec (exact: and one dtype) together, large ones alone.

    Args:
        choices: codec and knob by tensor.
        infos: of the checkpoint, whose order is kept within a section.
        stats: importance.
    """
    pools: dict[tuple[str, str], list[str]] = {}
    jobs: list[list[str]] = []
    room: dict[tuple[str, str], int] = {}
    for name, info in infos.items():
        codec = choices[name][0]
        key = (codec, info.dtype if codec == EXACT else "")
        limit = POOLED_EXACT if codec == EXACT else POOLED
        if info.size > limit:
            jobs.append([name])
            continue
        if key not in pools or room[key] < info.size:
            pools[key] = []
            room[key] = LARGEST_POOL
            jobs.append(pools[key])
        pools[key].append(name)
        room[key] -= info.size
    return [
        Job(choices[n[0]][0], infos[n[0]].dtype, tuple(n), tuple(choices[m][1] for m in n), tuple(stats.get(m, Stat()) for m in n))
        for n in jobs
    ]


def encode_job(checkpoint: Checkpoint, job: Job) -> list[Block]:
    """Code the tensors of a section, one block for each stream of the codec; every chunk is decoded again before it counts."""
    if job.codec == EXACT:
        return [_encode_exact(checkpoint, job)]
    codec = codecs().get(job.codec)
    if codec is None:
        raise UsageError(f"There is no codec {job.codec!r}.", f"Known are: {', '.join([*codecs(), EXACT])}.")
    parts = []
    for name, knob, stat in zip(job.names, job.knobs, job.stats, strict=True):
        info = checkpoint.infos[name]
        parts.append(codec.encode(to_float32(checkpoint.read(name), info.dtype).reshape(info.shape), stat, knob))
    blocks = []
    for place, stream in enumerate(parts[0].streams):
        streams = [p.streams[stream] for p in parts]
        head, chunks = encode_section(streams, parts[0].bits)
        reals = b"" if place else b"".join(_write_reals(codec, p) for p in parts)
        params = tuple(tuple(p.params[key] for key in codec.params) for p in parts)
        read = decode_head(head, [s.layout for s in streams])
        sums = [_proof(read, streams, pieces, chunk) for pieces, chunk in zip(read.chunks(), chunks, strict=True)]
        prelude = _prelude(chunks, sums, reals + head)
        blocks.append(Block(codec.id, codec.version, stream, job.names, params, prelude, tuple(chunks)))
    return blocks


def _encode_exact(checkpoint: Checkpoint, job: Job) -> Block:
    arrays = [checkpoint.read(name) for name in job.names]
    head, chunks = encode_planes(arrays, job.dtype)
    read = decode_planes_head(head, job.dtype, [checkpoint.infos[name].shape for name in job.names])
    flat = [array.reshape(-1) for array in arrays]
    sums = []
    for pieces, chunk in zip(read.chunks(), chunks, strict=True):
        back = decode_planes_chunk(read, pieces, chunk)
        for p, array in zip(pieces, back, strict=True):
            if array.tobytes() != flat[p.tensor][p.start : p.start + p.size].tobytes():
                raise RuntimeError(f"the exact codec changed {job.names[p.tensor]!r}")
        sums.append(checksum_of_bytes(chunk, back))
    return Block(EXACT, EXACT_VERSION, "planes", job.names, ((),) * len(arrays), _prelude(chunks, sums, head), tuple(chunks))


def _proof(head: Head, streams: Sequence[IntStream], pieces: Sequence[Piece], chunk: bytes) -> int:
    """Decode a chunk, compare it with what went in, and give its checksum."""
    fine = decode_chunk(head, pieces, chunk)
    for p, found in zip(pieces, fine, strict=True):
        k = streams[p.tensor].k[p.start : p.start + p.size]
        back = found if not head.bits else np.sign(found) * (np.abs(found) + 1 >> 1)
        if not np.array_equal(back, k):
            raise RuntimeError("the coder changed an integer")
    return checksum_of_integers(chunk, fine)


def checksum_of_integers(chunk: bytes | memoryview, fine: Sequence[Fine]) -> int:
    """crc32 of the chunk's bytes and of two sums of its decoded integers r_1 .. r_n: sum r_i and sum i r_i, mod 2^32."""
    plain, weighted, at = 0, 0, 0
    for array in fine:
        a, b = kernels.sums(array)
        plain += a
        weighted += b + at * a
        at += array.size
    return zlib.crc32(struct.pack("<II", plain & 0xFFFFFFFF, weighted & 0xFFFFFFFF), zlib.crc32(chunk))


def checksum_of_bytes(chunk: bytes | memoryview, arrays: Sequence[NDArray[np.generic]]) -> int:
    """crc32 of the chunk's bytes and of the elements it decodes to."""
    crc = zlib.crc32(chunk)
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)
    return crc


def _prelude(chunks: Sequence[bytes], sums: Sequence[int], rest: bytes) -> bytes:
    table = b"".join(varint(len(chunk)) + struct.pack("<I", crc) for chunk, crc in zip(chunks, sums, strict=True))
    return varint(len(chunks)) + table + rest


def _write_reals(codec: Codec, parts: Parts) -> bytes:
    out = b""
    for name in codec.reals:
        values = np.ascontiguousarray(parts.reals[name], "<f4")
        out += varint(values.size) + values.tobytes()
    return out


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
            raise FormatError(f"The file needs the codec 'exact' version {version}, here is {EXACT_VERSION}.", "Upgrade netweight.")
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

    def decode(self, index: int) -> list[NDArray[np.generic]]:
        """Decode and check a chunk: fine indices of its pieces, or storage elements where the codec is exact.

        Raises:
            FormatError: the chunk is damaged.
        """
        chunk = self.chunks[index]
        data = self._data[chunk.at : chunk.at + chunk.size]
        pieces = self.plan[index]
        if self.codec is None:
            arrays = list(decode_planes_chunk(self._planes, pieces, data))
            crc = checksum_of_bytes(data, arrays)
        else:
            fine = decode_chunk(self._head, pieces, data)
            arrays, crc = list(fine), checksum_of_integers(data, fine)
        if crc != chunk.crc:
            names = self.members[pieces[0].tensor].name
            raise FormatError(f"The checksum of a chunk of {names!r} is {crc:08x}, {chunk.crc:08x} is expected.", "The file is damaged: get it again.")
        return arrays

    def rebuild(self, member: int, fine: Mapping[str, Fine], others: Sequence["Opened"] = ()) -> NDArray[np.float32]:
        """Turn the integers of a member into float32, with the reals of all its streams."""
        assert self.codec is not None
        parts = self.parts[member]
        for other in others:
            parts = replace(parts, reals={**other.parts[member].reals, **parts.reals})
        return self.codec.decode(parts, fine, self.members[member].shape)
