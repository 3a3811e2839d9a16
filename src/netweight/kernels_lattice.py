"""A pass of a quantiser over runs of a scan: one call of the C library, or the same kernels one by one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from netweight import kernels, kernels_decode
from netweight.clibrary import LIBRARY, by_size
from netweight.kernel_types import Bytes, Float32, Int16, Int32, Model, Segment

BLOCK = 1 << 16  # weights that are summed at once; a multiple of eight


def choose(
    x: Float32, inverse: np.float32, runs: Sequence[tuple[int, int]], like: Segment, model: Model, rate: Int32,
    bits: int, k: Int16, fine: Int16,
) -> NDArray[np.int64]:  # fmt: skip
    """Choose the integers of runs of a scan, and count the symbols that they are coded by: int64 [T, 256].

    Args:
        x: float32 [n], weights in scan order.
        inverse: of the step; |x| inverse below 30,000.
        runs: first symbol and symbols of each; a trellis starts anew in each.
        like: the scan, its classes by a grid that is not dealt.
        model: the contexts.
        rate: int32 [T, 256].
        bits: log2 of the trellis' states, 0 for rounding.
        k: int16 [n]; the integers of the runs are put here.
        fine: int16 [n], likewise for fine indices; where neighbours are looked at these are the guesses to begin with,
            those of plain rounding in a run where all are zero.
    """
    if LIBRARY is None:
        return _in_parts(x, inverse, runs, like, model, rate, bits, k, fine)
    counts = np.zeros((len(rate), 256), np.int64)
    places = np.array(runs, np.int64).reshape(-1, 2)
    first, end = (int(places[:, 0].min()), int(places.sum(axis=1).max())) if len(places) else (0, 0)
    items, keep = kernels_decode.c_segments([replace(like, start=first, size=end - first)], fine)
    packed, thresholds = kernels_decode.c_model(model, [like], len(rate))
    x, rate = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(rate, np.int32)
    if first < 0 or end > min(x.size, k.size, fine.size) or not (k.flags.c_contiguous and fine.flags.c_contiguous):
        raise ValueError(f"runs up to {end} of {x.size} weights, {k.size} integers and {fine.size} fine indices")
    fields = (places, len(places), items, packed, rate, len(rate), bits, kernels_decode.WIDEST)
    if by_size(8 * int(places[:, 1].sum()) << bits)("nw_lattice", x, np.float32(inverse), *fields, k, fine, counts):
        raise MemoryError(f"no memory for {1 << bits} states over {end - first} weights")
    del keep, thresholds
    return counts


def fit(x: Float32, r: Int16 | Int32) -> tuple[np.float32, float]:
    """Give the scale alpha = <x, r> / <r, r>, 0 where r is 0, and |x - alpha r|^2.

    Args:
        x: float32 [n].
        r: int16 or int32 [n].

    >>> fit(np.array([1.0, 2.0, 0.5], np.float32), np.array([1, 2, 0], np.int16))
    (np.float32(1.0), 0.25)
    """
    if LIBRARY is None:
        return _fit(x, r)
    out = np.empty(2, np.float64)
    by_size(x.size)("nw_fit", np.ascontiguousarray(x, np.float32), np.ascontiguousarray(r), r.itemsize, x.size, out)
    return np.float32(out[0]), float(out[1])


def _fit(x: Float32, r: Int16 | Int32) -> tuple[np.float32, float]:
    """Sum block by block, eight lanes apart, which are then added in turn: as C does."""
    sums = np.zeros((3, 8))
    for at in range(0, x.size, BLOCK):
        v, y = r[at : at + BLOCK].astype(np.float64), x[at : at + BLOCK].astype(np.float64)
        sums[0], sums[1] = _added(sums[0], v * y), _added(sums[1], v * v)
    cross, square = (np.add.accumulate(s)[-1] for s in sums[:2])
    alpha = np.float32(cross / square) if square > 0 else np.float32(0.0)
    for at in range(0, x.size, BLOCK):
        e = x[at : at + BLOCK].astype(np.float64) - np.float64(alpha) * r[at : at + BLOCK].astype(np.float64)
        sums[2] = _added(sums[2], e * e)
    return alpha, float(np.add.accumulate(sums[2])[-1])


def _added(sums: NDArray[np.float64], terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add terms, one row of eight after the other."""
    rows = np.concatenate([sums, terms, np.zeros(-terms.size % 8)]).reshape(-1, 8)
    out: NDArray[np.float64] = np.add.accumulate(rows, axis=0)[-1]
    return out


def _in_parts(
    x: Float32, inverse: np.float32, runs: Sequence[tuple[int, int]], like: Segment, model: Model, rate: Int32,
    bits: int, k: Int16, fine: Int16,
) -> NDArray[np.int64]:  # fmt: skip
    counts = np.zeros((len(rate), 256), np.int64)
    grid = like.grid
    assert grid is not None
    for start, size in runs:
        where = slice(start, start + size)
        classes = kernels.classes(grid.row, grid.column, start, size, grid.top)
        piece = replace(like, start=start, size=size, classes=classes, grid=None)
        u = x[where] * inverse
        if not fine[where].any():
            fine[where] = np.rint(u)
        k[where] = _search(u, fine[where], piece, classes, model, rate, bits)
        symbol, index, fine[where] = kernels.contexts(k[where], model, piece)
        counts += kernels.histogram(symbol, index, len(rate))
    return counts


def _search(u: Float32, guess: Int16, piece: Segment, classes: Bytes, model: Model, rate: Int32, bits: int) -> Int16:
    """Search one run; the neighbours' contexts come from the fine indices guessed so far."""
    index, sign = classes.astype(np.uint16), None
    if model.levels > 1:
        index, flip = kernels.predict(guess, model, piece)
        sign = 1 - 2 * flip.astype(np.int16)
        u = u * sign.astype(np.float32)
    if bits:
        k = kernels.trellis(u, index, rate.reshape(-1, 2, 256), bits, model.tap0, model.tap1)
    else:
        k = kernels.round_rd(u, index, rate)
    return k if sign is None else k * sign
