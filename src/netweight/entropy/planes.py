"""A section of exact tensors: the bits of any dtype as they are, in the shortest of four ways.

Section = head, then chunks of at most 2^17 words, each decodable by itself. The head begins with the way: raw bytes,
zlib, words (filter, palette or byte planes) or floats. What is small is coded in every way, what is large in those that
fit its type.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight import dtypes
from netweight.entropy.planes_fit import decode_floats_head, encode_floats
from netweight.entropy.planes_float import Floats, decode_chunk
from netweight.entropy.planes_levels import FORMATS, Format
from netweight.entropy.planes_words import WordsHead, decode_words_chunk, decode_words_head, encode_words
from netweight.entropy.small import Reader, damaged
from netweight.entropy.stream import Piece, plan_chunks
from netweight.kernels import LANES

RAW, ZLIB, WORDS, FLOATS = range(4)
RUN = 17
SAMPLE = 1 << 16  # elements from which a prediction is made
LARGEST_ZLIB = 1 << 16  # bytes of a section up to which zlib is tried
ZLIB_LEVEL = 9
WORTH = 0.97  # share of the raw size above which floats are also tried as plain words

Storage = NDArray[Any]
Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True)
class PlanesHead:
    """What every chunk of a section needs.

    Attributes:
        dtype: code of the elements.
        sizes: storage elements of each array.
        way: RAW, ZLIB, WORDS or FLOATS.
        inner: head of words or floats.
    """

    dtype: str
    sizes: tuple[int, ...]
    way: int
    inner: WordsHead | Floats | None

    def chunks(self) -> list[list[Piece]]:
        """Which pieces each chunk holds."""
        return plan_chunks(self.sizes, RUN)


def storage_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Storage elements of a tensor: bytes for types below a byte."""
    return dtypes.nbytes(dtype, shape) // dtypes.storage_dtype(dtype).itemsize


def _word_type(dtype: str) -> tuple[np.dtype[np.unsignedinteger], int]:
    """Unsigned type of the words, and words of an element."""
    size = dtypes.storage_dtype(dtype).itemsize
    return (np.dtype("<u4"), 2) if dtype == "C64" else (np.dtype(f"<u{size}"), 1)


def _in_words(pieces: Sequence[Piece], each: int) -> list[Piece]:
    return list(pieces) if each == 1 else [Piece(p.tensor, each * p.start, each * p.size) for p in pieces]


