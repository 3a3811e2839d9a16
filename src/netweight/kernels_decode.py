"""Chunks to integers or float32 values: by the C library, several to a call, or by its NumPy twin."""

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_numpy, kernels_numpy_feedback
from netweight.clibrary import LIBRARY, CChunk, CModel, CSegment, CTensor, address, call
from netweight.errors import FormatError
from netweight.kernel_types import LANES, Decoded, Float32, Int16, Int32, Job, Model, Run, Segment, Tables, Target

Int64 = NDArray[np.int64]

ESCAPES = 1 << 12  # room for the escapes of a chunk at first
TOGETHER = 16  # chunks of a call
_NOTHING = np.zeros(0, np.int16)
WIDEST = 2  # path that the C library may take, if the machine has it: 0 scalar, 1 AVX2, 2 AVX-512; all give the same


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
    (decoded,) = decode_chunks([Job(chunk, segments, targets)], lanes, tables, model)
    return decoded.runs, decoded.used


def decode_chunks(jobs: Sequence[Job], lanes: int, tables: Tables, model: Model) -> list[Decoded]:
    """Decode chunks that have tables and a model in common; two by two that is quicker than one by one.

    Raises:
        FormatError: a chunk ends early or its lanes do not end where they started.
    """
    if LIBRARY is None:
        return [_by_numpy(job, lanes, tables, model) for job in jobs]
    found: list[Decoded] = []
    for at in range(0, len(jobs), TOGETHER):
        found += _by_c(jobs[at : at + TOGETHER], lanes, tables, model, ESCAPES)
    return found


def _by_c(jobs: Sequence[Job], lanes: int, tables: Tables, model: Model, room: int) -> list[Decoded]:
    packed, thresholds = c_model(model, [s for job in jobs for s in job.segments], len(tables.freq))
    places, held = np.empty((len(jobs), room), np.int64), np.empty((len(jobs), room), np.int16)
    data = [np.frombuffer(job.data, np.uint8) for job in jobs]
    filled = [_c_targets(job, model) for job in jobs]
    at, beside = address(places), address(held)
    chunks = (CChunk * len(jobs))()
    for j, (chunk, d, (items, _, _)) in enumerate(zip(chunks, data, filled, strict=True)):
        chunk.bytes, chunk.size, chunk.segs, chunk.count = address(d), d.size, ctypes.addressof(items), len(items)
        chunk.place, chunk.held, chunk.room = at + 8 * room * j, beside + 2 * room * j, room
    call("nw_decode", chunks, len(jobs), lanes, tables.entries, packed, WIDEST)
    del thresholds
    found = []
    for j, (chunk, job, (items, out, _)) in enumerate(zip(chunks, jobs, filled, strict=True)):
        _require_used(chunk.used, len(job.data), job.segments)
        escapes = sum(item.beyond for item in items)
        if escapes > room:
            found += _by_c([job], lanes, tables, model, escapes)
            continue
        runs = []
        first = begin = 0
        for item in items:
            n, beyond, fine = item.n, item.beyond, None
            if item.out:
                fine, begin = out[begin : begin + n], begin + n
            mine = slice(first, first + beyond)
            runs.append(Run(n, (item.plain, item.weighted), places[j, mine], held[j, mine], fine))
            first += beyond
        found.append(Decoded(runs, chunk.used, chunk.checksum))
    return found


def _c_targets(job: Job, model: Model) -> tuple[ctypes.Array[CSegment], Int16, list[Any]]:
    """Structures of a chunk's segments, memory for the fine indices that are wanted, and what must be kept alive."""
    pairs = list(zip(job.segments, job.targets, strict=True))
    wanted = [target is None or (model.levels > 1 and s.plane > 0) for s, target in pairs]
    out = np.empty(sum(s.size for s, fine_too in zip(job.segments, wanted, strict=True) if fine_too), np.int16)
    items, keep = c_segments(job.segments, out, wanted)
    for item, (s, target) in zip(items, pairs, strict=True):
        if target is None:
            continue
        if target.out.size != s.size or target.out.dtype != np.float32 or not target.out.flags.c_contiguous:
            raise ValueError(f"a target of {target.out.size} {target.out.dtype} for {s.size} symbols")
        item.scaled, item.factor, item.around = address(target.out), float(target.factor), target.around
    return items, out, keep


