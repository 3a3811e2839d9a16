"""Rate-distortion optimised quantisation onto a grid of one step: what `uniform` and `trellis` share.

For weights u in fine steps, choose integers with the least

    sum (u - r)^2 + kappa bits,

where the bits are those of the tables the coder will use: estimated by class from a Gaussian first, then from the
integers of a pass over a sample. That pass uses all states of the trellis: 8 states teach 256 wrongly, which costs 3 %
of the file at 1.5 bits a weight. The reconstruction is refitted, w' = alpha r with alpha = <w, r> / <r, r>, so that w'
is orthogonal to its error (golden rule 1 of Gao et al. 2019).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_counts
from netweight.entropy.layout import CLASSES, UNIT_CLASS, Layout, Levels, segment
from netweight.entropy.stream import LONGEST_RUN, model_of, symmetric
from netweight.entropy.tables import ESCAPE_BITS, ESCAPES
from netweight.kernels import LANES, Float32, Int16, Int32, Model, Segment
from netweight.kernels_counts import learn
from netweight.kernels_lattice import choose

METRIC = 1024  # costs are integers in 2^-10 fine steps squared
LESSON, LESSONS = 1 << 12, 4  # weights of a run on which tables are trained, and how many runs
PRIOR_COUNT = 16.0
MIRROR = (256 - np.arange(256)) % 256  # symbol of -v


@dataclass(frozen=True, slots=True)
class Grid:
    """A quantiser family.

    Attributes:
        bits: log2 of the trellis' states, 0 for plain rounding.
        kappa: price of a bit in fine steps squared.
    """

    bits: int
    kappa: float


@dataclass(frozen=True, slots=True)
class Quantised:
    """Integers and what they cost.

    Attributes:
        k: int16 [n], scan order.
        fine: int16 [n], fine indices.
        counts: int64 [T, 256] of symbols.
    """

    k: Int16
    fine: Int16
    counts: NDArray[np.int64]


@lru_cache(maxsize=8)
def prior(codebooks: int, levels: int) -> NDArray[np.float64]:
    """Probability of each symbol by table for Gaussian weights of the class' scale: [T, 256].

    A Laplacian one favours zero so much that below 1.5 bits a weight the search never leaves it (0.1 bit above R(D)
    lost on Gaussian weights at 1 bit).
    """
    v = np.arange(256) - 128
    out = np.zeros((CLASSES, levels, codebooks, 256))
    for c in range(CLASSES):
        spread = max(2.0 ** ((c - UNIT_CLASS) / 4), 0.4)
        for codebook in range(codebooks):
            fine = np.abs(v) if codebooks == 1 else 2 * np.abs(v) - codebook * (v != 0)
            p = np.exp(-np.square(fine / spread) / 2) + 1e-4
            out[c, :, codebook] = p / p.sum()
    return out.reshape(-1, 256)


@lru_cache(maxsize=8)
def _prior_price(codebooks: int, levels: int, kappa: float) -> Int32:
    return price(prior(codebooks, levels), kappa)


def price(counts: NDArray[np.float64], kappa: float) -> Int32:
    """Rate of each symbol by table in the metric of the search: int32 [T, 256]."""
    p = counts / counts.sum(axis=1, keepdims=True)
    bits = -np.log2(np.maximum(p, 1e-9))
    bits[:, list(ESCAPES)] = ESCAPE_BITS
    rate: Int32 = np.minimum(np.rint(METRIC * kappa * bits), 2.0**24).astype(np.int32)
    return rate


def run_of(levels: Levels) -> int:
    """Log2 of a chunk's symbols: the smallest of 2^18 .. 2^20 that is likely to fill 75 kB."""
    bits = (levels.base - UNIT_CLASS) / 4 + 1
    return 18 if bits >= 2.4 else 19 if bits >= 1.2 else 20


def runs_of(layout: Layout, run: int) -> list[tuple[int, int]]:
    """First symbol and symbols of the runs of a scan, as the coder will cut it."""
    return [(at, min(1 << run, layout.size - at)) for at in range(0, layout.size, 1 << run)]


def pieces(layout: Layout, levels: Levels, run: int) -> Iterator[tuple[slice, Segment]]:
    """The same as places and what the kernels need to know of each."""
    for at, size in runs_of(layout, run):
        yield slice(at, at + size), segment(layout, levels, at, size)


def sample(layout: Layout) -> list[tuple[int, int]]:
    """Runs spread over a scan, about 16,384 weights, on which the tables of the search are trained.

    Where neighbours matter all of it: the second pass guesses their indices from the first.
    """
    if layout.plane or layout.size <= LESSONS * LESSON:
        return runs_of(layout, LONGEST_RUN)
    starts = [int(at) // LANES * LANES for at in np.linspace(0, layout.size - LESSON, LESSONS)]
    return [(at, LESSON) for at in starts]


def quantise(x: Float32, layout: Layout, levels: Levels, step: float, grid: Grid, run: int) -> Quantised:
    """Choose integers for weights in scan order.

    Args:
        x: float32 [n]; |x| / step below 30,000.
        layout: the scan.
        levels: classes, for this step.
        step: fine step.
        grid: which search.
        run: log2 of a chunk's symbols; the trellis starts anew in each.
    """
    model = model_of(grid.bits, layout.plane > 0)
    inverse = np.float32(1.0 / step)
    k = np.zeros(x.size, np.int16)
    fine = np.zeros(x.size, np.int16)
    rate = _prior_price(model.codebooks, model.levels, grid.kappa)
    like = Segment(0, 0, layout.plane, layout.width, layout.positions, grid=levels.grid(layout))
    for lesson, runs in ((True, sample(layout)), (False, runs_of(layout, run))):
        counts = choose(x, inverse, runs, like, model, rate, grid.bits, k, fine)
        if lesson:
            known = prior(model.codebooks, model.levels)
            rate = learn(counts, known, symmetric(model), PRIOR_COUNT, METRIC * grid.kappa, rate)
    if counts[:, list(ESCAPES)].any():
        out = np.flatnonzero((k < -127) | (k > 126))  # escaped: the contexts saw placeholders
        fine[out] = 2 * k[out] - (fine[out] & 1) * np.sign(k[out]) if grid.bits else k[out]
    return Quantised(k, fine, counts)


def code_bits(counts: NDArray[np.int64], model: Model) -> tuple[float, int]:
    """What symbols cost with tables fitted to them, as the coder describes tables, and how many numbers describe them.

    Tables without a prediction are symmetric; escapes cost 28 bits each. A table fitted to few symbols looks better
    than it is by 0.72 bit a number (Miller, Madow 1955); the search that followed the tables makes it as much again.
    """
    ideal, (escaped, tables, numbers) = kernels_counts.code_bits(counts, symmetric(model))
    return ideal + 1.44 * max(numbers - tables, 0) + ESCAPE_BITS * escaped, numbers
