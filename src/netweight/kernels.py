"""The hot loops: the C library through ctypes where it was built, or their NumPy twins; chosen in this one place.

Both give the same integers bit for bit. `NETWEIGHT_KERNELS=numpy` in the environment asks for the NumPy path.

Letters: n symbols of a segment, T tables, P prediction levels (1 or 5), Z codebooks (1 or 2). Symbol i of a segment
belongs to lane i mod 32. A symbol is v + 128 for the integer v in -127 .. 126; 0 and 255 are the even and the odd
escape.
"""

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_numpy
from netweight.clibrary import LIBRARY, CModel, CSegment, address, call
from netweight.errors import FormatError
from netweight.kernel_types import LANES as LANES
from netweight.kernel_types import PRECISION_BITS as PRECISION_BITS
from netweight.kernel_types import Bytes as Bytes
from netweight.kernel_types import Float32 as Float32
from netweight.kernel_types import Int16 as Int16
from netweight.kernel_types import Int32 as Int32
from netweight.kernel_types import Model as Model
from netweight.kernel_types import Run as Run
from netweight.kernel_types import Segment as Segment
from netweight.kernel_types import Tables as Tables
from netweight.kernel_types import Target as Target
from netweight.kernel_types import Uint16 as Uint16

ESCAPES = 1 << 12  # room for the escapes of a chunk at first


def backend() -> str:
    """Tell which path is in use: "c" or "numpy"."""
    return "numpy" if LIBRARY is None else "c"


def _c_segments(segments: Sequence[Segment], out: Int16) -> tuple[ctypes.Array[CSegment], list[Bytes | None]]:
    """Fill the C structures; the second result keeps the arrays they point to alive."""
    keep = [None if s.classes is None else np.ascontiguousarray(s.classes, np.uint8) for s in segments]
    items = (CSegment * len(segments))()
    at = address(out)
    for item, s, classes in zip(items, segments, keep, strict=True):
        if classes is not None and classes.size < s.size:
            raise ValueError(f"{classes.size} classes for {s.size} symbols")
        if s.plane and (s.plane < LANES or s.width < 1 or s.positions < 1):
            raise ValueError(f"neighbours need planes of {LANES} symbols, not {s.plane}")
        item.n, item.start, item.plane = s.size, s.start, s.plane
        item.width, item.positions = s.width, s.positions
        item.cls, item.out = None if classes is None else address(classes), at
        at += 2 * s.size
    return items, keep


def _c_model(model: Model, segments: Sequence[Segment], count: int | None = None) -> tuple[Any, Int32]:
    """Fill the C structure; no class may lead beyond the thresholds or, where they are counted, the tables."""
    thresholds = np.ascontiguousarray(model.thresholds, np.int32)
    room = len(thresholds) if model.levels > 1 else 256
    if count is not None:
        room = min(room, count // (model.levels * model.codebooks))
    # `top` of most segments says without a look at the classes that they fit.
    doubtful = [s.classes for s in segments if s.classes is not None and s.classes.size and s.top >= room]
    top = max((int(classes.max()) for classes in doubtful), default=0)
    if top >= room:
        raise ValueError(f"class {top} has no table among {count} or no thresholds among {len(thresholds)}")
    return ctypes.byref(CModel(model.codebooks, model.levels, model.tap0, model.tap1, address(thresholds))), thresholds


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
    runs, used = decode_runs(chunk, lanes, tables, model, segments, [None] * len(segments))
    parts = [run.fine for run in runs if run.fine is not None]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int16), *parts]), used


def decode_runs(
    chunk: bytes | memoryview, lanes: int, tables: Tables, model: Model, segments: Sequence[Segment],
    targets: Sequence[Target | None],
) -> tuple[list[Run], int]:  # fmt: skip
    """Decode a chunk's segments each to its target, or to fine indices where it has none.

    Args:
        chunk: lane states, words, and whatever follows them.
        lanes: interleaved coder states.
        tables: the T tables.
        model: the contexts.
        segments: what the chunk holds.
        targets: of each.

    Returns:
        What each decoded to, and how many bytes of the chunk the coder used.

    Raises:
        FormatError: the chunk ends early or its lanes do not end where they started.
    """
    if LIBRARY is None:
        fine, used = kernels_numpy.decode(chunk, lanes, tables.entries, model, segments)
        _require_used(used, len(chunk), segments)
        ends = np.cumsum([0, *(s.size for s in segments)]).tolist()
        parts = zip([fine[a:b] for a, b in pairwise(ends)], targets, strict=True)
        return [_run(part, model.codebooks, target) for part, target in parts], used
    wanted = [t is None or (model.levels > 1 and s.plane > 0) for s, t in zip(segments, targets, strict=True)]
    out = np.empty(sum(s.size for s in segments) if any(wanted) else 0, np.int16)
    items, keep = _c_segments(segments, out)
    for item, fine_too, s, target in zip(items, wanted, segments, targets, strict=True):
        item.out = item.out if fine_too else None
        if target is not None:
            if target.out.size != s.size or target.out.dtype != np.float32 or not target.out.flags.c_contiguous:
                raise ValueError(f"a target of {target.out.size} {target.out.dtype} for {s.size} symbols")
            item.scaled, item.factor = address(target.out), float(target.factor)
    data = np.frombuffer(chunk, np.uint8)
    c_model, thresholds = _c_model(model, segments, len(tables.freq))
    room = ESCAPES
    while True:
        places, held = np.empty(room, np.int64), np.empty(room, np.int16)
        used = call(
            "nw_decode", data, len(chunk), lanes, tables.entries, c_model, items, len(segments), places, held, room
        )
        escapes = sum(item.beyond for item in items)
        if used < 0 or escapes <= room:
            break
        room = escapes
    del keep, thresholds
    _require_used(used, len(chunk), segments)
    runs = []
    at = first = 0
    for item, fine_too in zip(items, wanted, strict=True):
        mine = slice(first, first + item.beyond)
        part = out[at : at + item.n] if fine_too else None
        runs.append(Run(item.n, (item.plain, item.weighted), places[mine], held[mine], part))
        at, first = at + item.n, mine.stop
    return runs, used


def _run(fine: Int16, codebooks: int, target: Target | None) -> Run:
    if target is not None:
        scale(fine, target.factor, target.out)
    places = kernels_numpy.escapes(fine, codebooks)
    return Run(fine.size, kernels_numpy.sums(fine), places, fine[places], fine)


def _require_used(used: int, size: int, segments: Sequence[Segment]) -> None:
    if used < 0:
        fact = "ends before its last symbol" if used == -1 else "does not end in the coder's start state"
        total = sum(s.size for s in segments)
        raise FormatError(f"A chunk of {size} bytes for {total} symbols {fact}.", "The file is damaged: get it again.")


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
