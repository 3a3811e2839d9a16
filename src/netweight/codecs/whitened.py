"""From a water level to what the search works on: steps, classes, targets in steps, feedback between columns."""

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.lattice import Grid
from netweight.codecs.matrix import Array, Matrix, blocks
from netweight.codecs.ridge import FEW_ROWS, Target
from netweight.codecs.scales import scales
from netweight.codecs.steps import exponents, factors
from netweight.codecs.successive import Found, Problem
from netweight.entropy.layout import UNIT_CLASS, Layout, Levels
from netweight.importance.stat import largest_of
from netweight.kernels import Float32, Int16

FAR = 15000.0  # fine steps: below it all integers have 16 bits, feedback included
RUN = 20
DEAD = 0.01  # mean square of a row in steps below which all of it becomes zero, at any step
TABLE_BITS = (60.0, 800.0)  # to describe the tables of one more class, without and with neighbours


def theta_of(step: float, grid: Grid) -> float:
    """Water level at which a bit saves what it costs: d loss / d bits = 2 ln 2 theta = kappa c^2."""
    return grid.kappa * step * step / (2 * log(2))


def prepare(layout: Layout, found: Target, step: float, rows: NDArray[np.intp] | None = None) -> Problem:
    """Choose steps and classes.

    Args:
        layout: scan of the rows that are quantised.
        found: ridge at this step's water level; what it would shrink to becomes the targets in place.
        step: c.
        rows: those of the one group that are quantised, if not all.
    """
    n = found.shrunk.shape[2]
    groups, height = found.rows.shape
    diagonal = np.diagonal(found.factor, axis1=1, axis2=2).astype(np.float64)
    logs = np.log2(diagonal)
    table_bits = TABLE_BITS[layout.plane > 0]
    by_column = exponents(logs.mean(axis=0) - logs.mean(), groups * height, table_bits)
    fine = np.log2(found.rows) + logs.mean(axis=1, keepdims=True)
    alive = found.size > DEAD * step * step
    middle = float(fine[alive].mean() if alive.any() else fine.mean())
    ideal = np.where(alive, fine - middle, 0.0).reshape(-1)
    by_row = exponents(ideal, n, table_bits) if ideal.any() else None
    if by_row is not None:
        middle += float(np.log2(factors(by_row))[alive.reshape(-1)].mean())
        by_row = by_row if rows is None else by_row[rows]
    count, whole = layout.rows, groups * height
    if _reach(found, step, middle, by_row, by_column) >= FAR * (1 - 1e-6):  # to be told apart in single precision
        largest = _largest(found, step, middle, by_row, by_column)
        by_column = _coarser(by_column, largest) if largest.max() >= FAR else by_column
    column = np.ones(n) if by_column is None else factors(by_column)
    size = scales(found.shrunk.reshape(count, n).astype(np.float32, copy=False), Layout(count, n))
    unit, x = _targets(found, step, middle, by_row, by_column)
    base = UNIT_CLASS + round(4 * (size.log2 - float(np.log2(unit))))
    by_size = [
        None if level is None else exponents(level / 4, weights, table_bits)
        for level, weights in ((size.row, n), (size.column, whole))
    ]
    levels = Levels(max(-127, min(127, base)), by_size[0], by_size[1], by_row, by_column)
    m = np.empty(found.factor.shape, np.float32)
    for at in range(0, n, FEW_ROWS):
        part = slice(at, at + FEW_ROWS)
        m[:, part] = found.factor[:, part] * column[part, None] / (column * diagonal[:, None, :])
    rho = found.mu[:, None] / np.square(diagonal)
    tilt = 1 / np.square(found.rows.reshape(whole)[slice(None) if rows is None else rows])
    parts = [np.ascontiguousarray(a, np.float32) for a in (x, m, rho, tilt)]
    down = None
    if found.down is not None:
        own = np.ones(count) if by_row is None else factors(by_row)
        down = np.ascontiguousarray(np.triu(found.down * own[:, None] / (own * np.diagonal(found.down)), 1), np.float32)
    return Problem(parts[0], parts[1], parts[2], parts[3], layout, levels, RUN, down)


