"""The NumPy twins of csrc/kernels.c, for machines where it was not built: the same integers, bit for bit.

What does not wait for the symbol before is done for a whole segment at once; what does is done for all lanes at once,
in few calls on small arrays. Letters as in kernels.py: n symbols, T tables, P prediction levels, Z codebooks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from netweight.kernels_numpy_trellis import round_rd, trellis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netweight.kernels import Bytes, Int16, Model, Segment

    Int64 = NDArray[np.int64]
    Uint16 = NDArray[np.uint16]

__all__ = ["classes", "contexts", "decode", "encode", "histogram", "round_rd", "trellis"]

LANES = 32
PRECISION_BITS = 12
SLOTS = 1 << PRECISION_BITS
LOW = 1 << 16  # a lane's state is never below it, and starts at it
CENTRE = 128
TOO_SHORT, WRONG_END = -1, -2


# ---- contexts: what is known of a symbol before it is decoded


def _predict(fine: Int16, segment: Segment, begin: int, end: int) -> NDArray[np.int32]:
    """2 left + 2 up - corner for symbols begin .. end, from the fine indices before `end` - plane."""
    plane, lag = segment.plane, segment.plane * segment.width
    g = np.zeros(end - begin, np.int32)
    at = begin
    while at < end:  # one kernel position a turn
        position = (segment.start + at) // plane
        stop = min(end, (position + 1) * plane - segment.start)
        y, x = divmod(position % segment.positions, segment.width)
        for there, back, factor in ((x > 0, plane, 2), (y > 0, lag, 2), (x > 0 and y > 0, lag + plane, -1)):
            first = max(at, back)
            if there and first < stop:
                g[first - begin : stop - begin] += factor * fine[first - back : stop - back].astype(np.int32)
        at = stop
    return g


def _looks_at_neighbours(model: Model, segment: Segment) -> bool:
    if model.levels == 1 or segment.plane == 0:
        return False
    if segment.plane < LANES:
        raise ValueError(f"neighbours need kernel planes of at least {LANES} symbols, not {segment.plane}")
    return True


def _class_tables(model: Model, segment: Segment) -> Int64:
    """First table of each symbol's class, int64 [n]."""
    if segment.classes is None:
        return np.zeros(segment.size, np.int64)
    return segment.classes.astype(np.int64) * (model.levels * model.codebooks)


def _levels(g: NDArray[np.int32], model: Model, segment: Segment, begin: int) -> Int64:
    """How many thresholds of its class each |g| reaches, for symbols from `begin` on."""
    size, level = np.abs(g), np.zeros(g.size, np.int64)
    for j in range(4):
        if segment.classes is None:
            level += size >= model.thresholds[0, j]
        else:
            level += size >= model.thresholds[segment.classes[begin : begin + g.size], j]
    return level


