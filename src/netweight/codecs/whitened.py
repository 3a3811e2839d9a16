"""From a water level to what the search works on: steps, classes, targets in steps, feedback between columns."""

from dataclasses import dataclass
from math import log

import numpy as np

from netweight.codecs.lattice import Grid
from netweight.codecs.ridge import Array, Matrix, Target
from netweight.codecs.scales import scales
from netweight.codecs.steps import exponents, factors
from netweight.codecs.successive import Found, Problem
from netweight.entropy.layout import UNIT_CLASS, Layout, Levels

FAR = 15000.0  # fine steps: below it all integers have 16 bits, feedback included
RUN = 20
TABLE_BITS = (60.0, 800.0)  # to describe the tables of one more class, without and with neighbours


def theta_of(step: float, grid: Grid) -> float:
    """Water level at which a bit saves what it costs: d loss / d bits = 2 ln 2 theta = kappa c^2."""
    return grid.kappa * step * step / (2 * log(2))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tensor at a step, ready for the search.

    Attributes:
        problem: targets.
        unit: step of a weight whose levels are 0.
        steps: of rows and of columns in units, the product is a weight's.
    """

    problem: Problem
    unit: float
    steps: tuple[Array, Array]


def prepare(layout: Layout, found: Target, step: float, whole: int) -> Prepared:
    """Choose steps and classes.

    Args:
        layout: scan.
        found: ridge at this step's water level.
        step: c.
        whole: rows of the tensor, of which these may be a sample.
    """
    groups, height, n = found.shrunk.shape
    rows = groups * height
    diagonal = np.diagonal(found.factor, axis1=1, axis2=2)
    logs = np.log2(diagonal)
    table_bits = TABLE_BITS[layout.plane > 0]
    by_column = exponents(logs.mean(axis=0) - logs.mean(), whole, table_bits)
    by_row = None
    if groups > 1:
        by_group = exponents(logs.mean(axis=1) - logs.mean(), height * n, TABLE_BITS[0])
        by_row = None if by_group is None else np.repeat(by_group, height)
    column = np.ones(n) if by_column is None else factors(by_column)
    row = np.ones(rows) if by_row is None else factors(by_row)
    unit = step / 2.0 ** float(logs.mean() + np.log2(column).mean() + np.log2(row).mean())
    size = scales(found.shrunk.reshape(rows, n).astype(np.float32), Layout(rows, n))
    base = UNIT_CLASS + round(4 * (size.log2 - float(np.log2(unit))))
    by_size = [
        None if level is None else exponents(level / 4, weights, table_bits)
        for level, weights in ((size.row, n), (size.column, whole))
    ]
    levels = Levels(max(-127, min(127, base)), by_size[0], by_size[1], by_row, by_column)
    x = (found.shrunk.reshape(rows, n) / (unit * row[:, None] * column)).T
    m = found.factor * column[:, None] / (column * diagonal[:, None, :])
    rho = found.mu[:, None] / np.square(diagonal)
    parts = [np.ascontiguousarray(a, np.float32) for a in (x, m, rho)]
    problem = Problem(parts[0], parts[1], parts[2], layout, levels, RUN)
    return Prepared(problem, unit, (row, column))


def gain(matrix: Matrix, v: Array) -> float:
    """Give the factor alpha with tr(alpha V A (W - alpha V)^T) = 0; 0 where V is 0."""
    through = v @ matrix.a
    square = float(np.sum(through * v))
    return float(np.sum(through * matrix.w)) / square if square > 0 else 0.0


def weights_of(found: Found, ready: Prepared) -> Array:
    """Weights in units of the base step, [O, n]."""
    row, column = ready.steps
    return np.asarray(found.r.T * (row[:, None] * column))
