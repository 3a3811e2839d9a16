"""What counts of symbols say of codes and rates, in C where it was built, and in NumPy: the same numbers."""

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_numpy_counts
from netweight.clibrary import LIBRARY, brief, by_size
from netweight.kernel_types import Bytes, Int32

Counts = NDArray[np.int64]


def code_bits(counts: Counts, symmetric: NDArray[np.bool_]) -> tuple[float, tuple[int, int, int]]:
    """How long a code of symbols is by tables that fit them.

    Args:
        counts: int64 [T, 256].
        symmetric: bool [T], tables that code v as they code -v.

    Returns:
        Bits of all symbols but escapes, sum of n log2(total / shape); and how many escapes there are, tables in use,
        and numbers that describe these.
    """
    if LIBRARY is None:
        return kernels_numpy_counts.code_bits(counts, symmetric)
    bits, found = np.empty(1, np.float64), np.empty(3, np.int64)
    counts, symmetric = np.ascontiguousarray(counts, np.int64), np.ascontiguousarray(symmetric, np.bool_)
    brief("nw_code_bits", counts, symmetric, len(counts), bits, found)
    escaped, tables, numbers = found.tolist()
    return float(bits[0]), (escaped, tables, numbers)


def learn(
    counts: Counts, prior: NDArray[np.float64], symmetric: NDArray[np.bool_], weight: float, price: float, rate: Int32
) -> Int32:
    """Give the rates that counts teach: -price log2 of a symbol's share of the counts + weight prior.

    Args:
        counts: int64 [T, 256].
        prior: float64 [T, 256], above 0.
        symmetric: bool [T], tables that code v as they code -v.
        weight: of the prior.
        price: of a bit.
        rate: int32 [T, 256], of escapes, and of tables that were not used.
    """
    out = rate.copy()
    settings = np.array([weight, price], np.float64)
    if LIBRARY is None:
        kernels_numpy_counts.learn(counts, prior, symmetric, settings, out)
    else:
        counts, symmetric = np.ascontiguousarray(counts, np.int64), np.ascontiguousarray(symmetric, np.bool_)
        brief("nw_learn", counts, np.ascontiguousarray(prior, np.float64), symmetric, len(counts), settings, out)
    return out


def split(k: Int32, classes: Bytes, shift: int, count: int) -> tuple[Counts, int, int]:
    """Count the symbols of integers whose low bits are dropped, those that no table holds as 0.

    Args:
        k: int32 [n].
        classes: uint8 [n], below `count`.
        shift: low bits.
        count: of classes.

    Returns:
        int64 [count, 256]; how many integers no table holds; bytes beyond two that their values take.
    """
    counts = np.zeros((count, 256), np.int64)
    if LIBRARY is None:
        return counts, *kernels_numpy_counts.split(k, classes, shift, counts)
    k, classes, found = (
        np.ascontiguousarray(k, np.int32),
        np.ascontiguousarray(classes, np.uint8),
        np.empty(2, np.int64),
    )
    by_size(k.size)("nw_split", k, classes, k.size, shift, counts, found)
    return counts, int(found[0]), int(found[1])


def entropy(counts: Counts) -> float:
    """Entropy of the symbols of each table, summed, in bits; counts int64 [T, any]."""
    if LIBRARY is None:
        return kernels_numpy_counts.entropy(counts)
    bits = np.empty(1, np.float64)
    by_size(counts.size)("nw_entropy", np.ascontiguousarray(counts, np.int64), *counts.shape, bits)
    return float(bits[0])


def level_bits(counts: Counts, octave: int) -> tuple[float, int, int]:
    """Entropy of what is written of the levels of tables.

    Args:
        counts: int64 [T, 256].
        octave: levels in an octave.

    Returns:
        Bits; values that occur; tables in use.
    """
    if LIBRARY is None:
        return kernels_numpy_counts.level_bits(counts, octave)
    bits, found = np.empty(1, np.float64), np.empty(2, np.int64)
    brief("nw_level_bits", np.ascontiguousarray(counts, np.int64), len(counts), octave, bits, found)
    return float(bits[0]), int(found[0]), int(found[1])


def cheap_levels(tried: Counts, cost: NDArray[np.float64], price: NDArray[np.float64]) -> Counts:
    """Choose levels one after the other: of those tried, the first with the least cost + price[|level - guess|].

    The guess is the level below, plus how much the table before rises there.

    Args:
        tried: int64 [T, values, any].
        cost: float64, of each.
        price: float64, by distance.
    """
    if LIBRARY is None:
        return kernels_numpy_counts.cheap_levels(tried, cost, price)
    levels = np.zeros(tried.shape[:2], np.int64)
    tried, cost = np.ascontiguousarray(tried, np.int64), np.ascontiguousarray(cost, np.float64)
    by_size(tried.size)("nw_cheap_levels", tried, cost, np.ascontiguousarray(price, np.float64), *tried.shape, levels)
    return levels
