"""Predict rate and loss of successive quantisation at many steps from some of a matrix's rows.

The rows are quantised as all would be, with the same feedback; their bits and losses are then scaled to the whole by
what the ideal channel (`ridge`) expects of every row. A whitened step of c costs about the same in each row, so a
sample says much of all of them.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.base import Point, index_of, step_of
from netweight.codecs.lattice import Grid, code_bits
from netweight.codecs.matrix import Array, Matrix
from netweight.codecs.probe import ALIVE, CHUNK_BITS, ENTRY_BITS, POOLED, TABLE_NUMBER_BITS
from netweight.codecs.ridge import Spectrum, Target
from netweight.codecs.successive import FEW, SURVIVORS, first_rates, learnt_rates, quantise, spread
from netweight.codecs.whitened import FAR, gain, prepare, theta_of, weights_of
from netweight.entropy.layout import Levels
from netweight.entropy.stream import model_of
from netweight.importance.stat import largest_of

ROWS = 64
# Loss that a trellis adds by starting each column in a given state, in columns of one row: it has no choice at first.
# 3.7 to 4.0 on Gaussian and on MiniLM's matrices of 64 to 1536 rows from a bit a weight on, none below half a bit.
START_ROWS = 3.9
# Fine steps in the root mean square of a whitened weight, in quarters of an octave. What `chain` makes of the steps in
# between is within 0.015 bit of a point of their own from half a bit to four bits a weight.
CLASSES = (-5, -1, 3, 9, 16, 22, 28)
COARSER = (-9, -12, -15, -18, -22, -26, -30)  # as long as the coarsest step tried takes SPARSE bits a weight
SPARSE = 0.1
# Rows that save each other so many bits: at rates below what they save a sample of them says too little. LeNet-5's
# widest layer (0.75) at 0.07 bits of a sample has 0.20, and five times the loss. MiniLM: 0.0 to 0.7, four layers more.
BOUND_BITS = 0.7
CLOSER = tuple(range(-7, -31, -2))  # in place of COARSER: there loss may fall by half from one quarter to the next
APART = 2.0  # losses of two of them between which one more is tried
UNSEEN = 1e-4  # of the mean of G's diagonal: rows and directions that count for less are as if they counted for that


def preview(codec: str, matrix: Matrix, grid: Grid) -> list[Point]:
    """Points of all steps worth trying, the coarsest first.

    Args:
        codec: id, for the points.
        matrix: weights and moments.
        grid: the quantiser.
    """
    spectrum = Spectrum.of(matrix)
    whole = 0.5 * matrix.inner(matrix.w, matrix.w)[0]
    energy = spectrum.size * matrix.w.shape[2] * (1.0 if matrix.g is None else matrix.g)
    if whole <= 0:
        return []
    points = [Point(ENTRY_BITS, whole, codec, index_of(64 * float(np.sqrt(energy.max()))))]
    rows = _sample(energy, matrix)
    middle, saved_bits = _middle(spectrum), 0.0 if rows is None else _saved_bits(spectrum)
    bound_bits = saved_bits * matrix.w.size if saved_bits > BOUND_BITS else 0.0

    def tried(c: int, some: NDArray[np.intp] | None) -> list[Point]:
        point = _at(codec, index_of(middle * 2.0 ** (-c / 4)), spectrum, some, grid)
        return [] if point is None or point.loss >= whole else [point]

    for c in CLASSES:
        found = tried(c, rows)
        points += tried(c, None) if found and found[0].bits < bound_bits else found
    for c in CLOSER if bound_bits else COARSER:
        if min((point.bits for point in points[1:]), default=0.0) < SPARSE * matrix.w.size:
            break
        found = tried(c, None if bound_bits else rows)
        before = max(point.loss for point in points[1:])
        between = bound_bits and found and found[0].loss > APART * before
        points += found + (tried(c + 1, None) if between else [])
    return points


def _middle(spectrum: Spectrum) -> float:
    """Geometric mean over the directions that count of the root mean square of a whitened weight."""
    _, height, n = spectrum.matrix.w.shape
    size = spectrum.energy.sum(axis=(1, 2))[:, None] / (height * n) * spectrum.values
    logs = [float(np.mean(np.log(part[part > 1e-4 * part.max()]))) for part in (size, spectrum.weights)]
    return float(np.exp(0.5 * sum(logs)))


def _saved_bits(spectrum: Spectrum) -> float:
    """Bits that feedback down the rows saves each: 1/2 log2 of geometric means, G's diagonal over its eigenvalues."""
    if spectrum.matrix.full is None:
        return 0.0
    sides = (np.diagonal(spectrum.matrix.full), spectrum.weights)
    diagonal, values = (float(np.mean(np.log2(np.maximum(side, UNSEEN)))) for side in sides)
    return 0.5 * (diagonal - values)


