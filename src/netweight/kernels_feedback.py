"""Successive quantisation column by column, and its scan, in C where it was built, and in NumPy: the same integers."""

import ctypes
from dataclasses import dataclass, field

import numpy as np

from netweight import kernels_numpy_feedback
from netweight.clibrary import LIBRARY, CSuccessive, call
from netweight.kernel_types import LANES, Bytes, Float32, Int16, Int32, Uint16


@dataclass(frozen=True, slots=True)
class Successive:
    """How a matrix is quantised column by column.

    Attributes:
        rows: O.
        columns: n, of all kernel positions, in scan order.
        groups: so many blocks of consecutive rows have a feedback matrix of their own.
        per_plane: columns of a kernel position.
        span: symbols of a lane in a kernel position; 0 without a trellis.
        run: symbols of a lane in a piece.
        bits: log2 of the trellis' states, 0 without.
        tap0: as in `Model`.
        tap1: as in `Model`.
        survivors: paths kept where the rows of a column see each other, 64 at most.
    """

    rows: int
    columns: int
    groups: int
    per_plane: int
    span: int = 0
    run: int = 1
    bits: int = 0
    tap0: int = 0
    tap1: int = 0
    survivors: int = 1


def feedback(
    x: Float32, m: Float32, down: Float32 | None, paid: tuple[Float32, Float32], how: Successive,
    columns: range, contexts: tuple[Uint16, Bytes], rate: Int32, state: Bytes, fed: Float32 | None = None,
) -> Int16:  # fmt: skip
    """Quantise columns of one kernel position, given what those before them left.

    The target y of a column is its x, less m[g, i, this] (r - x of i) for each column i before it, in their order. Its
    integers have the least sum of 2^10 ((y - r)^2 - rho (r^2 - y^2)) + rate, rho = min(1/2, paid).

    Args:
        x: [n, O], targets in fine steps of their column, before any feedback; of columns that are done what they have
            left, r - x: these are overwritten with it.
        m: [groups, n, n].
        down: [O, O]: what an error of one fine step of a row adds to the target of each row below it in its column.
        paid: [groups, n] and [O], whose product is the share of the rate that the ridge has paid.
        how: shapes and trellis.
        columns: which.
        contexts: table / Z and whether the sign is coded flipped, both [columns, O].
        rate: int32 [T, Z, 256].
        state: uint8 [32], of each lane's trellis; changed in place.
        fed: [columns, O], the targets of these columns where they are known already.

    Returns:
        Fine indices r, int16 [columns, O].
    """
    index, flip = (np.ascontiguousarray(a, t) for a, t in zip(contexts, (np.uint16, np.uint8), strict=True))
    if LIBRARY is None:
        return kernels_numpy_feedback.feedback(x, m, down, paid, how, columns, (index, flip), rate, state, fed)
    r = np.empty(index.shape, np.int16)
    fed = None if fed is None else np.ascontiguousarray(fed, np.float32)
    fields = (
        how.rows,
        how.columns,
        how.groups,
        how.span,
        how.per_plane,
        how.run,
        how.bits,
        how.tap0,
        how.tap1,
        how.survivors,
    )
    packed = CSuccessive(*fields)
    rate = np.ascontiguousarray(rate, np.int32)
    if call(
        "nw_feedback",
        x,
        fed,
        m,
        down,
        *paid,
        ctypes.byref(packed),
        columns.start,
        columns.stop,
        index,
        flip,
        rate,
        state,
        r,
    ):
        raise MemoryError(f"no memory for a trellis of {1 << how.bits} states over {how.rows} weights")
    return r


@dataclass(frozen=True, slots=True)
class Columns:
    """A matrix on its way through `feedback`, whose arguments these are; x is overwritten."""

    x: Float32
    m: Float32
    down: Float32 | None
    paid: tuple[Float32, Float32]
    how: Successive
    rate: Int32
    state: Bytes = field(default_factory=lambda: np.zeros(LANES, np.uint8))

    def quantise(self, columns: range, contexts: tuple[Uint16, Bytes], fed: Float32 | None = None) -> Int16:
        """Choose the integers of columns of one kernel position, in order: fine indices [columns, O]."""
        return feedback(self.x, self.m, self.down, self.paid, self.how, columns, contexts, self.rate, self.state, fed)


def dealt_classes(row: Int16, column: Int16, columns: int, lanes: int, start: int, size: int, top: int) -> Bytes:
    """Class of positions start .. start + size of the scan "kio": clamp(row + column level, 0, top), uint8 [size].

    Args:
        row: int16 [O].
        column: int16 [K I], one for each column of each kernel position.
        columns: I.
        lanes: to which a kernel position's O I symbols are dealt.
        start: first position.
        size: how many.
        top: largest class.
    """
    if LIBRARY is None or not size:
        return kernels_numpy_feedback.dealt_classes(row, column, columns, lanes, start, size, top)
    row, column = np.ascontiguousarray(row, np.int16), np.ascontiguousarray(column, np.int16)
    out = np.empty(size, np.uint8)
    call("nw_dealt_classes", row, column, row.size, columns, lanes, start, size, top, out)
    return out
