"""The hot loops: the C library through ctypes where it was built, or their NumPy twins; chosen in this one place.

Both give the same integers bit for bit. `NETWEIGHT_KERNELS=numpy` in the environment asks for the NumPy path.

Letters: n symbols of a segment, T tables, P prediction levels (1 or 5), Z codebooks (1 or 2). Symbol i of a segment
belongs to lane i mod 32. A symbol is v + 128 for the integer v in -127 .. 126; 0 and 255 are the even and the odd
escape.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_numpy
from netweight.clibrary import LIBRARY, CModel, CSegment, call
from netweight.errors import FormatError

LANES = 32
PRECISION_BITS = 12
READ_AHEAD_BYTES = 64  # the vector loop reads beyond its words

Bytes = NDArray[np.uint8]
Int16 = NDArray[np.int16]
Uint16 = NDArray[np.uint16]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of one tensor's scan: symbols `start` .. `start + size`.

    Attributes:
        size: symbols.
        start: index of the first one in the tensor's scan.
        plane: symbols of one kernel position, or 0 where neighbours are not looked at.
        width: width of the kernel.
        positions: kernel positions; plane p of the scan is position p mod positions.
        classes: class of each symbol, uint8 [size], or None where all are 0.
    """

    size: int
    start: int = 0
    plane: int = 0
    width: int = 1
    positions: int = 1
    classes: Bytes | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """How the table of a symbol follows from its class, its neighbours and the trellis.

    Table = (class P + level) Z + codebook.

    Attributes:
        codebooks: Z, 1 or 2.
        levels: P, 1 or 5.
        tap0: what codebook 1 flips in the trellis' next state.
        tap1: what an odd integer flips in it.
        thresholds: int32 [classes, 4], ascending; the level counts those that |2 left + 2 up - corner| reaches.
    """

    codebooks: int
    levels: int
    tap0: int
    tap1: int
    thresholds: Int32


class Tables:
    """T frequency tables of 256 symbols that sum to 4096 each (a table may also be empty, all zero)."""

    def __init__(self, freq: NDArray[np.uint16]) -> None:
        self.freq = np.ascontiguousarray(freq, np.uint16)
        total = np.cumsum(self.freq, axis=1, dtype=np.uint32)
        self.cum = np.ascontiguousarray(total - self.freq, np.uint16)

    @cached_property
    def entries(self) -> NDArray[np.uint32]:
        """Decoder's table, uint32 [T, 4096]: (frequency - 1) << 20 | (slot - cumulative) << 8 | symbol."""
        if LIBRARY is None:
            return kernels_numpy.entries(self.freq)
        out = np.empty((len(self.freq), 1 << PRECISION_BITS), np.uint32)
        call("nw_entries", self.freq, len(self.freq), out)
        return out


def backend() -> str:
    """Tell which path is in use: "c" or "numpy"."""
    return "numpy" if LIBRARY is None else "c"


def _c_segments(segments: Sequence[Segment], out: Int16) -> tuple[ctypes.Array[CSegment], list[Bytes | None]]:
    """Fill the C structures; the second result keeps the arrays they point to alive."""
    keep = [None if s.classes is None else np.ascontiguousarray(s.classes, np.uint8) for s in segments]
    items = (CSegment * len(segments))()
    at = out.ctypes.data
    for item, s, classes in zip(items, segments, keep, strict=True):
        if classes is not None and classes.size < s.size:
            raise ValueError(f"{classes.size} classes for {s.size} symbols")
        if s.plane and (s.plane < LANES or s.width < 1 or s.positions < 1):
            raise ValueError(f"neighbours need planes of {LANES} symbols, not {s.plane}")
        item.n, item.start, item.plane = s.size, s.start, s.plane
        item.width, item.positions = s.width, s.positions
        item.cls, item.out = None if classes is None else classes.ctypes.data, at
        at += 2 * s.size
    return items, keep


def _c_model(model: Model, segments: Sequence[Segment], count: int | None = None) -> tuple[Any, Int32]:
    """Fill the C structure; no class may lead beyond the thresholds or, where they are counted, the tables."""
    thresholds = np.ascontiguousarray(model.thresholds, np.int32)
    top = max((int(s.classes.max()) for s in segments if s.classes is not None and s.classes.size), default=0)
    if (model.levels > 1 and top >= len(thresholds)) or (
        count is not None and (top + 1) * model.levels * model.codebooks > count
    ):
        raise ValueError(f"class {top} has no table among {count} or no thresholds among {len(thresholds)}")
    return ctypes.byref(
        CModel(model.codebooks, model.levels, model.tap0, model.tap1, thresholds.ctypes.data)
    ), thresholds


