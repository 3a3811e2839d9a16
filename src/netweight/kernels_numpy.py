"""The NumPy twins of csrc/kernels.c, for machines where it was not built: the same integers, bit for bit.

What does not wait for the symbol before is done for a whole segment at once; what does is done for all lanes at once,
in few calls on small arrays. Letters as in kernels.py: n symbols, T tables, P prediction levels, Z codebooks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from netweight.kernels_numpy_contexts import (
    class_tables,
    contexts,
    flips,
    levels,
    looks_at_neighbours,
    predict,
    prediction,
)
from netweight.kernels_numpy_trellis import round_rd, trellis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netweight.kernels import Bytes, Int16, Model, Segment

    Int64 = NDArray[np.int64]
    Uint16 = NDArray[np.uint16]

__all__ = ["classes", "contexts", "decode", "encode", "histogram", "predict", "round_rd", "trellis"]

LANES = 32
PRECISION_BITS = 12
SLOTS = 1 << PRECISION_BITS
LOW = 1 << 16  # a lane's state is never below it, and starts at it
CENTRE = 128
TOO_SHORT, WRONG_END = -1, -2


# ---- decoder


class _Stream:
    """Lane states and the 16-bit words that refill them."""

    def __init__(self, chunk: bytes | memoryview, lanes: int) -> None:
        data = np.frombuffer(chunk, np.uint8)
        self.lanes = np.zeros((2, lanes), np.int64)  # states of the coder, and of the trellises << 12
        self.lanes[0] = data[: 4 * lanes].view("<u4")
        self.count = (data.size - 4 * lanes) // 2
        self.words = np.zeros(self.count + LANES, np.int64)  # a group may read past the end before that shows
        self.words[: self.count] = data[4 * lanes : 4 * lanes + 2 * self.count].view("<u2")
        self.at = 0

    @property
    def ran_out(self) -> bool:
        return self.at > self.count

    def run(self, base: Int64, rows: Int64) -> Int64:
        """Decode groups of the first m lanes.

        Args:
            base: int64 [steps, m], first slot of each symbol's table without codebook.
            rows: int64 [T 4096, 3]: frequency, slot - cumulative, what the next trellis state is flipped by.

        Returns:
            int64 [steps, m]: the row each symbol was found in.
        """
        both = self.lanes[:, : base.shape[1]]
        x, state = both
        words, at, end = self.words, self.at, self.count
        masks, shifts = np.empty_like(both), np.empty_like(both)
        masks[0], masks[1], shifts[0], shifts[1] = SLOTS - 1, SLOTS, PRECISION_BITS, 1
        masked, low, slots = np.empty_like(both), np.empty(x.size, np.bool_), np.empty_like(base)
        slot_in_table, codebook = masked
        entry = np.empty((x.size, 3), np.int64)
        frequency, bias, flip = entry.T
        floor, word_bits = np.array(LOW), np.array(16)  # a Python integer costs a conversion in each call
        for first, slot in zip(base, slots, strict=True):
            np.bitwise_and(both, masks, out=masked)
            np.add(slot_in_table, codebook, out=slot)
            np.add(slot, first, out=slot)
            rows.take(slot, axis=0, out=entry, mode="clip")
            np.right_shift(both, shifts, out=both)
            np.multiply(x, frequency, out=x)
            np.add(x, bias, out=x)
            np.bitwise_xor(state, flip, out=state)
            np.less(x, floor, out=low)
            few = low.nonzero()[0]
            after = at + few.size
            grown = x[few]
            np.left_shift(grown, word_bits, out=grown)
            np.bitwise_or(grown, words[at:after], out=grown)
            x[few] = grown
            at = after
            if at > end:
                break
        self.at = at
        return slots


def decode(
    chunk: bytes | memoryview, lanes: int, entries: NDArray[np.uint32], model: Model, segments: Sequence[Segment]
) -> tuple[Int16, int]:
    """Decode the fine indices of a chunk's segments.

    Returns:
        int16 [sum of sizes], and the bytes used, or -1 for a chunk too short, -2 for lanes that end in a wrong state.
    """
    out = np.zeros(sum(s.size for s in segments), np.int16)
    if not 1 <= lanes <= LANES or len(chunk) < 4 * lanes:
        return out, TOO_SHORT
    stream = _Stream(chunk, lanes)
    rows = _rows(entries, model)
    symbols = (entries.reshape(-1) >> 24 ^ CENTRE).astype(np.int16)
    at = 0
    for segment in segments:
        _decode_segment(stream, rows, symbols, model, segment, out[at : at + segment.size])
        if stream.ran_out:
            return out, TOO_SHORT
        at += segment.size
    return out, 4 * lanes + 2 * stream.at if bool((stream.lanes[0] == LOW).all()) else WRONG_END


def _rows(entries: NDArray[np.uint32], model: Model) -> Int64:
    """Decoder's table as `_Stream.run` takes it."""
    flat = entries.reshape(-1)
    rows = np.zeros((flat.size, 3), np.int64)
    np.bitwise_and(flat >> PRECISION_BITS, SLOTS - 1, out=rows[:, 0])
    rows[:, 0] += 1
    np.bitwise_and(flat, SLOTS - 1, out=rows[:, 1])
    if model.codebooks == 2:
        odd = (flat >> 24 & 1).reshape(-1, 2, SLOTS)
        flips = np.array([[0, model.tap1], [model.tap0, model.tap0 ^ model.tap1]], np.int64) << PRECISION_BITS
        for book in range(2):
            flips[book].take(odd[:, book], out=rows[:, 2].reshape(-1, 2, SLOTS)[:, book], mode="clip")
    return rows