def encode_planes(arrays: Sequence[Storage], dtype: str) -> tuple[bytes, list[bytes]]:
    """Code arrays of one dtype so that every bit comes back.

    Args:
        arrays: storage arrays (`dtypes.storage_dtype`), any shape.
        dtype: their code.

    Returns:
        The head and the chunks.

    >>> head, chunks = encode_planes([np.arange(512)], "I64")
    >>> len(head) + len(chunks[0]) < 16
    True
    """
    kind, each = _word_type(dtype)
    words = [np.ascontiguousarray(a).reshape(-1).view(kind) for a in arrays]
    plan = plan_chunks([x.size // each for x in words], RUN)
    pieces = [_in_words(chunk, each) for chunk in plan]
    form = FORMATS.get(dtype)
    raw = sum(x.nbytes for x in words)
    found: list[tuple[int, bytes, list[bytes]]] = []
    if form is not None and raw:
        found.append((FLOATS, *encode_floats(words, [a.shape for a in arrays], form, pieces)))
    if raw:
        # Byte planes of floats only pay where exponents are spread too far for their own way.
        planes = not found or _size(found[0]) > WORTH * raw
        coded = encode_words(words, pieces, planes)
        if coded is not None:
            found.append((WORDS, *coded))
    if raw <= LARGEST_ZLIB:
        found.append((ZLIB, b"", [zlib.compress(_joined(words, chunk), ZLIB_LEVEL) for chunk in pieces]))
    best = min(found, key=_size, default=None)
    if best is None or _size(best) >= raw:
        best = RAW, b"", [_joined(words, chunk) for chunk in pieces]
    way, head, chunks = best
    return bytes([way]) + head, chunks


def _size(found: tuple[int, bytes, list[bytes]]) -> int:
    return len(found[1]) + sum(map(len, found[2]))


def _joined(words: Sequence[Words], chunk: Sequence[Piece]) -> bytes:
    return b"".join(words[p.tensor][p.start : p.start + p.size].tobytes() for p in chunk)


def predicted_bits(array: Storage, dtype: str) -> float:
    """Estimate the bits of `encode_planes` for one tensor, from at most 2^16 of its elements.

    Runs of 64 to 4096 elements, spread evenly over the rows, are coded; their bits are scaled up, the tables' are not.

    Args:
        array: storage array.
        dtype: its code.

    Returns:
        Bits within 2 % + 64 bytes.
    """
    sample = array if array.size <= SAMPLE else _sample(array)
    head, chunks = encode_planes([sample], dtype)
    if array.size <= SAMPLE:
        return 8.0 * (len(head) + sum(map(len, chunks)))
    # Lane states are paid once a chunk, all else once an element.
    lanes = sum(min(4 * LANES, len(chunk)) for chunk in chunks)
    scale = array.size / sample.size
    return 8.0 * (len(head) + (sum(map(len, chunks)) - lanes) * scale + lanes * -(-array.size >> RUN))


def _sample(array: Storage) -> Storage:
    """Runs of an array as the rows of a smaller one."""
    rows = array.shape[0] if array.ndim > 1 else 1
    flat = array.reshape(rows, -1)
    width = min(flat.shape[1], max(64, min(4096, SAMPLE // rows)))
    height = SAMPLE // width
    if height <= rows:
        which = np.linspace(0, rows - 1, height).astype(np.int64)
        at = np.linspace(0, flat.shape[1] - width, height).astype(np.int64)
    else:
        starts = np.linspace(0, array.size - width, height).astype(np.int64)
        return np.ascontiguousarray(array.reshape(-1)[starts[:, None] + np.arange(width)])
    return np.ascontiguousarray(flat[which[:, None], at[:, None] + np.arange(width)])


def decode_planes_head(data: bytes | memoryview, dtype: str, shapes: Sequence[tuple[int, ...]]) -> PlanesHead:
    """Read what `encode_planes` put before the chunks.

    Raises:
        FormatError: the head contradicts itself or the shapes.
    """
    reader = Reader(data)
    way = reader.take(1)[0]
    kind, _ = _word_type(dtype)
    form: Format | None = FORMATS.get(dtype)
    inner: WordsHead | Floats | None = None
    if way == WORDS:
        inner = decode_words_head(reader, 8 * kind.itemsize, len(shapes))
    elif way == FLOATS and form is not None:
        inner = decode_floats_head(reader, form, shapes)
    elif way not in (RAW, ZLIB):
        raise damaged(f"way {way} of storing {dtype}")
    if reader.at != len(data):
        raise damaged(f"{len(data) - reader.at} bytes follow the head of an exact section")
    return PlanesHead(dtype, tuple(storage_size(dtype, shape) for shape in shapes), way, inner)


def decode_planes_chunk(head: PlanesHead, pieces: Sequence[Piece], data: bytes | memoryview) -> list[Storage]:
    """Decode a chunk: the flat storage elements of each of its pieces.

    Raises:
        FormatError: the chunk contradicts its head.
    """
    kind, each = _word_type(head.dtype)
    storage = dtypes.storage_dtype(head.dtype)
    parts = _in_words(pieces, each)
    reader = Reader(data)
    if isinstance(head.inner, WordsHead):
        out = decode_words_chunk(head.inner, parts, reader)
    else:
        if head.inner is None:
            flat = np.frombuffer(_plain(head.way, reader, sum(p.size for p in parts) * kind.itemsize), kind)
        else:
            flat = decode_chunk(head.inner, parts, reader)
        out = np.split(flat, np.cumsum([p.size for p in parts])[:-1])
    if reader.at != len(data):
        raise damaged(f"{len(data) - reader.at} bytes follow a chunk's last word")
    if head.dtype == "BOOL" and any(int(x.max(initial=0)) > 1 for x in out):
        raise damaged("a truth value above 1")
    return [x.view(storage) for x in out]


def _plain(way: int, reader: Reader, size: int) -> bytes | memoryview:
    if way == RAW:
        return reader.take(size)
    expander = zlib.decompressobj()
    try:
        out = expander.decompress(reader.take(len(reader.data)), size + 1)
    except zlib.error as error:
        raise damaged(f"zlib says {error}") from None
    if len(out) != size or not expander.eof or expander.unused_data:
        raise damaged(f"a zlib stream that does not give {size} bytes")
    return out
