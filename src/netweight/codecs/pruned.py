"""Which weights of a tensor are kept, and how large they are in whole steps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.intervals import Float64, Weights
from netweight.kernels import Float32, Int16, Int32

HIGHEST = 1 << 22  # level; the weights that are so far out are clipped

Bools = NDArray[np.bool_]


def largest(score: NDArray[np.floating], count: int) -> Bools:
    """The `count` largest, of equal ones the first: bool [n].

    >>> largest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([False,  True,  True, False])
    """
    kept = np.zeros(score.size, bool)
    if count >= score.size:
        kept[:] = True
    elif count > 0:
        border = np.partition(score, score.size - count)[score.size - count]
        kept = score > border
        kept[np.flatnonzero(score == border)[: count - int(kept.sum())]] = True
    return kept


def zigzag(level: NDArray[np.intp]) -> Int32:
    """0, 1, -1, 2 .. for 0, 1, 2, 3 ..: tables have f(v) = f(-v), and neighbours are nearly as frequent."""
    return np.where(level & 1, level + 1 >> 1, -(level >> 1)).astype(np.int32)


def costs_of(weights: Weights) -> Float64:
    """What each weight would cost if it were pruned: I w^2 + Q w^4."""
    square = np.square(weights.w, dtype=np.float64)
    cost: Float64 = square
    if weights.importance is not None:
        cost = square * weights.importance.astype(np.float64)
    return cost if weights.quartic is None else cost + square * square * weights.quartic.astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """A tensor, flat, of which some weights are kept.

    Attributes:
        kept: bool [n].
        level: of the magnitude of each that is kept.
        low: magnitude of level 0.
        step: between two levels.
        loss: sum of I e^2 + Q e^4 over those that are kept.
    """

    kept: Bools
    level: NDArray[np.intp]
    low: np.float32
    step: np.float32
    loss: float

    @classmethod
    def of(cls, weights: Weights, cost: Float64, count: int, fineness: int) -> "Pruned":
        """Keep so many weights, those that would cost most, but no zeros, and quantise their magnitudes."""
        kept = largest(cost, count) & (weights.w != 0)
        size = np.abs(weights.w[kept].astype(np.float64))
        matters = np.ones(size.size) if weights.importance is None else weights.importance[kept].astype(np.float64)
        least = float(size.min(initial=np.inf))
        cell = math.e * float(np.sum(size - least)) / max(size.size, 1) * 2.0 ** (-fineness / 2)
        level = np.zeros(size.size, np.intp)
        if fineness and cell > 0:
            level = np.minimum(np.floor((size - least) / cell), HIGHEST).astype(np.intp)
        low, step = _line(level, size, matters)
        error = size - (level.astype(np.float32) * step + low).astype(np.float64)
        loss = float(np.dot(matters, error * error))
        if weights.quartic is not None:
            loss += float(np.dot(weights.quartic[kept], error**4))
        return cls(kept, level, low, step, loss)

    def signs(self, w: Float32) -> Int16:
        """0, 1 or -1 of each weight."""
        return np.where(self.kept, np.where(w < 0, -1, 1), 0).astype(np.int16)


def _line(level: NDArray[np.intp], size: Float64, matters: Float64) -> tuple[np.float32, np.float32]:
    """Weighted least squares of sizes on levels: w' is then orthogonal to its error. One number where levels agree."""
    if not size.size:
        return np.float32(0), np.float32(0)
    total = float(matters.sum())
    if not total > 0:
        matters, total = np.ones_like(size), float(size.size)
    m, x = float(np.dot(matters, level) / total), float(np.dot(matters, size) / total)
    spread = float(np.dot(matters, (level - m) ** 2))
    step = float(np.dot(matters, (level - m) * (size - x))) / spread if spread > 0 else 0.0
    return np.float32(x - step * m), np.float32(step)


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """All costs of a tensor in rising order, and their running sum."""

    rising: Float64
    running: Float64

    @classmethod
    def of(cls, cost: Float64) -> "Ranks":
        """Sort them."""
        rising = np.sort(cost)
        return cls(rising, np.concatenate([[0.0], np.cumsum(rising)]))

    def pruned(self, count: int) -> float:
        """Cost of all but the `count` largest."""
        return float(self.running[self.rising.size - count])

    def count_in(self, sample: Float64, count: int) -> int:
        """How many of a sample are among the `count` largest of all; of those at the border their share."""
        border = self.rising[self.rising.size - count]
        low, high = (int(np.searchsorted(self.rising, border, side)) for side in ("left", "right"))
        share = (count - (self.rising.size - high)) / (high - low)
        return int(np.count_nonzero(sample > border)) + round(share * int(np.count_nonzero(sample == border)))
