"""Words: elements of any type as unsigned integers of 8 to 64 bits, by filter, palette and byte planes.

Filter: an array is taken as it is, as zigzag integers, or as zigzag differences to the element before (arange costs
nothing, a causal mask next to nothing). Palette: up to 256 distinct words become indices into a sorted list, perhaps
differences of indices. Otherwise byte planes, the most significant first; the byte above, up to 15, is the class of a
byte.

All zigzag and differences are modulo 2^w.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.fields import Field, decode_field, encode_field, fit_field, read_field
from netweight.entropy.small import Reader, damaged, decode_small, encode_small, varint
from netweight.entropy.stream import Piece
from netweight.kernels import Bytes, histogram
from netweight.kernels_counts import entropy

ASIS, ZIGZAG, DELTA = range(3)
PALETTE, INDEX_DELTA = 1, 2
LARGEST_PALETTE = 256
CLASSES = 16
SAMPLE_RUN = 1 << 12
SAMPLE_RUNS = 8
# A filter must save this share of the bits to be chosen: words as they are decode faster.
WORTH = 0.99

Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True)
class WordsHead:
    """What the chunks of a section of words need.

    Attributes:
        bits: w, of a word.
        filters: of each array.
        palette: sorted distinct words, or None.
        index_delta: the indices are differences.
        fields: of the indices, or of the byte planes, most significant first.
    """

    bits: int
    filters: tuple[int, ...]
    palette: Words | None
    index_delta: bool
    fields: tuple[Field, ...]


def zigzag(x: Words) -> Words:
    """0, -1, 1, -2 .. become 0, 1, 2, 3 .."""
    one = x.dtype.type(1)
    negative = x >> x.dtype.type(8 * x.itemsize - 1)
    return (x << one) ^ (~negative + one)


def unzigzag(z: Words) -> Words:
    """Undo `zigzag`."""
    one = z.dtype.type(1)
    return (z >> one) ^ (~(z & one) + one)


def _base(x: Words) -> int:
    """The word before the first, such that the first difference equals the second, as a zigzag integer."""
    if not x.size:
        return 0
    before = x[:1] + x[:1] - x[min(1, x.size - 1) :][:1]
    return int(zigzag(before)[0])


def _difference(x: Words, base: int) -> Words:
    before = unzigzag(np.array([base], x.dtype))
    return zigzag(np.diff(x, prepend=before))


def _filtered(x: Words, how: int) -> Words:
    return x if how == ASIS else zigzag(x) if how == ZIGZAG else _difference(x, _base(x))


def choose_filter(x: Words) -> int:
    """Compare the empirical entropies of runs spread over an array."""
    if x.size < 2:
        return ASIS
    starts = np.linspace(0, max(x.size - SAMPLE_RUN, 0), SAMPLE_RUNS).astype(np.int64) if x.size > SAMPLE_RUN else [0]
    runs = [x[at : at + SAMPLE_RUN] for at in starts]
    bits = [_sample_bits(np.concatenate([_filtered(run, how) for run in runs])) for how in (ASIS, ZIGZAG, DELTA)]
    best = int(np.argmin(bits))
    return best if bits[best] < WORTH * bits[ASIS] - 16 else ASIS


def _sample_bits(x: Words) -> float:
    distinct, counts = np.unique(x, return_counts=True)
    if distinct.size <= LARGEST_PALETTE:
        return entropy(counts[None]) + distinct.size * (8 + x.itemsize)
    planes = x.view(np.uint8).reshape(-1, x.itemsize)
    return sum(entropy(np.bincount(planes[:, j], minlength=256)[None]) for j in range(x.itemsize))


def encode_words(
    arrays: Sequence[Words], pieces: Sequence[Sequence[Piece]], whole: bool
) -> tuple[bytes, list[bytes]] | None:
    """Code arrays of words of one width.

    Args:
        arrays: flat.
        pieces: of each chunk.
        whole: integers, which may be filtered and cut into byte planes; floats are only tried with a palette.

    Returns:
        Head and chunks, or None where floats have too many distinct words.
    """
    bits = 8 * arrays[0].itemsize
    filters = [choose_filter(x) if whole else ASIS for x in arrays]
    palette = _palette(arrays, pieces, filters) if bits > 8 else None
    if palette is None and not whole and bits > 8:
        return None
    head = encode_small(np.array(filters, np.int64))
    if palette is None:
        head += varint(0)
        fields, description = _fit_planes(arrays, pieces, filters)
        return head + description, [
            _encode_chunk(arrays, chunk, WordsHead(bits, tuple(filters), None, False, fields)) for chunk in pieces
        ]
    fitted = []
    for delta in (False, True):
        counts = np.zeros((1, 256), np.int64)
        for chunk in pieces:
            index = _indices(_chunk_words(arrays, chunk, filters)[0], palette, delta)
            counts[0] += np.bincount(index, minlength=256)
        fitted.append(fit_field(counts, 8))
    delta = fitted[1][2] < fitted[0][2]
    description, field, _ = fitted[delta]
    head += varint(PALETTE | INDEX_DELTA * delta) + varint(palette.size - 1) + _write_palette(palette) + description
    known = WordsHead(bits, tuple(filters), palette, delta, (field,))
    return head, [_encode_chunk(arrays, chunk, known) for chunk in pieces]


def _palette(arrays: Sequence[Words], pieces: Sequence[Sequence[Piece]], filters: Sequence[int]) -> Words | None:
    """Sorted distinct words after the filters if there are at most 256; a sample decides most cases."""
    if not any(filters) and _distinct([x[:: max(1, x.size // SAMPLE_RUN)] for x in arrays]) is None:
        return None
    return _distinct(_chunk_words(arrays, chunk, filters)[0] for chunk in pieces)


def _distinct(parts: Iterable[Words]) -> Words | None:
    seen: Words | None = None
    for part in parts:
        seen = np.unique(part) if seen is None else np.union1d(seen, part)
        if seen.size > LARGEST_PALETTE:
            return None
    return seen


def _chunk_words(arrays: Sequence[Words], chunk: Sequence[Piece], filters: Sequence[int]) -> tuple[Words, list[int]]:
    parts, bases = [], []
    for p in chunk:
        x = arrays[p.tensor][p.start : p.start + p.size]
        if filters[p.tensor] == DELTA:
            bases.append(_base(x))
        parts.append(_filtered(x, filters[p.tensor]))
    return np.concatenate(parts), bases


def _indices(x: Words, palette: Words, delta: bool) -> Bytes:
    index = np.searchsorted(palette, x).astype(np.uint8)
    return np.diff(index, prepend=np.uint8(0)) if delta else index


def _planes(x: Words) -> list[Bytes]:
    return [(x >> x.dtype.type(8 * j)).astype(np.uint8) for j in range(x.itemsize - 1, -1, -1)]


def _fit_planes(
    arrays: Sequence[Words], pieces: Sequence[Sequence[Piece]], filters: Sequence[int]
) -> tuple[tuple[Field, ...], bytes]:
    width = arrays[0].itemsize
    counts = np.zeros((width, CLASSES, 256), np.int64)
    for chunk in pieces:
        planes = _planes(_chunk_words(arrays, chunk, filters)[0])
        for j, plane in enumerate(planes):
            counts[j] += histogram(plane, _class_of(planes, j).astype(np.uint16), CLASSES)
    fitted = [fit_field(counts[j] if j else counts[j, :1], 8) for j in range(width)]
    return tuple(field for _, field, _ in fitted), b"".join(description for description, _, _ in fitted)


def _class_of(planes: Sequence[Bytes], j: int) -> Bytes:
    return np.minimum(planes[j - 1], CLASSES - 1).astype(np.uint8) if j else np.zeros(planes[0].size, np.uint8)


def _encode_chunk(arrays: Sequence[Words], chunk: Sequence[Piece], head: WordsHead) -> bytes:
    x, bases = _chunk_words(arrays, chunk, head.filters)
    out = b"".join(_integer(base) for base in bases)
    if head.palette is not None:
        return out + encode_field(head.fields[0], _indices(x, head.palette, head.index_delta))
    planes = _planes(x)
    return out + b"".join(encode_field(field, planes[j], _class_of(planes, j)) for j, field in enumerate(head.fields))


def _integer(value: int) -> bytes:
    """Length in bytes, then the bytes, least significant first."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "little")


