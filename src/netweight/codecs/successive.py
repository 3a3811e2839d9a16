"""Successive quantisation: columns one after the other, what they leave is taken off the targets that follow.

With the targets x of a column in its own fine steps, the integers of a column have the least

    sum (x - r)^2 - rho (r^2 - x^2) + kappa bits,   rho_ij = lambda / (V_ii U_jj)^2,

since the ridge has paid a quadratic part of the rate already; but not with more than a half, since a Kronecker product
may be far below that ridge in some entries, and large errors there would be taken for gains. The trellis runs down the
columns: a path is searched through each, from the state that the column before left to any. Where the outputs of the
rows are correlated (V is no diagonal), the target of a row also takes in what the rows above have left, V_ij / V_jj of
it; a path then has targets of its own, and the cheapest `SURVIVORS` are followed in place of all states.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.codecs.lattice import MIRROR, PRIOR_COUNT, Grid, price, prior
from netweight.codecs.machine import HOST, Machine
from netweight.entropy.layout import CLASSES, Layout, Levels, segment
from netweight.entropy.stream import model_of, symmetric, table_count
from netweight.entropy.trellis import TAPS
from netweight.kernels import Bytes, Float32, Int16, Int32, Model
from netweight.kernels_feedback import Successive

BLOCK = 32  # columns between two updates of all that follow
# Paths of a column that are kept where its rows see each other. Against a search over all states that looks at what the
# best path leaves, row by row (0.8 bit worse on attention layers), each path has its own past. On MiniLM's queries and
# values at 2 bits 8 paths lose 0.05 bit to 64, 16 lose 0.02, 32 lose 0.01; the time is proportional to their number.
SURVIVORS, FEW = 32, 4
CENTRE = 128
PART = 1 << 16


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be quantised.

    Attributes:
        x: float32 [n, O], targets in fine steps of their weight, before any feedback.
        m: float32 [groups, n, n]: what an error of one fine step takes off each later column.
        rho: float32 [groups, n], the share of the rate that the ridge has paid; times `tilt`, at most a half.
        tilt: float32 [O].
        layout: scan.
        levels: classes and steps.
        run: log2 of the symbols of a piece.
        down: float32 [O, O]: what an error of one fine step of a row adds to the targets of rows below it, or None.
    """

    x: Float32
    m: Float32
    rho: Float32
    tilt: Float32
    layout: Layout
    levels: Levels
    run: int
    down: Float32 | None = None

    def of_rows(self, rows: NDArray[np.intp]) -> "Problem":
        """Keep some rows of a problem of one group that do not see each other, as a matrix of its own."""
        levels = replace(
            self.levels,
            row=None if self.levels.row is None else self.levels.row[rows],
            row_step=None if self.levels.row_step is None else self.levels.row_step[rows],
        )
        x = np.ascontiguousarray(self.x[:, rows])
        down = None if self.down is None else np.ascontiguousarray(self.down[np.ix_(rows, rows)])
        return replace(
            self, x=x, tilt=self.tilt[rows], down=down, layout=replace(self.layout, rows=rows.size), levels=levels
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Integers and what they cost.

    Attributes:
        r: int16 [n, O], fine indices.
        grid: of the search.
    """

    r: Int16
    grid: Grid

    def integers(self, layout: Layout) -> Int16:
        """Give the integers behind the fine indices in scan order."""
        k = scanned(self.r, layout)
        if self.grid.bits:  # |r| = 2 |k| - c, by blocks
            for at in range(0, k.size, PART):
                part = k[at : at + PART]
                part[:] = np.sign(part) * (np.abs(part) + 1 >> 1)
        return k

    def counts(self, problem: "Problem") -> NDArray[np.int64]:
        """Count the symbols by table: int64 [T, 256]."""
        return _counts(self.integers(problem.layout), problem, model_of(self.grid.bits, problem.layout.plane > 0))


def first_rates(grid: Grid, layout: Layout) -> Int32:
    """Rates before anything was coded: Gaussian weights of the scale of their class."""
    model = model_of(grid.bits, layout.plane > 0)
    return price(prior(model.codebooks, model.levels) * PRIOR_COUNT, grid.kappa)


def learnt_rates(counts: NDArray[np.int64], grid: Grid, layout: Layout) -> Int32:
    """Rates by the tables that fit symbols already chosen."""
    model = model_of(grid.bits, layout.plane > 0)
    learnt = counts + prior(model.codebooks, model.levels) * PRIOR_COUNT
    same = symmetric(model)
    learnt[same] += learnt[same][:, MIRROR]
    return price(learnt, grid.kappa)


def quantise(problem: Problem, grid: Grid, rate: Int32, survivors: int = SURVIVORS, machine: Machine = HOST) -> Found:
    """Choose all integers, block of columns by block of columns; the problem's x is overwritten.

    Args:
        problem: targets and feedback.
        grid: which search.
        rate: int32 [T, 256], in its metric.
        survivors: paths of a column that are kept where its rows see each other.
        machine: where.
    """
    layout = problem.layout
    n, rows = problem.x.shape
    model = model_of(grid.bits, layout.plane > 0)
    span, piece = rows * layout.columns // kernels.LANES, (1 << problem.run) // kernels.LANES
    how = Successive(rows, n, len(problem.m), layout.columns, survivors=survivors)
    if grid.bits:
        how = replace(how, span=span, run=piece, bits=grid.bits, tap0=TAPS[grid.bits][0], tap1=TAPS[grid.bits][1])
    classes = problem.levels.sums(layout)
    r = np.empty((n, rows), np.int16)
    tables = rate.reshape(-1, model.codebooks, 256)
    work = machine.columns(problem.x, problem.m, problem.down, (problem.rho, problem.tilt), how, tables)
    for plane in range(layout.positions):
        for at in range(plane * layout.columns, (plane + 1) * layout.columns, BLOCK):
            part = range(at, min(at + BLOCK, (plane + 1) * layout.columns))
            context = _contexts(r, classes, part, model, problem)
            r[part.start : part.stop] = work.quantise(part, context)
    return Found(r, grid)


def _contexts(
    r: Int16, classes: tuple[Int16, Int16], part: range, model: Model, problem: Problem
) -> tuple[NDArray[np.uint16], Bytes]:
    """Table / Z and sign flip of some columns of a kernel position, from the positions before."""
    row, column = classes
    index = np.clip(column[part.start : part.stop, None] + row, 0, CLASSES - 1)
    if model.levels == 1:
        return index.astype(np.uint16), np.zeros(index.shape, np.uint8)
    layout = problem.layout
    y, x = divmod(part.start // layout.columns, layout.width)
    g = np.zeros(index.shape, np.int32)
    for there, back, factor in ((x > 0, 1, 2), (y > 0, layout.width, 2), (x > 0 and y > 0, layout.width + 1, -1)):
        if there:
            first = part.start - back * layout.columns
            near = _as_coded(r[first : first + len(part)], model)
            g += factor * np.where(_inside(part, back, problem), near, 0)
    reached: NDArray[np.intp] = (np.abs(g)[:, :, None] >= model.thresholds[index]).sum(axis=2)
    return (index * model.levels + reached).astype(np.uint16), (g < 0).astype(np.uint8)


def _as_coded(r: Int16, model: Model) -> Int32:
    """Fine indices as the tables give them: escapes are placeholders."""
    fine = r.astype(np.int32)
    book = fine & 1 if model.codebooks == 2 else np.zeros_like(fine)
    k = (fine + book * np.sign(fine)) // 2 if model.codebooks == 2 else fine
    out = (k < 1 - CENTRE) | (k > CENTRE - 2)
    if not out.any():
        return fine
    v = np.where(k & 1, CENTRE - 1, -CENTRE)
    held: Int32 = np.where(out, 2 * v - book * np.sign(v) if model.codebooks == 2 else v, fine).astype(np.int32)
    return held


def _inside(part: range, back: int, problem: Problem) -> NDArray[np.bool_]:
    """Which neighbours so many kernel positions back lie in the same piece: [columns, O]."""
    layout = problem.layout
    if layout.size <= 1 << problem.run:
        return np.ones((1, 1), np.bool_)
    span = layout.plane // layout.lanes
    number = np.arange(part.start * layout.rows, part.stop * layout.rows).reshape(len(part), -1)
    plane, q = number // layout.plane, number % layout.plane
    scan = plane * layout.plane + q % span * layout.lanes + q // span
    inside: NDArray[np.bool_] = scan % (1 << problem.run) >= back * layout.plane
    return inside


def scanned(values: Int16, layout: Layout) -> Int16:
    """[n, O] to scan order, always a copy."""
    return values.reshape(layout.positions, layout.lanes, -1).transpose(0, 2, 1).flatten()


def _counts(flat: Int16, problem: Problem, model: Model) -> NDArray[np.int64]:
    counts = np.zeros((table_count(model), 256), np.int64)
    for at in range(0, flat.size, 1 << problem.run):
        some = flat[at : at + (1 << problem.run)]
        symbol, index, _ = kernels.contexts(some, model, segment(problem.layout, problem.levels, at, some.size))
        counts += kernels.histogram(symbol, index, table_count(model))
    return counts


def spread(rows: int, columns: int, most: int) -> NDArray[np.intp]:
    """Give so many rows spread over all, whose columns can be dealt to lanes if those of all can."""
    count = min(rows, max(kernels.LANES, most))
    if count < rows and columns % kernels.LANES:
        count = min(rows, -(-count // kernels.LANES) * kernels.LANES)
    return np.linspace(0, rows - 1, count).astype(np.intp)