def _sample(energy: Array, matrix: Matrix) -> NDArray[np.intp] | None:
    """Rows of every energy, where all rows meet the same inputs and there are enough; else None, all of them."""
    groups, height, n = matrix.w.shape
    if groups > 1:
        return None
    places = spread(height, matrix.layout.columns, max(ROWS, (1 << (14 if matrix.g is None else 15)) // n))
    return None if places.size == height else np.sort(np.argsort(energy[0], kind="stable")[places])


def _at(codec: str, q: int, spectrum: Spectrum, rows: NDArray[np.intp] | None, grid: Grid) -> Point | None:
    """Quantise the sample at one step; None where the step is too fine."""
    matrix, step = spectrum.matrix, step_of(q)
    theta = theta_of(step, grid)
    layout = matrix.layout if rows is None else replace(matrix.layout, rows=rows.size)
    target, some = spectrum.target(theta, rows), matrix if rows is None else matrix.of_rows(rows)
    share = 1.0 if rows is None else spectrum.expected_sum(theta)
    if rows is not None and matrix.full is not None:
        share /= spectrum.expected_apart(theta, target, rows)
        target, some = _apart(spectrum, target, some, theta, rows)
    elif rows is not None:
        share /= float(spectrum.expected(theta, rows).sum())
    problem = prepare(layout, target, step, rows)
    if largest_of(problem.x) >= FAR:
        return None
    rates = first_rates(grid, problem.layout)
    tried = replace(problem, x=problem.x.copy())
    counts = quantise(tried, grid, rates, FEW, matrix.machine).counts(problem)
    del tried
    found = quantise(problem, grid, learnt_rates(counts, grid, problem.layout), SURVIVORS, matrix.machine)
    counts = found.counts(problem)
    v = weights_of(found, problem).reshape(some.w.shape)
    error = some.w.astype(np.float64) - gain(some, v) * v
    loss = 0.5 * share * some.inner(error, error)[0]
    grown = matrix.w.size / some.w.size
    more = grown
    if rows is not None and matrix.g is not None and matrix.full is None:
        bits_of = spectrum.rates(theta)
        sampled = float(bits_of[:, rows].sum())
        more = float(bits_of.sum()) / sampled if sampled > 0 else grown  # all of it may be below the water
    if grid.bits:
        begun = START_ROWS * min(max(2.5 * _rate(counts) - 1.5, 0.0), 1.0)
        loss *= (1 + begun / matrix.layout.rows) / (1 + begun / problem.layout.rows)
    entropy, numbers = code_bits(counts, model_of(grid.bits, problem.layout.plane > 0))
    bits = entropy * more + _overhead_bits(problem.levels, matrix.w.size, grown, numbers, entropy * more)
    alive = bool(np.count_nonzero(found.r) > ALIVE * found.r.size)
    return Point(bits, loss, codec, q, smooth=alive)


def _apart(
    spectrum: Spectrum, target: Target, some: Matrix, theta: float, rows: NDArray[np.intp]
) -> tuple[Target, Matrix]:
    """Rows that are quantised without those above them, with noise in place of what these would leave.

    Each is measured by V_ii^2, which is what its own noise costs once the rows below have made up for what they can.
    """
    square = np.square(target.rows)[:, rows]
    apart = replace(some, g=square)
    if target.more is None:
        return target, apart
    noise = spectrum.noise(target, rows.size)
    noise *= np.sqrt(theta * target.more[rows] / square)[:, :, None]
    return replace(target, shrunk=target.shrunk + noise, down=None), replace(apart, w=apart.w + noise)


def _rate(counts: NDArray[np.int64]) -> float:
    """Entropy of a symbol in its table."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(np.sum(counts * np.log2(totals / np.maximum(counts, 1)))) / max(1, int(counts.sum()))


def _overhead_bits(levels: Levels, size: int, grown: float, numbers: int, payload_bits: float) -> float:
    """What a tensor pays besides its symbols: levels, tables, chunks, header."""
    bits = ENTRY_BITS + TABLE_NUMBER_BITS * numbers
    for level, factor in zip(
        (levels.row, levels.column, levels.row_step, levels.column_step), (grown, 1.0, grown, 1.0), strict=True
    ):
        if level is not None:
            _, counts = np.unique(level, return_counts=True)
            bits += factor * float(np.sum(counts * np.log2(level.size / counts))) + 4 * counts.size
    share = min(1.0, size / POOLED)
    return bits + CHUNK_BITS * max(share, payload_bits / 8 / 200e3 if size > POOLED else 0.0)
