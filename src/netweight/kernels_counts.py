"""What counts of symbols say of codes and rates, in C where it was built, and in NumPy: the same numbers."""

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_numpy_counts
from netweight.clibrary import LIBRARY, call
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
    call("nw_code_bits", counts, symmetric, len(counts), bits, found)
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
        call("nw_learn", counts, np.ascontiguousarray(prior, np.float64), symmetric, len(counts), settings, out)
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
    call("nw_split", k, classes, k.size, shift, counts, found)
    return counts, int(found[0]), int(found[1])
