"""Tensors to sections: integers by the codec, bytes by the coder, and every chunk decoded again before it counts.

Section = prelude, chunks. Prelude = number of chunks, length and checksum of each, real numbers of the members, head
of the coder.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.archive.checksums import checksum_of_bytes, checksum_of_integers
from netweight.archive.grouping import Job
from netweight.checkpoint import Checkpoint
from netweight.codecs.base import Codec, Parts
from netweight.codecs.registry import EXACT, EXACT_VERSION, codecs
from netweight.dtypes import is_float, to_float32
from netweight.entropy.decode import Head, decode_chunk, decode_head
from netweight.entropy.planes import decode_planes_chunk, decode_planes_head, encode_planes
from netweight.entropy.small import varint
from netweight.entropy.stream import IntStream, Piece, encode_section
from netweight.errors import UsageError
from netweight.freed import give_back_freed
from netweight.importance.given import spent
from netweight.importance.stat import Stat, largest_of


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


def encode_job(checkpoint: Checkpoint, stats: Mapping[str, Stat], job: Job, device: str | None = None) -> list[Block]:
    """Code the tensors of a section, one block for each stream of the codec.

    Args:
        checkpoint: where they are.
        stats: importance by tensor; asked for one tensor at a time, since a matrix' can be larger than the matrix.
        job: which, and how.
        device: of torch, for codecs that have a form for it.

    Raises:
        UsageError: no installed codec has the job's id, or it cannot take a tensor.
    """
    if job.codec == EXACT:
        return [_encode_exact(checkpoint, job)]
    codec = codec_of(job)
    parts = [encode_member(checkpoint, stats, job, place, device) for place in range(len(job.names))]
    return blocks_of(job, codec, parts)


def codec_of(job: Job) -> Codec:
    """Give the codec of a section.

    Raises:
        UsageError: none is installed under its id.
    """
    codec = codecs().get(job.codec)
    if codec is None:
        raise UsageError(f"There is no codec {job.codec!r}.", f"Known are: {', '.join([*codecs(), EXACT])}.")
    return codec


def encode_member(checkpoint: Checkpoint, stats: Mapping[str, Stat], job: Job, place: int, device: str | None) -> Parts:
    """Make the integers of a tensor."""
    codec, name = codec_of(job), job.names[place]
    w = _weights(checkpoint, name, codec)
    stat = spent(stats, name)
    try:
        parts = codec.on(device).encode(w, stat if codec.structured else stat.flat(), job.knobs[place])
    except UsageError as error:  # codecs know no names
        raise UsageError(f"{name!r}: {error.fact}", error.remedy) from None
    freed_bytes = w.nbytes + (0 if stat.inputs is None else stat.inputs.nbytes)
    del w, stat
    checkpoint.forget()
    give_back_freed(freed_bytes)
    return parts


def blocks_of(job: Job, codec: Codec, parts: Sequence[Parts]) -> list[Block]:
    """Code the streams of a section."""
    blocks = []
    for place, stream in enumerate(codec.streams):
        members = [j for j, p in enumerate(parts) if stream in p.streams or not codec.progressive]
        if members:
            names = tuple(job.names[j] for j in members)
            blocks.append(_encode_stream(codec, place, names, [parts[j] for j in members]))
    return blocks


def _encode_stream(codec: Codec, place: int, names: tuple[str, ...], parts: Sequence[Parts]) -> Block:
    """Code one stream of the tensors that have it, and decode it again."""
    streams = [p.streams[codec.streams[place]] for p in parts]
    head, chunks = encode_section(streams, parts[0].bits)
    reals = b"" if place else b"".join(_write_reals(codec, p) for p in parts)
    params = tuple(tuple(p.params[key] for key in codec.params) for p in parts)
    read = decode_head(head, [s.layout for s in streams])
    sums = [_proof(read, streams, pieces, chunk) for pieces, chunk in zip(read.chunks(), chunks, strict=True)]
    prelude = _prelude(chunks, sums, reals + head)
    return Block(codec.id, codec.version, codec.streams[place], names, params, prelude, tuple(chunks))


def _weights(checkpoint: Checkpoint, name: str, codec: Codec) -> NDArray[np.float32]:
    """Read a tensor as float32; an edited plan may ask for what no lossy codec can do."""
    info = checkpoint.infos[name]
    if not is_float(info.dtype):
        fact = f"The codec {codec.id!r} cannot take {name!r}, which is of dtype {info.dtype}."
        raise UsageError(fact, "Plan it with 'exact'.")
    w = to_float32(checkpoint.read(name), info.dtype).reshape(info.shape)
    with np.errstate(invalid="ignore"):
        whole = bool(np.isfinite(largest_of(w)))
    if not (w.size and whole):
        what = "holds NaN or infinity" if w.size else "is empty"
        raise UsageError(f"The codec {codec.id!r} cannot take {name!r}, which {what}.", "Plan it with 'exact'.")
    return w


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
    return Block(
        EXACT, EXACT_VERSION, "planes", job.names, ((),) * len(arrays), _prelude(chunks, sums, head), tuple(chunks)
    )


def _proof(head: Head, streams: Sequence[IntStream], pieces: Sequence[Piece], chunk: bytes) -> int:
    """Decode a chunk, compare it with what went in, and give its checksum."""
    fine = decode_chunk(head, pieces, chunk)
    for p, found in zip(pieces, fine, strict=True):
        k = streams[p.tensor].k[p.start : p.start + p.size]
        back = found.full()
        if head.bits:
            back = np.sign(back) * (np.abs(back) + 1 >> 1)
        if not np.array_equal(back, k):
            raise RuntimeError("the coder changed an integer")
    return checksum_of_integers(chunk, fine)


def _prelude(chunks: Sequence[bytes], sums: Sequence[int], rest: bytes) -> bytes:
    table = b"".join(varint(len(chunk)) + struct.pack("<I", crc) for chunk, crc in zip(chunks, sums, strict=True))
    return varint(len(chunks)) + table + rest


def _write_reals(codec: Codec, parts: Parts) -> bytes:
    out = b""
    for name in codec.reals:
        values = np.ascontiguousarray(parts.reals[name], "<f4")
        out += varint(values.size) + values.tobytes()
    return out