def _unit(step: float, middle: float, column: Int16 | None) -> float:
    """Unit of the steps; in the middle row the whitened step is c in the mean."""
    return float(step / 2.0 ** (middle + (0.0 if column is None else float(np.log2(factors(column)).mean()))))


def _targets(
    found: Target, step: float, middle: float, row: Int16 | None, column: Int16 | None
) -> tuple[float, Float32]:
    """Unit of the steps, and the targets in steps, [n, O], where what the ridge shrinks to was."""
    unit = _unit(step, middle, column)
    x = found.shrunk.reshape(-1, found.shrunk.shape[2]).T
    for part in blocks((1, *x.T.shape)):
        x[:, part] /= (unit * steps_of(row, column, part)).T
    return unit, x


def _reach(found: Target, step: float, middle: float, row: Int16 | None, column: Int16 | None) -> float:
    """Magnitude in steps that no target exceeds."""
    groups, rows, n = found.shrunk.shape
    finest = min(float(steps_of(row, column, part).min()) for part in blocks((1, groups * rows, n)))
    return largest_of(found.shrunk) / (_unit(step, middle, column) * finest)


def _largest(found: Target, step: float, middle: float, row: Int16 | None, column: Int16 | None) -> Array:
    """Largest magnitude of each column's targets, in steps."""
    unit, w = _unit(step, middle, column), found.shrunk.reshape(-1, found.shrunk.shape[2])
    largest = np.zeros(w.shape[1], np.float32)
    for part in blocks((1, *w.shape)):
        x = (w[part] / (unit * steps_of(row, column, part))).astype(np.float32)
        largest = np.maximum(largest, np.maximum(x.max(axis=0), -x.min(axis=0)))
    return largest.astype(np.float64)


def _coarser(by_column: Int16 | None, largest: Array) -> Int16:
    """Steps for columns with targets out of reach: an input with most of the energy asks for more than 16 bits.

    It gets noise above the water level, in one direction of many.
    """
    octaves = np.log2(np.maximum(largest, 1.0) / FAR)
    lower = np.where(octaves >= 0, np.ceil(4 * octaves) + 1, 0).astype(np.int16)
    level = -lower if by_column is None else by_column - lower
    return np.maximum(level, -127).astype(np.int16)


def steps_of(row: Int16 | None, column: Int16 | None, rows: slice) -> Array:
    """Steps of some rows as the decoder has them: the table's entry of both levels is not the product of two entries.

    [rows, n], or [1, n] or [rows, 1] where all rows or all columns have the same.
    """
    if row is None or column is None:
        one = np.ones(1) if row is None else factors(row[rows])
        return np.asarray(one[:, None] * (1.0 if column is None else factors(column)))
    low = int(row.min()) + int(column.min())
    table = factors(np.arange(low, int(row.max()) + int(column.max()) + 1, dtype=np.int16))
    return np.asarray(table[row[rows, None].astype(np.intp) + column - low])


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights in units of the base step, [1, O, n], which are made when some are asked for."""

    found: Found
    levels: Levels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, O, n)."""
        n, rows = self.found.r.shape
        return 1, rows, n

    def __getitem__(self, which: tuple[slice, slice]) -> Float32:
        """Give those of some rows, float32 [1, some, n]."""
        part = slice(*which[1].indices(self.shape[1]))
        steps = steps_of(self.levels.row_step, self.levels.column_step, part)
        return np.multiply(self.found.r[:, part].T, steps).astype(np.float32)[None]


def gain(matrix: Matrix, v: NDArray[np.floating] | Weights) -> float:
    """Give the factor alpha with tr(G alpha V A (W - alpha V)^T) = 0; 0 where V is 0."""
    square, cross = matrix.inner(v, v, matrix.w)
    return cross / square if square > 0 else 0.0


def weights_of(found: Found, problem: Problem) -> Float32:
    """Weights in units of the base step, [O, n]."""
    v = np.empty(found.r.shape[::-1], np.float32)
    for part in blocks((1, *v.shape)):
        v[part] = Weights(found, problem.levels)[:, part][0]
    return v
