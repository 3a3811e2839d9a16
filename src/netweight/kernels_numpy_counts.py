"""The NumPy twins of csrc/counts.h: what counts of symbols say of codes and rates.

Logarithms are made of additions, multiplications and divisions, and sums go symbol by symbol, as in C.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netweight.kernel_types import Bytes, Int32

    Counts = NDArray[np.int64]
    Float64 = NDArray[np.float64]

CENTRE = 128
SERIES = [2 / ((2 * j + 1) * log(2)) for j in reversed(range(10))]
MIRROR = (256 - np.arange(256)) % 256  # symbol of -v
LARGEST_RATE = 2.0**24


def log2(x: Float64) -> Float64:
    """Give the exponent + log2 of a mantissa of sqrt(1/2) .. sqrt(2) by its series in (m - 1) / (m + 1).

    >>> bool(abs(log2(np.array([3.0])) - np.log2(3.0)) < 1e-15)
    True
    """
    m, e = np.frexp(x)
    low = m < 0.7071067811865476
    m, e = np.where(low, m + m, m), e - low
    s = (m - 1.0) / (m + 1.0)
    z, p = s * s, np.full_like(s, SERIES[0])
    for factor in SERIES[1:]:
        p = p * z + factor
    out: Float64 = e.astype(np.float64) + s * p
    return out


def code_bits(counts: Counts, symmetric: NDArray[np.bool_]) -> tuple[float, tuple[int, int, int]]:
    """Bits by tables that fit; escapes, tables in use, numbers that describe them."""
    escaped = int(counts[:, [0, 255]].sum())
    used = counts.copy()
    used[:, [0, 255]] = 0
    rows = used.any(axis=1)
    used, same = used[rows], symmetric[rows]
    shape = np.where(same[:, None], used + used[:, MIRROR], 2 * used)
    there = shape > 0
    numbers = int(there[~same].sum()) + int(there[same][:, CENTRE:].sum())
    held = used > 0
    whole = np.broadcast_to(log2(2.0 * used.sum(axis=1))[:, None], used.shape)[held]
    terms = used[held] * (whole - log2(shape[held].astype(np.float64)))
    return float(_sum(terms, 0)), (escaped, int(rows.sum()), numbers)


def learn(counts: Counts, prior: Float64, symmetric: NDArray[np.bool_], weight: Float64, rate: Int32) -> None:
    """Put the rates of the tables that were used among those of all others; weights of the prior, and of a bit."""
    used = np.flatnonzero(counts.any(axis=1))
    learnt = counts[used] + weight[0] * prior[used]
    both = np.where(symmetric[used][:, None], learnt + learnt[:, MIRROR], learnt)
    share = both / _sum(both, 1)[:, None]
    cost = weight[1] * -log2(np.maximum(share, 1e-9))
    rate[used, 1:255] = np.minimum(np.rint(cost), LARGEST_RATE).astype(np.int32)[:, 1:255]


def split(k: Int32, classes: Bytes, shift: int, counts: Counts) -> tuple[int, int]:
    """Count integers without their low bits; how many no table holds, and how many bytes beyond two they take."""
    high = k >> shift
    out = (high < 1 - CENTRE) | (high > CENTRE - 2)
    symbol = np.where(out, 0, high + CENTRE)
    np.add.at(counts, (classes, symbol), 1)
    far = 2 * np.abs(high[out])
    return far.size, int(np.count_nonzero(far >= 1 << 14) + np.count_nonzero(far >= 1 << 21))


def entropy(counts: Counts) -> float:
    """Entropy of the symbols of each table, summed."""
    held = counts > 0
    whole = np.broadcast_to(log2(np.maximum(counts.sum(axis=1), 1.0))[:, None], counts.shape)[held]
    return float(_sum(counts[held] * (whole - log2(counts[held].astype(np.float64))), 0))


def level_bits(counts: Counts, octave: int) -> tuple[float, int, int]:
    """Entropy of what is written of the tables' levels; values that occur, tables in use."""
    occurs, used = counts.any(axis=1), np.flatnonzero(counts.any(axis=0))
    if not used.size:
        return 0.0, 0, 0
    rows = counts[occurs, used[0] : used[-1] + 1]
    share = np.maximum(rows, 1) * 4096.0 / rows.sum(axis=1, keepdims=True)
    level = np.where(rows > 0, 1 + np.rint(octave * log2(share)).clip(0, 12 * octave), 0).astype(np.int64)
    rise = np.diff(level, axis=1, prepend=0)
    residuals = np.diff(rise, axis=0, prepend=0)
    return entropy(np.bincount((residuals + 128 & 255).reshape(-1), minlength=256)[None]), used.size, len(rows)


def cheap_levels(tried: Counts, cost: Float64, price: Float64) -> Counts:
    """Choose levels one after the other."""
    levels = np.zeros(tried.shape[:2], np.int64)
    prices: list[float] = price.tolist()
    rise = [0] * tried.shape[1]
    for t in range(len(tried)):
        levels[t] = _cheap_line(tried[t].tolist(), cost[t].tolist(), rise, prices)
        rise = np.diff(levels[t], prepend=0).tolist()
    return levels


def _cheap_line(tried: list[list[int]], cost: list[list[float]], rise: list[int], prices: list[float]) -> list[int]:
    level = 0
    out = []
    for candidates, bits, step in zip(tried, cost, rise, strict=True):
        guess = level + step
        least = np.inf
        for c, b in zip(candidates, bits, strict=True):
            price = b + prices[abs(c - guess)]
            if price < least:
                least, level = price, c
        out.append(level)
    return out


def _sum(terms: Float64, axis: int) -> Any:
    """Add one after the other."""
    if not terms.shape[axis]:
        return 0.0
    return np.add.accumulate(terms, axis=axis).take(-1, axis=axis)
