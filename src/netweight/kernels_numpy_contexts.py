"""The contexts among the NumPy twins of csrc/kernels.c: what is known of a symbol before it is decoded.

Neighbours are at least one kernel plane back, so the predictions of a plane of symbols do not wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netweight.kernels import Bytes, Int16, Int32, Model, Segment

    Int64 = NDArray[np.int64]

LANES = 32
CENTRE = 128


def prediction(fine: Int16, segment: Segment, begin: int, end: int) -> Int32:
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


def looks_at_neighbours(model: Model, segment: Segment) -> bool:
    """Tell whether the tables of a segment's symbols depend on neighbours."""
    if model.levels == 1 or segment.plane == 0:
        return False
    if segment.plane < LANES:
        raise ValueError(f"neighbours need kernel planes of at least {LANES} symbols, not {segment.plane}")
    return True


def class_tables(model: Model, segment: Segment) -> Int64:
    """First table of each symbol's class, int64 [n]."""
    if segment.classes is None:
        return np.zeros(segment.size, np.int64)
    return segment.classes.astype(np.int64) * (model.levels * model.codebooks)


def levels(g: Int32, model: Model, segment: Segment, begin: int) -> Int64:
    """How many thresholds of its class each |g| reaches, for symbols from `begin` on."""
    size, level = np.abs(g), np.zeros(g.size, np.int64)
    for j in range(4):
        if segment.classes is None:
            level += size >= model.thresholds[0, j]
        else:
            level += size >= model.thresholds[segment.classes[begin : begin + g.size], j]
    return level


def flips(v: Int16, g: Int32) -> NDArray[np.bool_]:
    """Where the sign is coded relative to the prediction's; escapes are not, nor -127, whose flip would be one."""
    out: NDArray[np.bool_] = (g < 0) & (v >= 2 - CENTRE) & (v < CENTRE - 1)
    return out


def contexts(k: Int16, model: Model, segment: Segment) -> tuple[Bytes, NDArray[np.uint16], Int16]:
    """Symbols, table indices and fine indices of a segment whose integers are known."""
    escape = (k < 1 - CENTRE) | (k > CENTRE - 2)
    v = np.where(escape, np.where(k & 1, CENTRE - 1, -CENTRE), k).astype(np.int16)
    table = class_tables(model, segment)
    fine = v
    if model.codebooks == 2:
        book = _codebooks(v, model)
        fine = 2 * v - book * np.sign(v)
        table += book
    symbol = v
    if looks_at_neighbours(model, segment):
        g = prediction(fine, segment, 0, segment.size)
        table += levels(g, model, segment, 0) * model.codebooks
        symbol = np.where(flips(v, g), -v, v)
    return (symbol + CENTRE).astype(np.uint8), table.astype(np.uint16), fine.copy() if fine is v else fine


def predict(fine: Int16, model: Model, segment: Segment) -> tuple[NDArray[np.uint16], Bytes]:
    """Table / Z and sign flip of each symbol if these were the segment's fine indices."""
    table = class_tables(model, segment) // model.codebooks
    if not looks_at_neighbours(model, segment):
        return table.astype(np.uint16), np.zeros(segment.size, np.uint8)
    g = prediction(fine, segment, 0, segment.size)
    return (table + levels(g, model, segment, 0)).astype(np.uint16), (g < 0).astype(np.uint8)


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
