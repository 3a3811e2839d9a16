"""Steps of rows and columns in quarters of an octave, where they pay for themselves.

The best step of a column is c / U_jj: the same noise in each whitened component (water-filling). A step that is off by
d octaves costs ln 2 d^2 bits a weight, so the exponents are an entropy-coded scalar quantiser of log2 U_jj: few rows
settle for few different steps, in the end for one.
"""

from math import log

import numpy as np
from numpy.typing import NDArray

from netweight.kernels import Float32, Int16

QUARTERS = 4
REACH = 60  # quarters of an octave from the middle
ROUNDS = 8
VALUE_BITS = 8.0  # to describe one more value
# 1, 2^(1/4), 2^(1/2), 2^(3/4), as the format has them
TABLE = np.array([1024, 1218, 1448, 1722], np.float32) / np.float32(1024)

Array = NDArray[np.float64]


def exponents(ideal: Array, weights: int, table_bits: float) -> Int16 | None:
    """Choose an exponent for each row or column; None where one step for all costs no more.

    Args:
        ideal: log2 of how much finer than the mean each should be.
        weights: of each row or column.
        table_bits: what tables for one more class of weights cost.
    """
    wanted = np.clip(QUARTERS * ideal, -REACH, REACH)
    best = np.zeros(wanted.size, np.int64)
    least = _cost(best, wanted, weights, table_bits)
    for grid in (1, 2, 4):
        chosen = np.rint(wanted / grid).astype(np.int64) * grid
        for _ in range(ROUNDS):
            values, counts = np.unique(chosen, return_counts=True)
            bits = np.log2(chosen.size / counts)
            off = np.square((values - wanted[:, None]) / QUARTERS) * np.log(2) * weights
            again = values[np.argmin(off + bits, axis=1)]
            if np.array_equal(again, chosen):
                break
            chosen = again
        cost = _cost(chosen, wanted, weights, table_bits)
        if cost < least:
            best, least = chosen, cost
    return best.astype(np.int16) if best.any() else None


def _cost(chosen: NDArray[np.int64], wanted: Array, weights: int, table_bits: float) -> float:
    _, counts = np.unique(chosen, return_counts=True)
    side = float(np.sum(counts * np.log2(chosen.size / counts))) + (VALUE_BITS + table_bits) * (counts.size - 1)
    off = (chosen - wanted) / QUARTERS
    return side + weights * log(2) * float(np.sum(np.square(off - off.mean())))


def factors(level: Int16) -> Array:
    """Step at each level as the decoder has it, for a scale of one: T[e mod 4] 2^(e div 4), e = -level."""
    e = -level.astype(np.int64)
    return np.ldexp(TABLE.astype(np.float64)[e % QUARTERS], e // QUARTERS)


def step_table(scale: np.float32) -> Float32:
    """Step by level -254 .. 254, at level + 254: (scale T[e mod 4]) 2^(e div 4), e = -level, two roundings at most."""
    e = 254 - np.arange(509)
    product = (scale * TABLE)[e % QUARTERS]
    out: Float32 = np.ldexp(product, e // QUARTERS)
    return out
