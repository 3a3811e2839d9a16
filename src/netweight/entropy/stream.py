"""Sections of weights, written: integers by static rANS with tables chosen by class, neighbours and codebook.

Section = head, then chunks. The head holds the levels of each tensor and the frequency tables; a chunk holds whole
tensors, or a run of a long one: 32 lane states, 16-bit words, escaped values, low bits. Chunks are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.layout import CLASSES, THRESHOLDS, Layout, Levels, segment
from netweight.entropy.small import encode_small, signed, varint
from netweight.entropy.tables import CENTRE, Range, Shape, describe, ranges
from netweight.entropy.trellis import TAPS
from netweight.kernels import LANES, Int16, Int32, Model, Tables

LEVELS = 5
SHORTEST_RUN, LONGEST_RUN = 17, 20  # log2 of the symbols of a piece
_Scalar = TypeVar("_Scalar", bound=np.generic)
LARGEST_ESCAPE = 1 << 22
FINE_FROM = 1 << 20  # symbols of a section from which on tables are written in eighths of an octave


@dataclass(frozen=True, slots=True)
class IntStream:
    """The integers of one tensor, ready to be coded.

    Attributes:
        k: int16 or int32 [n], in scan order.
        layout: the scan.
        levels: scale by place.
        shift: low bits of each integer that are written as they are.
        run: log2 of the most symbols a chunk takes of this tensor, 17 .. 20.
    """

    k: Int16 | Int32
    layout: Layout
    levels: Levels
    shift: int = 0
    run: int = SHORTEST_RUN


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one tensor in a chunk."""

    tensor: int
    start: int
    size: int


def plan_chunks(sizes: Sequence[int], capacity: int, runs: Sequence[int] | None = None) -> list[list[Piece]]:
    """Share tensors out over chunks.

    A tensor longer than 2^run is cut into runs of 2^run, each a chunk of its own; others fill chunks up to 2^capacity
    symbols.

    Args:
        sizes: symbols of each tensor; one without symbols is in no chunk.
        capacity: log2 of the symbols of a chunk with several tensors.
        runs: log2 of the longest piece of each tensor; the capacity if None.
    """
    chunks: list[list[Piece]] = []
    room = 0
    for tensor, size in enumerate(sizes):
        longest = 1 << (capacity if runs is None else runs[tensor])
        if size > longest:
            chunks += [[Piece(tensor, at, min(longest, size - at))] for at in range(0, size, longest)]
            room = 0
        elif size:
            if size > room:
                chunks.append([])
                room = 1 << capacity
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
    capacity = max((s.run for s in streams), default=SHORTEST_RUN)
    model = model_of(bits, any(s.layout.plane for s in streams))
    plan = plan_chunks([s.layout.size for s in streams], capacity, [s.run for s in streams])
    coder = _Coder(streams, [piece for chunk in plan for piece in chunk], model)
    kept, escapes, counts = coder.settle()
    shape = Shape(symmetric(model), coder.size >= FINE_FROM, escapes)
    description, tables = describe(counts, shape, kept)
    chunks = []
    at = 0
    for chunk in plan:
        chunks.append(coder.encode(range(at, at + len(chunk)), tables))
        at += len(chunk)
    return _head(streams, bits, capacity, model, shape) + description, chunks


class _Coder:
    """The pieces of a section while their tables are fitted; contexts are made anew when needed, to save memory."""

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

        An escaped value looks different to its neighbours' contexts, which may send another one out of its table's
        range: what is escaped only grows, so this ends, mostly after one round. Without neighbours an escape changes
        nothing but its own symbol.
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


def _head(streams: Sequence[IntStream], bits: int, capacity: int, model: Model, shape: Shape) -> bytes:
    """Trellis, capacity, flags; base, shift and which levels of each tensor; then all levels as one short stream."""
    out = varint(bits) + varint(capacity) + varint((model.levels > 1) | shape.fine << 1 | shape.escapes << 2)
    deviations: list[NDArray[np.int16]] = []
    for s in streams:
        has = (s.levels.row is not None) | (s.levels.column is not None) << 1
        out += signed(s.levels.base) + varint(s.shift << 2 | has)
        if s.layout.order == "kio":
            out += varint((s.levels.row_step is not None) | (s.levels.column_step is not None) << 1)
        out += varint(s.run) if s.layout.size > 1 << SHORTEST_RUN else b""
        deviations += s.levels.given()
    return out + encode_small(np.concatenate([np.zeros(0, np.int64), *deviations]).astype(np.int64))
