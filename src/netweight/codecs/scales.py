"""How large the weights of a tensor are by row and column: levels in quarters of an octave, where they pay.

A level tells the coder which table to use, so it costs no serial dependence. What it costs in bytes is weighed here:
with m weights a step of s octaves loses m (s ln 2)^2 / 12 log2(e) bits for each row and one bit less is written each
time s doubles, so the best s is about sqrt(12.5 / m): a quarter from some hundred weights on, a whole octave for the
nine of a depth-wise kernel.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netweight.checkpoint.pages import give_back
from netweight.entropy.layout import UNIT_CLASS, Layout, Levels
from netweight.importance.stat import largest_of
from netweight.kernels import Float32, Int16

QUARTERS = 4
REACH = 60  # furthest level from the base, in quarters of an octave
DEAD = 6  # octaves below the whole from which on a row has no say in the scale of the tensor: pruned, or all but zero
BLOCK = 1 << 18
LEAST = 2.0**-120  # mean square of a row below which it has no say in the columns: its inverse must be a float32
PLAIN = 2.0**40  # a largest weight beyond this or its inverse: squares of float32 may overflow or vanish

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scales:
    """Log2 of the scale of a tensor's rows and columns, independent of any step.

    Attributes:
        log2: of the tensor, the mean over its rows that are alive.
        row: int16 [O] levels or None.
        column: int16 [I] levels or None.
    """

    log2: float
    row: Int16 | None
    column: Int16 | None

    def levels(self, step: float) -> Levels:
        """Levels in classes of this step: class 8 is a scale of one step."""
        base = UNIT_CLASS + round(QUARTERS * (self.log2 - float(np.log2(step))))
        return Levels(max(-127, min(127, base)), self.row, self.column)

    def part(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> "Scales":
        """Scales of a selection of rows and columns."""
        return Scales(
            self.log2,
            None if self.row is None else self.row[rows],
            None if self.column is None else self.column[columns],
        )


def energies(w: Float32, layout: Layout) -> tuple[Float64, Float64]:
    """Mean square of each row, and of each column after the rows are scaled to one.

    Block by block in a fixed order, without a matrix product: the same sums on one thread and on four.
    """
    cube = w.reshape(layout.rows, layout.columns, layout.positions)
    row = np.zeros(layout.rows)
    column = np.zeros(layout.columns)
    height = max(1, BLOCK // max(1, layout.columns * layout.positions))
    for at in range(0, layout.rows, height):
        square = np.square(np.ascontiguousarray(cube[at : at + height]), dtype=np.float32)
        mean = square.mean(axis=(1, 2), dtype=np.float64)
        row[at : at + height] = mean
        inverse = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > LEAST).astype(np.float32)
        square *= inverse[:, None, None]
        column += square.sum(axis=0).mean(axis=1, dtype=np.float64)
        give_back(cube[at : at + height])
    return row, column / max(1, int(np.count_nonzero(row > LEAST)))


def scales(w: Float32, layout: Layout) -> Scales:
    """Fit levels to a tensor and keep those that pay for themselves."""
    largest = largest_of(w)
    if largest and not 1 / PLAIN < largest < PLAIN:
        octaves = int(np.frexp(largest)[1])
        found = scales(np.ldexp(w, -octaves), layout)
        return replace(found, log2=found.log2 + octaves)
    row, column = energies(w, layout)
    mean = float(row.mean()) if row.size else 0.0
    if mean <= 0:
        return Scales(-1000.0, None, None)
    per_row, per_column = layout.columns * layout.positions, layout.rows * layout.positions
    floor = mean * 2.0 ** (-REACH / 2)
    logs = 0.5 * np.log2(np.maximum(row, floor))
    centre = float(logs[row > mean * 4.0**-DEAD].mean())
    by_row = _levels(logs, centre, 0.5 * float(np.log2(mean)), per_row) if layout.rows > 1 else None
    if by_row is None:
        centre = 0.5 * float(np.log2(mean))
    by_column = None
    if layout.rows > 1 and layout.columns > 1:
        log_columns = 0.5 * np.log2(np.maximum(column, 2.0 ** (-REACH / 2)))
        by_column = _levels(log_columns, 0.0, 0.5 * float(np.log2(max(column.mean(), 1e-30))), per_column)
    return Scales(centre, by_row, by_column)


def _levels(logs: Float64, centre: float, whole: float, samples: int) -> Int16 | None:
    """Round log scales to levels; None where one scale for all costs less.

    Args:
        logs: log2 scale of each row.
        centre: of the levels.
        whole: log2 scale of everything together: what the rows would be coded with.
        samples: weights of each row.
    """
    step = 1 if samples >= 100 else 2 if samples >= 25 else 4
    level = (np.rint(QUARTERS * (logs - centre) / step) * step).clip(-REACH, REACH).astype(np.int16)
    coded = centre + level / QUARTERS
    # Code length of m Gaussian weights of scale 2^x coded with scale 2^y, less that with x:
    # m (y - x + (4^(x - y) - 1) / (2 ln 2)).
    excess = samples * float(np.sum(coded - logs + (4.0 ** (logs - coded) - 1) / (2 * np.log(2))))
    plain = samples * float(np.sum(whole - logs + (4.0 ** (logs - whole) - 1) / (2 * np.log(2))))
    _, counts = np.unique(level, return_counts=True)
    cost = float(np.sum(counts * np.log2(level.size / counts))) + 8 * counts.size + 0.72 * level.size
    return level if plain - excess > cost else None
