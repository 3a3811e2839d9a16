"""A section of weights: integers of one or more tensors, coded by static rANS with tables chosen by class, neighbours and codebook.

Section = head, then chunks. The head holds the levels of each tensor and the frequency tables; a chunk holds whole tensors, or a run
of a long one: 32 lane states, 16-bit words, escaped values, low bits. Chunks are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.layout import CLASSES, THRESHOLDS, Layout, Levels, segment
from netweight.entropy.small import Reader, damaged, decode_small, encode_small, signed, varint
from netweight.entropy.tables import CENTRE, Shape, describe, ranges, read
from netweight.entropy.trellis import TAPS
from netweight.kernels import LANES, Int16, Int32, Model, Segment, Tables

LEVELS = 5
FINE_FROM = 1 << 20  # symbols of a section from which on tables are written in eighths of an octave


@dataclass(frozen=True, slots=True)
class IntStream:
    """The integers of one tensor, ready to be coded.

    Attributes:
        k: int32 [n], in scan order.
        layout: the scan.
        levels: scale by place.
        shift: low bits of each integer that are written as they are.
        run: log2 of the most symbols a chunk takes of this tensor.
    """

    k: Int32
    layout: Layout
    levels: Levels
    shift: int = 0
    run: int = 17


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one tensor in a chunk."""

    tensor: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of a section needs.

    Attributes:
        bits: log2 of the trellis' states, 0 without trellis.
        run: log2 of the most symbols of a chunk.
        layouts: scan of each tensor.
        levels: scales of each tensor.
        shifts: low bits of each tensor.
        escapes: the tables hold escape symbols.
        model: contexts.
        tables: frequencies.
    """

    bits: int
    run: int
    layouts: tuple[Layout, ...]
    levels: tuple[Levels, ...]
    shifts: tuple[int, ...]
    escapes: bool
    model: Model
    tables: Tables

    def chunks(self) -> list[list[Piece]]:
        """Which pieces each chunk holds."""
        return plan_chunks([layout.size for layout in self.layouts], self.run)


def plan_chunks(sizes: Sequence[int], run: int) -> list[list[Piece]]:
    """Share tensors out over chunks: whole ones while 2^run symbols are not exceeded, runs of 2^run of a longer one."""
    chunks: list[list[Piece]] = []
    room = 0
    for tensor, size in enumerate(sizes):
        if size > 1 << run:
            chunks += [[Piece(tensor, at, min(1 << run, size - at))] for at in range(0, size, 1 << run)]
            room = 0
        elif size:
            if size > room:
                chunks.append([])
                room = 1 << run
            chunks[-1].append(Piece(tensor, 0, size))
            room -= size
    return chunks


def model_of(bits: int, neighbours: bool) -> Model:
    """Contexts of a section with a trellis of 2^bits states (0: none)."""
    tap0, tap1 = TAPS[bits] if bits else (0, 0)
    return Model(2 if bits else 1, LEVELS if neighbours else 1, tap0, tap1, THRESHOLDS)


def table_count(model: Model) -> int:
    """T."""
    return CLASSES * model.levels * model.codebooks


def symmetric(model: Model) -> NDArray[np.bool_]:
    """Tables without a prediction have no preferred sign: bool [T]."""
    level = np.arange(table_count(model)) // model.codebooks % model.levels
    return np.asarray(level == 0)


def encode_section(streams: Sequence[IntStream], bits: int) -> tuple[bytes, list[bytes]]:
    """Code the integers of tensors that share tables.

    Args:
        streams: the tensors.
        bits: log2 of the trellis' states, 0 without trellis.

    Returns:
        The head and the chunks.
    """
    run = max((s.run for s in streams), default=17)
    model = model_of(bits, any(s.layout.plane for s in streams))
    plan = plan_chunks([s.layout.size for s in streams], run)
    high = [(s.k >> s.shift).astype(np.int32) for s in streams]
    pieces = [piece for chunk in plan for piece in chunk]
    values = [high[p.tensor][p.start : p.start + p.size] for p in pieces]
    segments = [segment(streams[p.tensor].layout, streams[p.tensor].levels, p.start, p.size) for p in pieces]
    coded, shape, kept, counts = _settle(values, segments, model)
    description, tables = describe(counts, Shape(*shape), kept)
    head = _head(streams, bits, run, model, shape[1:]) + description
    chunks = []
    at = 0
    for chunk in plan:
        group = range(at, at + len(chunk))
        at += len(chunk)
        symbol = np.concatenate([coded[j].symbol for j in group])
        index = np.concatenate([coded[j].index for j in group])
        body = kernels.encode(symbol, index, [pieces[j].size for j in group], LANES, tables)
        escaped = b"".join(signed(int(v)) for j in group for v in values[j][coded[j].escaped])
        low = b"".join(_low_bits(streams[pieces[j].tensor], pieces[j]) for j in group)
        chunks.append(body + escaped + low)
    return head, chunks


@dataclass(frozen=True, slots=True)
class _Coded:
    symbol: NDArray[np.uint8]
    index: NDArray[np.uint16]
    escaped: NDArray[np.bool_]


def _clip(values: Int32, escaped: NDArray[np.bool_]) -> Int16:
    """Replace what is escaped by the escape of its parity."""
    return np.where(escaped, np.where(values & 1, CENTRE - 1, -CENTRE), values).astype(np.int16)


def _settle(
    values: list[Int32], segments: list[Segment], model: Model
) -> tuple[list[_Coded], tuple[NDArray[np.bool_], bool, bool], list[tuple[int, int]], NDArray[np.int64]]:
    """Find symbols, contexts and table ranges that agree.

    An escaped value looks different to its neighbours' contexts, which may send another value out of its table's range: what is escaped
    only grows, so this ends, mostly after one or two rounds.
    """
    count = table_count(model)
    same = symmetric(model)
    escaped = [(v < 1 - CENTRE) | (v > CENTRE - 2) for v in values]
    while True:
        coded = []
        counts = np.zeros((count, 256), np.int64)
        for v, out, piece in zip(values, escaped, segments, strict=True):
            symbol, index, _ = kernels.contexts(_clip(v, out), model, piece)
            counts += kernels.histogram(symbol, index, count)
            coded.append(_Coded(symbol, index, out))
        kept, escapes = ranges(counts, same)
        low, high = np.array(kept, np.int16).T
        grown = False
        for j, c in enumerate(coded):
            v = c.symbol.astype(np.int16) - CENTRE
            beyond = (v < low[c.index]) | (v > high[c.index])
            if escapes and (beyond & ~escaped[j]).any():
                escaped[j] = escaped[j] | beyond
                grown = True
        if not grown:
            fine = sum(v.size for v in values) >= FINE_FROM
            return coded, (same, fine, escapes), kept, counts


def _low_bits(stream: IntStream, piece: Piece) -> bytes:
    if not stream.shift:
        return b""
    low = stream.k[piece.start : piece.start + piece.size] & ((1 << stream.shift) - 1)
    spread = low[:, None] >> np.arange(stream.shift) & 1
    return np.packbits(spread.astype(np.uint8), bitorder="little").tobytes()


def _head(streams: Sequence[IntStream], bits: int, run: int, model: Model, flags: tuple[bool, bool]) -> bytes:
    """Trellis, run, flags; base, shift and which levels of each tensor; then all levels as one short stream."""
    fine, escapes = flags
    out = varint(bits) + varint(run) + varint((model.levels > 1) | fine << 1 | escapes << 2)
    deviations: list[NDArray[np.int16]] = []
    for s in streams:
        has = (s.levels.row is not None) | (s.levels.column is not None) << 1
        out += signed(s.levels.base) + varint(s.shift << 2 | has)
        deviations += [level for level in (s.levels.row, s.levels.column) if level is not None]
    return out + encode_small(np.concatenate([np.zeros(0, np.int64), *deviations]).astype(np.int64))


def decode_head(data: bytes | memoryview, layouts: Sequence[Layout]) -> Head:
    """Read what `encode_section` put before the chunks.

    Raises:
        FormatError: the head contradicts itself or the layouts.
    """
    reader = Reader(data)
    bits, run, flags = reader.varint(), reader.varint(), reader.varint()
    if bits not in (0, *TAPS) or not 5 <= run <= 20 or flags > 7:
        raise damaged(f"trellis {bits}, run {run}, flags {flags}")
    places = [(reader.signed(), reader.varint()) for _ in layouts]
    if any(abs(base) > 127 or has >> 2 > 22 for base, has in places):
        raise damaged("a level or a shift out of range")
    total = sum((has & 1) * x.rows + (has >> 1 & 1) * x.columns for (_, has), x in zip(places, layouts, strict=True))
    deviations = decode_small(reader, total).astype(np.int16)
    levels = []
    at = 0
    for (base, has), layout in zip(places, layouts, strict=True):
        rows, columns = (has & 1) * layout.rows, (has >> 1 & 1) * layout.columns
        row = deviations[at : at + rows] if rows else None
        column = deviations[at + rows : at + rows + columns] if columns else None
        levels.append(Levels(base, row, column))
        at += rows + columns
    model = model_of(bits, bool(flags & 1))
    tables = read(reader, Shape(symmetric(model), bool(flags & 2), bool(flags & 4)))
    if reader.at != len(data):
        raise damaged(f"{len(data) - reader.at} bytes follow the tables")
    shifts = tuple(has >> 2 for _, has in places)
    return Head(bits, run, tuple(layouts), tuple(levels), shifts, bool(flags & 4), model, tables)


def decode_chunk(head: Head, pieces: Sequence[Piece], data: bytes | memoryview) -> list[Int16 | Int32]:
    """Decode the fine indices of a chunk's pieces: int16, or int32 where low bits or escapes need it.

    Raises:
        FormatError: the chunk contradicts its head.
    """
    segments = [segment(head.layouts[p.tensor], head.levels[p.tensor], p.start, p.size) for p in pieces]
    fine, used = kernels.decode(data, LANES, head.tables, head.model, segments)
    reader = Reader(data)
    reader.at = used
    out: list[Int16 | Int32] = []
    at = 0
    for p in pieces:
        piece = fine[at : at + p.size]
        out.append(_unescape(piece, reader, head.bits > 0) if head.escapes else piece)
        at += p.size
    for j, p in enumerate(pieces):
        if shift := head.shifts[p.tensor]:
            packed = np.frombuffer(reader.take((p.size * shift + 7) // 8), np.uint8)
            low = np.unpackbits(packed, count=p.size * shift, bitorder="little").reshape(-1, shift)
            out[j] = out[j].astype(np.int32) << shift | low.astype(np.int32) @ (1 << np.arange(shift, dtype=np.int32))
    if reader.at != len(data):
        raise damaged(f"{len(data) - reader.at} bytes follow a chunk's last value")
    return out


def _unescape(fine: Int16, reader: Reader, trellis: bool) -> Int16 | Int32:
    """Put the escaped values where their placeholders are: v = -128 or 127, behind a trellis 2v - c sign(v)."""
    low, high = (-2 * CENTRE + 1, 2 * CENTRE - 3) if trellis else (-CENTRE, CENTRE - 1)
    places = np.flatnonzero((fine <= low) | (fine >= high))
    if not places.size:
        return fine
    out = fine.astype(np.int32)
    for place in places.tolist():
        value = reader.signed()
        codebook = int(fine[place]) & 1 if trellis else 0
        placeholder = int(fine[place]) if not trellis else (-CENTRE if fine[place] < 0 else CENTRE - 1)
        if abs(value) > 1 << 22 or (value ^ placeholder) & 1:
            raise damaged(f"the escaped value {value} does not fit its place")
        out[place] = 2 * value - codebook * ((value > 0) - (value < 0)) if trellis else value
    return out