def decode(
    chunk: bytes | memoryview, lanes: int, tables: Tables, model: Model, segments: Sequence[Segment]
) -> tuple[Int16, int]:
    """Decode the fine indices of a chunk's segments, one after the other.

    Args:
        chunk: lane states, words, and whatever follows them.
        lanes: interleaved coder states.
        tables: the T tables.
        model: the contexts.
        segments: what the chunk holds.

    Returns:
        int16 [sum of sizes], and how many bytes of the chunk the coder used.

    Raises:
        FormatError: the chunk ends early or its lanes do not end where they started.
    """
    total = sum(s.size for s in segments)
    if LIBRARY is None:
        out, used = kernels_numpy.decode(chunk, lanes, tables.entries, model, segments)
    else:
        out = np.empty(total, np.int16)
        data = np.empty(len(chunk) + READ_AHEAD_BYTES, np.uint8)
        data[: len(chunk)] = np.frombuffer(chunk, np.uint8)
        data[len(chunk) :] = 0
        items, keep = _c_segments(segments, out)
        c_model, thresholds = _c_model(model, segments, len(tables.freq))
        used = call("nw_decode", data, len(chunk), lanes, tables.entries, c_model, items, len(segments))
        del keep, thresholds
    if used < 0:
        fact = "ends before its last symbol" if used == -1 else "does not end in the coder's start state"
        raise FormatError(
            f"A chunk of {len(chunk)} bytes for {total} symbols {fact}.", "The file is damaged: get it again."
        )
    return out, used


def contexts(k: Int16, model: Model, segment: Segment) -> tuple[Bytes, Uint16, Int16]:
    """Symbols, table indices and fine indices of a segment whose integers are known."""
    if LIBRARY is None:
        return kernels_numpy.contexts(k, model, segment)
    k = np.ascontiguousarray(k, np.int16)
    symbol, index, fine = np.empty(k.size, np.uint8), np.empty(k.size, np.uint16), np.empty(k.size, np.int16)
    items, keep = _c_segments([segment], fine)
    c_model, thresholds = _c_model(model, [segment])
    call("nw_contexts", items, c_model, k, symbol, index)
    del keep, thresholds
    return symbol, index, fine


def predict(fine: Int16, model: Model, segment: Segment) -> tuple[Uint16, Bytes]:
    """Contexts of a segment if these were its fine indices: table / Z, and 1 where the sign is coded flipped."""
    if LIBRARY is None:
        return kernels_numpy.predict(fine, model, segment)
    fine = np.array(fine, np.int16)
    index, flip = np.empty(fine.size, np.uint16), np.empty(fine.size, np.uint8)
    items, keep = _c_segments([segment], fine)
    c_model, thresholds = _c_model(model, [segment])
    call("nw_predict", items, c_model, index, flip)
    del keep, thresholds
    return index, flip


def histogram(symbol: Bytes, index: Uint16, count: int) -> NDArray[np.int64]:
    """Count how often each symbol is coded by each of `count` tables: int64 [T, 256]."""
    if LIBRARY is None:
        return kernels_numpy.histogram(symbol, index, count)
    out = np.zeros((count, 256), np.int64)
    call(
        "nw_histogram", np.ascontiguousarray(symbol, np.uint8), np.ascontiguousarray(index, np.uint16), symbol.size, out
    )
    return out


def encode(symbol: Bytes, index: Uint16, lengths: Sequence[int], lanes: int, tables: Tables) -> bytes:
    """Code the symbols of segments of these lengths: lane states, then 16-bit words.

    Raises:
        ValueError: the lengths do not add up, or a symbol has no frequency in its table.
    """
    if sum(lengths) != symbol.size or index.size != symbol.size:
        raise ValueError(f"{symbol.size} symbols and {index.size} tables for segments of {sum(lengths)}")
    if LIBRARY is None:
        return kernels_numpy.encode(symbol, index, lengths, lanes, tables.freq, tables.cum)
    symbol, index = np.ascontiguousarray(symbol, np.uint8), np.ascontiguousarray(index, np.uint16)
    out = np.empty(4 * lanes + 2 * symbol.size, np.uint8)
    sizes = np.array(lengths, np.int64)
    used = call("nw_encode", symbol, index, sizes, sizes.size, lanes, tables.freq, tables.cum, out)
    if used < 0:
        raise ValueError("a symbol has no frequency in its table")
    return out[:used].tobytes()