def _decode_segment(stream: _Stream, rows: Int64, symbols: Int16, model: Model, segment: Segment, out: Int16) -> None:
    neighbours = looks_at_neighbours(model, segment)
    base = class_tables(model, segment)
    if base.size and int(base.max()) + model.levels * model.codebooks > rows.shape[0] // SLOTS:
        raise ValueError(f"a class has no table among {rows.shape[0] // SLOTS}")
    stream.lanes[1] = 0
    lanes = stream.lanes.shape[1]
    whole = segment.size // lanes * lanes
    # Neighbours are at least a kernel plane back: a block no longer than one is looked at as a whole.
    block = segment.plane // lanes * lanes if neighbours else max(whole, 1)
    cuts = [*range(0, whole, block), whole] + ([segment.size] if whole < segment.size else [])
    for begin, end in pairwise(cuts):
        table, g = base[begin:end], None
        if neighbours:
            g = prediction(out, segment, begin, end)
            table = table + levels(g, model, segment, begin) * model.codebooks
        slots = stream.run((table << PRECISION_BITS).reshape(-1, min(lanes, end - begin)), rows)
        if stream.ran_out:
            return
        out[begin:end] = _fine(slots.reshape(-1), symbols, model, g)


def _fine(slots: Int64, symbols: Int16, model: Model, g: NDArray[np.int32] | None) -> Int16:
    """Fine indices of symbols found in these slots."""
    v: Int16 = symbols[slots] - np.int16(CENTRE)
    if g is not None:
        v = np.where(flips(v, g), -v, v)
    if model.codebooks == 2:
        v = 2 * v - (slots >> PRECISION_BITS & 1).astype(np.int16) * np.sign(v)
    return v


# ---- encoder


def histogram(symbol: Bytes, index: Uint16, count: int) -> Int64:
    """Count how often each symbol is coded by each of `count` tables: int64 [T, 256]."""
    flat = np.bincount(index.astype(np.int64) * 256 + symbol, minlength=256 * count)
    return flat.astype(np.int64).reshape(count, 256)