def decode_tensors(
    data: memoryview, where: Int64, pieces: Int64, likes: Sequence[Segment], tables: Tables, model: Model,
    targets: Sequence[Target], escapes: bool,
) -> Int64 | None:  # fmt: skip
    """Decode chunks to float32 in a single call.

    Args:
        data: that the chunks lie in.
        where: int64 [chunks, 3]: first byte, bytes, pieces.
        pieces: int64 [sum of pieces, 3]: tensor, first symbol, symbols.
        likes: what the segments of each tensor have in common; they look at no neighbours.
        tables: the T tables.
        model: the contexts.
        targets: memory and factor for each whole tensor.
        escapes: what escaped symbols stand for follows the words.

    Returns:
        The checksum of each chunk; or None where this is no way, or something is wrong, which `decode_chunks` tells.
    """
    if LIBRARY is None or model.levels > 1:
        return None
    room = np.array([target.out.size for target in targets], np.int64)
    tensor, first, count = pieces.T
    inside = where.min() >= 0 and (where[:, 0] + where[:, 1]).max() <= len(data) and where[:, 2].sum() == len(pieces)
    if not inside or pieces.min() < 0 or tensor.max() >= len(room) or (first + count > room[tensor]).any():
        raise ValueError(f"chunks or pieces reach beyond {len(data)} bytes or {len(room)} tensors")
    if any(target.out.dtype != np.float32 or not target.out.flags.c_contiguous for target in targets):
        raise ValueError("a target that is not contiguous float32")
    packed, thresholds = c_model(model, likes, len(tables.freq))
    (items, keep), raw = c_segments(likes, _NOTHING, [False] * len(likes)), np.frombuffer(data, np.uint8)
    for item, target in zip(items, targets, strict=True):
        item.scaled, item.factor, item.around = address(target.out), float(target.factor), target.around
    found = np.empty(len(where), np.int64)
    where, pieces = np.ascontiguousarray(where, np.int64), np.ascontiguousarray(pieces, np.int64)
    unusual = call(
        "nw_decode_tensors", raw, where, len(where), pieces, items, tables.entries, packed, WIDEST, int(escapes), found
    )
    del keep, thresholds
    return None if unusual else found


def decode_section(
    data: memoryview, prelude: int, crc: int, shapes: Sequence[tuple[int, int]], outs: Sequence[Float32], taps: Int64,
    around: bool,
) -> bool:  # fmt: skip
    """Decode a whole section of weights to float32 in a single call, every checksum included.

    Args:
        data: the section.
        prelude: bytes of its prelude.
        crc: checksum of it.
        shapes: rows and columns of each tensor, which is scanned by rows.
        outs: float32, contiguous, memory for each.
        taps: int64 [9, 2], those of the trellis of 2^j states; zeros where there is none.
        around: more is decoded than the caches hold.

    Returns:
        Whether it is done. If not, this is no way to do it, or something is wrong, which reading it step by step tells.
    """
    if LIBRARY is None or prelude > len(data):
        return False
    if taps.shape != (9, 2) or taps.dtype != np.int64 or not taps.flags.c_contiguous:
        raise ValueError(f"taps of shape {taps.shape}")
    for (height, width), out in zip(shapes, outs, strict=True):
        if height * width != out.size or height < 0 or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"memory of {out.size} {out.dtype} for {height} x {width} weights")
    rows: list[Any] = [(*shape, address(out)) for shape, out in zip(shapes, outs, strict=True)]
    items = (CTensor * len(rows))(*rows)
    raw = np.frombuffer(data, np.uint8)
    return not call("nw_section", raw, len(data), prelude, crc, items, len(outs), taps, int(around), WIDEST)


def _by_numpy(job: Job, lanes: int, tables: Tables, model: Model) -> Decoded:
    segments = [_spread(segment) for segment in job.segments]
    fine, used = kernels_numpy.decode(job.data, lanes, tables.entries, model, segments)
    _require_used(used, len(job.data), segments)
    ends = np.cumsum([0, *(s.size for s in segments)]).tolist()
    parts = zip([fine[a:b] for a, b in pairwise(ends)], job.targets, strict=True)
    return Decoded([_run(part, model.codebooks, target) for part, target in parts], used)