def round_rd(u: Float32, index: Uint16, rate: Int32) -> Int16:
    """Integers k with the least 2^10 (u - k)^2 + rate[index, k], int32 [T, 256], of three candidates each."""
    if LIBRARY is None:
        return kernels_numpy.round_rd(u, index, rate)
    u, index = np.ascontiguousarray(u, np.float32), np.ascontiguousarray(index, np.uint16)
    k = np.empty(u.size, np.int16)
    call("nw_round", u, index, np.ascontiguousarray(rate, np.int32), u.size, k)
    return k


def trellis(u: Float32, index: Uint16, rate: Int32, bits: int, tap0: int, tap1: int) -> Int16:
    """Integers of the cheapest path of each lane through 2^bits states; u finite, rate int32 [T, 2, 256]."""
    if LIBRARY is None:
        return kernels_numpy.trellis(u, index, rate, bits, tap0, tap1)
    u, index = np.ascontiguousarray(u, np.float32), np.ascontiguousarray(index, np.uint16)
    k = np.empty(u.size, np.int16)
    if k.size and call("nw_trellis", u, index, np.ascontiguousarray(rate, np.int32), u.size, bits, tap0, tap1, k):
        raise MemoryError(f"no memory for a trellis of {1 << bits} states over {u.size} weights")
    return k


def classes(row: Int16, column: Int16, start: int, size: int, top: int) -> Bytes:
    """Class of scan positions start .. start + size: clamp(row level + column level, 0, top), uint8 [size].

    Levels are below 2^14 in magnitude.
    """
    if LIBRARY is None or not size:
        return kernels_numpy.classes(row, column, start, size, top) if size else np.zeros(0, np.uint8)
    row, column = np.ascontiguousarray(row, np.int16), np.ascontiguousarray(column, np.int16)
    out = np.empty(size, np.uint8)
    call("nw_classes", row, column, row.size, column.size, start, size, top, out)
    return out


def scale(fine: Int16, factor: np.float32, out: Float32) -> None:
    """Put float32(r) times a float32 factor, rounded once, into `out`, which is contiguous."""
    if LIBRARY is None:
        np.multiply(fine, np.float32(factor), out=out, dtype=np.float32)
    else:
        call("nw_scale", np.ascontiguousarray(fine, np.int16), fine.size, np.float32(factor), out)


def lines(sizes: Int32, residual: Int32, start: int, top: int) -> Int32 | None:
    """Levels of tables from their residuals, one line a table; None where one leaves 0 .. top.

    The first level of a line is predicted by the first of the line before (`start`), the second by the first, each
    other one by twice the last less the one before, clamped to 0 .. top.
    """
    if LIBRARY is None:
        return kernels_numpy.lines(sizes, residual, start, top)
    sizes, residual = np.ascontiguousarray(sizes, np.int32), np.ascontiguousarray(residual, np.int32)
    out = np.empty(residual.size, np.int32)
    used = call("nw_lines", sizes, sizes.size, residual, start, top, out)
    return None if used < 0 else out


def scan(values: Int16, low: int, high: int) -> tuple[int, int, int]:
    """Give sum r_i and sum i r_i mod 2^32, i from 1, and how many r_i are at most `low` or at least `high`."""
    if LIBRARY is None:
        return kernels_numpy.scan(values, low, high)
    out = np.empty(3, np.uint32)
    call("nw_scan", np.ascontiguousarray(values, np.int16), values.size, low, high, out)
    return int(out[0]), int(out[1]), int(out[2])


def find(values: Int16, low: int, high: int, count: int) -> NDArray[np.int64]:
    """Give where values are at most `low` or at least `high`: the `count` places that `scan` counted, in order."""
    if LIBRARY is None:
        return np.flatnonzero((values <= low) | (values >= high))
    out = np.empty(count, np.int64)
    call("nw_find", np.ascontiguousarray(values, np.int16), values.size, low, high, out)
    return out