def encode(symbol: Bytes, index: Uint16, lengths: Sequence[int], lanes: int, freq: Uint16, cum: Uint16) -> bytes:
    """Code the symbols of segments of these lengths: lane states, then 16-bit words."""
    at = index.astype(np.int64) * 256 + symbol
    f, c = _grid(freq.reshape(-1)[at], lengths, lanes, SLOTS), _grid(cum.reshape(-1)[at], lengths, lanes, 0)
    if not f.all():
        raise ValueError("a symbol has no frequency in its table")
    top = (f << 20) - np.uint32(1)  # 2^32 - 1 for frequency 4096: never reached
    gap = SLOTS - f
    x = np.full(lanes, LOW, np.uint32)
    states, spill = np.empty_like(f), np.empty(f.shape, np.bool_)
    quotient, word_bits = np.empty_like(x), np.array(16, np.uint32)
    for row in range(len(f) - 1, -1, -1):
        before, full = states[row], spill[row]
        before[:] = x
        np.greater(x, top[row], out=full)
        np.right_shift(x, word_bits, out=x, where=full)
        np.floor_divide(x, f[row], out=quotient)
        np.multiply(quotient, gap[row], out=quotient)
        np.add(x, quotient, out=x)
        np.add(x, c[row], out=x)
    return x.astype("<u4").tobytes() + states[spill].astype("<u2").tobytes()


def _grid(values: Uint16, lengths: Sequence[int], lanes: int, fill: int) -> NDArray[np.uint32]:
    """Segments one under another in rows of `lanes`, each from lane 0 on; `fill` where a last row is short."""
    parts, at = [], 0
    for length in lengths:
        parts += [values[at : at + length], np.full(-length % lanes, fill, np.uint16)]
        at += length
    return np.concatenate([np.zeros(0, np.uint16), *parts]).astype(np.uint32).reshape(-1, lanes)


# ---- classes


def classes(row: Int16, column: Int16, start: int, size: int, top: int) -> Bytes:
    """Class of scan positions start .. start + size: clamp(row level + column level, 0, top), uint8 [size]."""
    i = np.arange(start, start + size)
    level = row.astype(np.int32)[i // column.size % row.size] + column[i % column.size]
    out: Bytes = np.clip(level, 0, top).astype(np.uint8)
    return out


def entries(freq: Uint16) -> NDArray[np.uint32]:
    """Decoder's table of each frequency table."""
    slots = np.arange(1 << PRECISION_BITS, dtype=np.uint32)
    out = np.zeros((len(freq), slots.size), np.uint32)
    for row, to in zip(freq, out, strict=True):
        if row.any():
            symbol = np.repeat(np.arange(256, dtype=np.uint32), row)
            start = (np.cumsum(row, dtype=np.uint32) - row)[symbol]
            less = row[symbol].astype(np.uint32) - 1
            to[:] = (symbol ^ CENTRE) << 24 | less << PRECISION_BITS | (slots - start)
    return out


def lines(sizes: NDArray[np.int32], residual: NDArray[np.int32], start: int, top: int) -> NDArray[np.int32] | None:
    """Levels from residuals, or None where one leaves 0 .. top."""
    out: list[int] = []
    rest = iter(residual.tolist())
    first = start
    for size in sizes.tolist():
        line: list[int] = []
        for _ in range(size):
            guess = first if not line else line[-1] if len(line) == 1 else 2 * line[-1] - line[-2]
            level = min(max(guess, 0), top) + next(rest)
            if not 0 <= level <= top:
                return None
            line.append(level)
        first = line[0] if line else first
        out += line
    return np.array(out, np.int32)


def sums(fine: Int16) -> tuple[int, int]:
    """Give sum r_i and sum i r_i mod 2^32, i from 1."""
    r = fine.astype(np.uint32)
    weighted = (r * np.arange(1, r.size + 1, dtype=np.uint32)).sum(dtype=np.uint32)
    return int(r.sum(dtype=np.uint32)), int(weighted)


def escapes(fine: Int16, codebooks: int) -> Int64:
    """Where the symbol of -128 or 127 was decoded, which a trellis makes 2v - c sign(v): int64."""
    low, high = (-CENTRE, CENTRE - 1) if codebooks == 1 else (1 - 2 * CENTRE, 2 * CENTRE - 3)
    return np.flatnonzero((fine <= low) | (fine >= high))