def _spread(s: Segment) -> Segment:
    """Give the same with the class of each symbol."""
    if s.grid is None:
        return s
    row, column, columns, dealt, top = s.grid.row, s.grid.column, s.grid.columns, s.grid.dealt, s.grid.top
    if dealt:
        found = kernels_numpy_feedback.dealt_classes(row, column, columns, dealt, s.start, s.size, top)
    else:
        found = kernels_numpy.classes(row, column, s.start, s.size, top)
    return replace(s, classes=found, grid=None)


def _run(fine: Int16, codebooks: int, target: Target | None) -> Run:
    if target is not None:
        np.multiply(fine, np.float32(target.factor), out=target.out, dtype=np.float32)
    places = kernels_numpy.escapes(fine, codebooks)
    return Run(fine.size, kernels_numpy.sums(fine), places, fine[places], fine)


def _require_used(used: int, size: int, segments: Sequence[Segment]) -> None:
    if used < 0:
        fact = "ends before its last symbol" if used == -1 else "does not end in the coder's start state"
        total = sum(s.size for s in segments)
        raise FormatError(f"A chunk of {size} bytes for {total} symbols {fact}.", "The file is damaged: get it again.")


def c_segments(
    segments: Sequence[Segment], out: Int16, wanted: Sequence[bool] | None = None
) -> tuple[ctypes.Array[CSegment], list[Any]]:
    """Fill the C structures; the fine indices of those wanted, all if None, follow each other in `out`.

    The second result keeps the arrays they point to alive.
    """
    keep: list[Any] = []
    rows: list[Any] = []
    at = address(out)
    for j, s in enumerate(segments):
        if s.plane and (s.plane < LANES or s.width < 1 or s.positions < 1):
            raise ValueError(f"neighbours need planes of {LANES} symbols, not {s.plane}")
        to = at if wanted is None or wanted[j] else None
        rows.append((s.size, s.start, s.plane, s.width, s.positions, *_classes(s, keep), to))
        if to is not None:
            at += 2 * s.size
    packed: ctypes.Array[CSegment] = (CSegment * len(segments))(*rows)
    return packed, keep


def _classes(s: Segment, keep: list[Any]) -> tuple[int | None, int | None, int | None, int, int, int, int]:
    """Where the classes are, or where the levels are and what they are."""
    if s.grid is not None:
        row, column, columns, dealt = s.grid.row, s.grid.column, s.grid.columns, s.grid.dealt
        if not (row.dtype == column.dtype == np.int16 and row.flags.c_contiguous and column.flags.c_contiguous):
            row, column = np.ascontiguousarray(row, np.int16), np.ascontiguousarray(column, np.int16)
            keep += row, column
        end, room = s.start + s.size, row.size * column.size
        if s.size and (s.start < 0 or not room or column.size % columns or (dealt and end > room)):
            raise ValueError(f"{row.size} and {column.size} levels for symbols {s.start} .. {end}")
        return None, address(row), address(column), row.size, columns, s.grid.top, dealt
    if s.classes is None:
        return None, None, None, 0, 0, 0, 0
    classes = np.ascontiguousarray(s.classes, np.uint8)
    if classes.size < s.size:
        raise ValueError(f"{classes.size} classes for {s.size} symbols")
    keep.append(classes)
    return address(classes), None, None, 0, 0, 0, 0


def c_model(model: Model, segments: Sequence[Segment], count: int | None = None) -> tuple[Any, Int32]:
    """Fill the C structure; no class may lead beyond the thresholds or, where they are counted, the tables."""
    thresholds = np.ascontiguousarray(model.thresholds, np.int32)
    room = len(thresholds) if model.levels > 1 else 256
    if count is not None:
        room = min(room, count // (model.levels * model.codebooks))
    # `top` of most segments says without a look at the classes that they fit.
    doubtful = [s.classes for s in segments if s.classes is not None and s.classes.size and s.top >= room]
    tops = [s.grid.top for s in segments if s.grid is not None]
    top = max([0, *tops, *(int(classes.max()) for classes in doubtful)])
    if top >= room:
        raise ValueError(f"class {top} has no table among {count} or no thresholds among {len(thresholds)}")
    return ctypes.byref(CModel(model.codebooks, model.levels, model.tap0, model.tap1, address(thresholds))), thresholds
