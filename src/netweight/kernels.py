"""The hot loops: the C library through ctypes where it was built, or their NumPy twins; chosen in this one place.

Both give the same integers bit for bit. `NETWEIGHT_KERNELS=numpy` in the environment asks for the NumPy path.

Letters: n symbols of a segment, T tables, P prediction levels (1 or 5), Z codebooks (1 or 2). Symbol i of a segment
belongs to lane i mod 32. A symbol is v + 128 for the integer v in -127 .. 126; 0 and 255 are the even and the odd
escape.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_decode, kernels_numpy
from netweight.clibrary import LIBRARY, brief, by_size, call
from netweight.kernel_types import LANES as LANES
from netweight.kernel_types import PRECISION_BITS as PRECISION_BITS
from netweight.kernel_types import Bytes as Bytes
from netweight.kernel_types import Decoded as Decoded
from netweight.kernel_types import Float32 as Float32
from netweight.kernel_types import Grid as Grid
from netweight.kernel_types import Int16 as Int16
from netweight.kernel_types import Int32 as Int32
from netweight.kernel_types import Job as Job
from netweight.kernel_types import Model as Model
from netweight.kernel_types import Run as Run
from netweight.kernel_types import Segment as Segment
from netweight.kernel_types import Tables as Tables
from netweight.kernel_types import Target as Target
from netweight.kernel_types import Uint16 as Uint16
from netweight.kernels_decode import c_model, c_segments
from netweight.kernels_decode import decode as decode
from netweight.kernels_decode import decode_chunks as decode_chunks
from netweight.kernels_decode import decode_runs as decode_runs
from netweight.kernels_decode import decode_section as decode_section
from netweight.kernels_decode import decode_tensors as decode_tensors


def backend() -> str:
    """Tell which path is in use: "c" or "numpy"."""
    return "numpy" if LIBRARY is None else "c"


def contexts(k: Int16, model: Model, segment: Segment) -> tuple[Bytes, Uint16, Int16]:
    """Symbols, table indices and fine indices of a segment whose integers are known."""
    if LIBRARY is None:
        return kernels_numpy.contexts(k, model, segment)
    k = np.ascontiguousarray(k, np.int16)
    symbol, index, fine = np.empty(k.size, np.uint8), np.empty(k.size, np.uint16), np.empty(k.size, np.int16)
    items, keep = c_segments([segment], fine)
    packed, thresholds = c_model(model, [segment])
    call("nw_contexts", items, packed, k, symbol, index)
    del keep, thresholds
    return symbol, index, fine


def predict(fine: Int16, model: Model, segment: Segment) -> tuple[Uint16, Bytes]:
    """Contexts of a segment if these were its fine indices: table / Z, and 1 where the sign is coded flipped."""
    if LIBRARY is None:
        return kernels_numpy.predict(fine, model, segment)
    fine = np.array(fine, np.int16)
    index, flip = np.empty(fine.size, np.uint16), np.empty(fine.size, np.uint8)
    items, keep = c_segments([segment], fine)
    packed, thresholds = c_model(model, [segment])
    call("nw_predict", items, packed, index, flip)
    del keep, thresholds
    return index, flip


def histogram(symbol: Bytes, index: Uint16, count: int) -> NDArray[np.int64]:
    """Count how often each symbol is coded by each of `count` tables: int64 [T, 256]."""
    if LIBRARY is None:
        return kernels_numpy.histogram(symbol, index, count)
    out = np.zeros((count, 256), np.int64)
    by_size(symbol.size)(
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
    used = by_size(4 * symbol.size)("nw_encode", symbol, index, sizes, sizes.size, lanes, tables.freq, tables.cum, out)
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
    rate = np.ascontiguousarray(rate, np.int32)
    widest = kernels_decode.WIDEST
    if k.size and call("nw_trellis", u, index, rate, len(rate), u.size, bits, tap0, tap1, widest, k):
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
    by_size(size)("nw_classes", row, column, row.size, column.size, start, size, top, out)
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
    used = brief("nw_lines", sizes, sizes.size, residual, start, top, out)
    return None if used < 0 else out


def short_stream(data: memoryview, count: int, lanes: int) -> tuple[Int16, int] | None:
    """Decode a short stream (docs/format.md, 5.3) of `count` > 0 integers; give them and the bytes used.

    None without the C library, or where the stream contradicts itself.
    """
    if LIBRARY is None:
        return None
    out = np.empty(count, np.int16)
    used = call("nw_short_stream", np.frombuffer(data, np.uint8), len(data), count, lanes, out)
    return None if used < 0 else (out, used)


def normalise(weights: NDArray[np.int64]) -> Uint16 | None:
    """Scale each row of weights to frequencies that sum to 4096; None without the C library."""
    if LIBRARY is None or weights.shape[1] > 256:
        return None
    weights = np.ascontiguousarray(weights, np.int64)
    freq = np.empty(weights.shape, np.uint16)
    brief("nw_normalise", weights, *weights.shape, freq)
    return freq


def frequencies(ranges: Int32, symmetric: NDArray[np.bool_], level: Int32, escapes: bool) -> Uint16 | None:
    """Frequencies of tables from levels in eighths of an octave (docs/format.md, 6.4); None without the C library.

    Args:
        ranges: int32 [T, 2], lowest and highest value of each table; empty ones have none.
        symmetric: bool [T], tables whose levels are those of 0 .. highest.
        level: int32, the levels of all tables, one after the other.
        escapes: both escapes have a weight of 1.
    """
    if LIBRARY is None:
        return None
    freq = np.empty((len(ranges), 256), np.uint16)
    ranges, level = np.ascontiguousarray(ranges, np.int32), np.ascontiguousarray(level, np.int32)
    sides = np.ascontiguousarray(symmetric, np.bool_)
    if brief("nw_tables", ranges, sides, len(ranges), level, level.size, int(escapes), freq):
        raise ValueError(f"{level.size} levels do not fit {len(ranges)} ranges")
    return freq