def _read_integer(reader: Reader, bits: int) -> int:
    size = reader.take(1)[0]
    if size > bits // 8:
        raise damaged(f"an integer of {size} bytes among words of {bits} bits")
    return int.from_bytes(reader.take(size), "little")


def _write_palette(palette: Words) -> bytes:
    words = palette.tolist()
    return b"".join(_integer(b - a) for a, b in zip([0, *words], words, strict=False))


def _read_palette(reader: Reader, bits: int, size: int) -> Words:
    words, at = [], 0
    for _ in range(size):
        at += _read_integer(reader, bits)
        words.append(at)
    if at >> bits or any(a >= b for a, b in pairwise(words)):
        raise damaged("a list of distinct words that does not rise")
    return np.array(words, np.dtype(f"u{bits // 8}"))


def decode_words_head(reader: Reader, bits: int, arrays: int) -> WordsHead:
    """Read the head of a section of words.

    Raises:
        FormatError: the head contradicts itself.
    """
    filters = decode_small(reader, arrays)
    if filters.size and (filters.min() < 0 or filters.max() > DELTA):
        raise damaged(f"a filter of {filters.min()} or {filters.max()}")
    flags = reader.varint()
    if flags not in (0, PALETTE, PALETTE | INDEX_DELTA):
        raise damaged(f"flags {flags} of a section of words")
    chosen = tuple(filters.tolist())
    if not flags:
        fields = tuple(read_field(reader, 8, CLASSES if j else 1) for j in range(bits // 8))
        return WordsHead(bits, chosen, None, False, fields)
    size = reader.varint() + 1
    if size > LARGEST_PALETTE:
        raise damaged(f"{size} distinct words")
    palette = _read_palette(reader, bits, size)
    return WordsHead(bits, chosen, palette, flags > PALETTE, (read_field(reader, 8, 1),))


def decode_words_chunk(head: WordsHead, pieces: Sequence[Piece], reader: Reader) -> list[Words]:
    """Decode the words of each piece.

    Raises:
        FormatError: the chunk contradicts its head.
    """
    dtype = np.dtype(f"u{head.bits // 8}")
    bases = [_read_integer(reader, head.bits) if head.filters[p.tensor] == DELTA else 0 for p in pieces]
    total = sum(p.size for p in pieces)
    x: Words
    if head.palette is not None:
        index = decode_field(head.fields[0], reader, total)
        if head.index_delta:
            index = np.cumsum(index, dtype=np.uint8)
        if index.size and int(index.max()) >= head.palette.size:
            raise damaged(f"index {index.max()} into {head.palette.size} distinct words")
        x = head.palette[index]
    else:
        planes: list[Bytes] = []
        x = np.zeros(total, dtype)
        for j, field in enumerate(head.fields):
            planes.append(decode_field(field, reader, total, _class_of(planes, j) if j else None))
            x |= planes[j].astype(dtype) << dtype.type(head.bits - 8 - 8 * j)
    out: list[Words] = []
    at = 0
    for p, base in zip(pieces, bases, strict=True):
        part = x[at : at + p.size]
        at += p.size
        how = head.filters[p.tensor]
        if how != ASIS:
            part = unzigzag(part)
        if how == DELTA:
            before = unzigzag(np.array([base], dtype))
            part = np.cumsum(np.concatenate([before, part]), dtype=dtype)[1:]
        out.append(part)
    return out