def _flips(v: Int16, g: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where the sign is coded relative to the prediction's; escapes are not, nor -127, whose flip would be one."""
    flips: NDArray[np.bool_] = (g < 0) & (v >= 2 - CENTRE) & (v < CENTRE - 1)
    return flips


def contexts(k: Int16, model: Model, segment: Segment) -> tuple[Bytes, Uint16, Int16]:
    """Symbols, table indices and fine indices of a segment whose integers are known."""
    escape = (k < 1 - CENTRE) | (k > CENTRE - 2)
    v = np.where(escape, np.where(k & 1, CENTRE - 1, -CENTRE), k).astype(np.int16)
    table = _class_tables(model, segment)
    fine = v
    if model.codebooks == 2:
        book = _codebooks(v, model)
        fine = 2 * v - book * np.sign(v)
        table += book
    symbol = v
    if _looks_at_neighbours(model, segment):
        g = _predict(fine, segment, 0, segment.size)
        table += _levels(g, model, segment, 0) * model.codebooks
        symbol = np.where(_flips(v, g), -v, v)
    return (symbol + CENTRE).astype(np.uint8), table.astype(np.uint16), fine.copy() if fine is v else fine


def _codebooks(v: Int16, model: Model) -> Int16:
    """Codebook in force at each symbol, 0 or 1; one integer holds all trellises, lane l's bit b at 32 b + l."""
    steps = -(-v.size // LANES)
    odd = np.zeros(steps * LANES, np.uint8)
    odd[: v.size] = v & 1
    spread0, spread1 = (sum(1 << LANES * b for b in range(8) if tap >> b & 1) for tap in (model.tap0, model.tap1))
    state, mask, books = 0, (1 << LANES) - 1, []
    for parity in np.packbits(odd, bitorder="little").view("<u4").tolist():
        book = state & mask
        books.append(book)
        state = state >> LANES ^ book * spread0 ^ parity * spread1
    bits = np.unpackbits(np.array(books, "<u4").view(np.uint8), bitorder="little")
    return bits[: v.size].astype(np.int16)


# ---- decoder


class _Stream:
    """Lane states and the 16-bit words that refill them."""

    def __init__(self, chunk: bytes | memoryview, lanes: int) -> None:
        data = np.frombuffer(chunk, np.uint8)
        self.x = data[: 4 * lanes].view("<u4").astype(np.int64)
        count = (data.size - 4 * lanes) // 2
        self.words = np.zeros(count + LANES, np.int64)  # a group may read past the end before that shows
        self.words[:count] = data[4 * lanes : 4 * lanes + 2 * count].view("<u2")
        self.count = count
        self.at = 0

    def run(self, base: Int64, state: Int64, rows: Int64, slots: Int64) -> None:
        """Decode groups of the first m lanes.

        Args:
            base: int64 [steps, m], first slot of each symbol's table without codebook.
            state: int64 [m], trellis states << 12, changed in place.
            rows: int64 [T 4096, 3]: frequency, slot - cumulative, what the next trellis state is flipped by.
            slots: int64 [steps, m], receives the row each symbol was found in.
        """
        lanes = base.shape[1]
        x, words, at, end = self.x[:lanes], self.words, self.at, self.count
        entry = np.empty((lanes, rows.shape[1]), np.int64)
        freq, bias, flip = entry[:, 0], entry[:, 1], entry[:, 2]
        low = np.empty(lanes, np.bool_)
        for first, slot in zip(base, slots, strict=True):
            np.bitwise_and(state, SLOTS, out=slot)
            slot += first
            slot += x & (SLOTS - 1)
            rows.take(slot, axis=0, out=entry, mode="clip")
            np.right_shift(x, PRECISION_BITS, out=x)
            np.multiply(x, freq, out=x)
            np.add(x, bias, out=x)
            np.right_shift(state, 1, out=state)
            np.bitwise_xor(state, flip, out=state)
            np.less(x, LOW, out=low)
            few = x[low]
            few <<= 16
            few |= words[at : at + few.size]
            x[low] = few
            at += few.size
            if at > end:
                break
        self.at = at


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
    symbols = (entries.reshape(-1) & 255).astype(np.int16)
    at = 0
    for segment in segments:
        _decode_segment(stream, lanes, rows, symbols, model, segment, out[at : at + segment.size])
        if stream.at > stream.count:
            return out, TOO_SHORT
        at += segment.size
    return out, 4 * lanes + 2 * stream.at if bool((stream.x == LOW).all()) else WRONG_END


def _rows(entries: NDArray[np.uint32], model: Model) -> Int64:
    """Decoder's table as `_Stream.run` takes it."""
    flat = entries.reshape(-1).astype(np.int64)
    rows = np.empty((flat.size, 3), np.int64)
    rows[:, 0] = (flat >> 20) + 1
    rows[:, 1] = flat >> 8 & (SLOTS - 1)
    if model.codebooks == 2:
        book = np.arange(flat.size) >> PRECISION_BITS & 1
        rows[:, 2] = (book * model.tap0 ^ (flat & 1) * model.tap1) << PRECISION_BITS
    else:
        rows[:, 2] = 0
    return rows


def _decode_segment(
    stream: _Stream, lanes: int, rows: Int64, symbols: Int16, model: Model, segment: Segment, out: Int16
) -> None:
    neighbours = _looks_at_neighbours(model, segment)
    base = _class_tables(model, segment)
    if base.size and int(base.max()) + model.levels * model.codebooks > rows.shape[0] // SLOTS:
        raise ValueError(f"a class has no table among {rows.shape[0] // SLOTS}")
    state = np.zeros(lanes, np.int64)
    whole = segment.size // lanes * lanes
    # Neighbours are at least a kernel plane back: a block no longer than one is looked at as a whole.
    block = segment.plane // lanes * lanes if neighbours else max(whole, 1)
    cuts = [*range(0, whole, block), whole] + ([segment.size] if whole < segment.size else [])
    for begin, end in pairwise(cuts):
        table = base[begin:end]
        g = None
        if neighbours:
            g = _predict(out, segment, begin, end)
            table = table + _levels(g, model, segment, begin) * model.codebooks
        width = lanes if end <= whole else end - begin
        slots = np.zeros((max(end - begin, 0) // width, width), np.int64)
        stream.run((table << PRECISION_BITS).reshape(slots.shape), state[:width], rows, slots)
        if stream.at > stream.count:
            return
        out[begin:end] = _fine(slots.reshape(-1), symbols, model, g)


def _fine(slots: Int64, symbols: Int16, model: Model, g: NDArray[np.int32] | None) -> Int16:
    """Fine indices of symbols found in these slots."""
    v: Int16 = symbols[slots] - np.int16(CENTRE)
    if g is not None:
        v = np.where(_flips(v, g), -v, v)
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
    quotient = np.empty_like(x)
    for row in range(len(f) - 1, -1, -1):
        before, full = states[row], spill[row]
        before[:] = x
        np.greater(x, top[row], out=full)
        np.right_shift(x, 16, out=x, where=full)
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
