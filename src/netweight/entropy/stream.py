"""A section of weights: integers of one or more tensors, coded by static rANS with tables chosen by class, neighbours and codebook.

Section = head, then chunks. The head holds the levels of each tensor and the frequency tables; a chunk holds whole tensors, or a run
of a long one: 32 lane states, 16-bit words, escaped values, low bits. Chunks are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.layout import CLASSES, THRESHOLDS, Layout, Levels, segment
from netweight.entropy.small import Reader, damaged, decode_small, encode_small, signed, varint
from netweight.entropy.tables import CENTRE, Range, Shape, describe, ranges, read
from netweight.entropy.trellis import TAPS
from netweight.kernels import LANES, Int16, Int32, Model, Segment, Tables

LEVELS = 5
_Scalar = TypeVar("_Scalar", bound=np.generic)
FINE_FROM = 1 << 20  # symbols of a section from which on tables are written in eighths of an octave


@dataclass(frozen=True, slots=True)
class IntStream:
    """The integers of one tensor, ready to be coded.

    Attributes:
        k: int16 or int32 [n], in scan order.
        layout: the scan.
        levels: scale by place.
        shift: low bits of each integer that are written as they are.
        run: log2 of the most symbols a chunk takes of this tensor.
    """

    k: Int16 | Int32
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
    coder = _Coder(streams, [piece for chunk in plan for piece in chunk], model)
    kept, escapes, counts = coder.settle()
    shape = Shape(symmetric(model), coder.size >= FINE_FROM, escapes)
    description, tables = describe(counts, shape, kept)
    chunks = []
    at = 0
    for chunk in plan:
        chunks.append(coder.encode(range(at, at + len(chunk)), tables))
        at += len(chunk)
    return _head(streams, bits, run, model, shape) + description, chunks


class _Coder:
    """The pieces of a section while their tables are being fitted; contexts are made anew when needed, to save memory."""

    def __init__(self, streams: Sequence[IntStream], pieces: Sequence[Piece], model: Model) -> None:
        self.streams, self.pieces, self.model = streams, pieces, model
        self.size = sum(p.size for p in pieces)
        self.low = self.high = np.zeros(0, np.int16)  # kept values of each table, once tables have escapes
        self.clipped: dict[int, Int16] = {}  # integers with placeholders where neighbours' contexts have seen escapes

    def values(self, j: int) -> NDArray[np.signedinteger]:
        """The coded integers of a piece, low bits dropped."""
        p = self.pieces[j]
        stream = self.streams[p.tensor]
        k = stream.k[p.start : p.start + p.size]
        return k >> stream.shift if stream.shift else k

    def contexts(self, j: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Symbols and table indices of a piece."""
        p = self.pieces[j]
        stream = self.streams[p.tensor]
        k = self.clipped[j] if j in self.clipped else _to_int16(self.values(j))
        symbol, index, _ = kernels.contexts(k, self.model, segment(stream.layout, stream.levels, p.start, p.size))
        return symbol, index

    def beyond(self, symbol: NDArray[np.uint8], index: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Which symbols their table does not hold."""
        v = symbol.astype(np.int16) - CENTRE
        outside: NDArray[np.bool_] = (v < self.low[index]) | (v > self.high[index])
        return outside

    def settle(self) -> tuple[list[Range], bool, NDArray[np.int64]]:
        """Find table ranges and contexts that agree; give the ranges, whether there are escapes, and the counts.

        An escaped value looks different to its neighbours' contexts, which may send another one out of its table's range: what is
        escaped only grows, so this ends, mostly after one round. Without neighbours an escape changes nothing but its own symbol.
        """
        count = table_count(self.model)
        while True:
            counts = np.zeros((count, 256), np.int64)
            for j in range(len(self.pieces)):
                counts += kernels.histogram(*self.contexts(j), count)
            kept, escapes = ranges(counts, symmetric(self.model))
            if not escapes:
                return kept, False, counts
            self.low, self.high = np.array(kept, np.int16).T
            if self.model.levels == 1 or not self._clip():
                return kept, True, counts

    def _clip(self) -> bool:
        """Put placeholders where values are escaped; whether any is new."""
        grown = False
        for j in range(len(self.pieces)):
            k = self.clipped[j] if j in self.clipped else _to_int16(self.values(j))
            new = self.beyond(*self.contexts(j)) & (k >= 1 - CENTRE) & (k <= CENTRE - 2)
            if new.any():
                self.clipped[j] = np.where(new, np.where(k & 1, CENTRE - 1, -CENTRE), k).astype(np.int16)
                grown = True
        return grown

    def encode(self, group: Sequence[int], tables: Tables) -> bytes:
        """Code a chunk: lane states and words, escaped values, low bits."""
        symbols, indices, escaped = [], [], b""
        for j in group:
            symbol, index = self.contexts(j)
            if self.low.size:
                out = self.beyond(symbol, index)
                values = self.values(j)[out]
                symbol[out] = np.where(values & 1, 255, 0)
                escaped += b"".join(map(signed, values.tolist()))
            symbols.append(symbol)
            indices.append(index)
        sizes = [self.pieces[j].size for j in group]
        body = kernels.encode(_joined(symbols), _joined(indices), sizes, LANES, tables)
        low = b"".join(_low_bits(self.streams[self.pieces[j].tensor], self.pieces[j]) for j in group)
        return body + escaped + low


def _joined(arrays: list[NDArray[_Scalar]]) -> NDArray[_Scalar]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _to_int16(k: NDArray[np.signedinteger]) -> Int16:
    """Integers as int16; those that do not fit as others of their parity, which are escaped like them."""
    if k.dtype == np.int16:
        return k
    return np.where(np.abs(k) > 1 << 14, (k & 1) + (1 << 14), k).astype(np.int16)


def _low_bits(stream: IntStream, piece: Piece) -> bytes:
    if not stream.shift:
        return b""
    low = stream.k[piece.start : piece.start + piece.size] & ((1 << stream.shift) - 1)
    spread = low[:, None] >> np.arange(stream.shift) & 1
    return np.packbits(spread.astype(np.uint8), bitorder="little").tobytes()


def _head(streams: Sequence[IntStream], bits: int, run: int, model: Model, shape: Shape) -> bytes:
    """Trellis, run, flags; base, shift and which levels of each tensor; then all levels as one short stream."""
    out = varint(bits) + varint(run) + varint((model.levels > 1) | shape.fine << 1 | shape.escapes << 2)
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
