"""Integer weights to frequencies that sum to 4096: the one rounding that encoder and decoder must share."""

import numpy as np
from numpy.typing import NDArray

from netweight import kernels

TOTAL = 4096


def normalise(weights: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Scale each row to sum to 4096, every positive weight to at least 1; rows of zeros stay zero.

    f = max(1, floor(4096 w / sum w)) where w > 0. What is missing goes to the largest f, the first of equals. What is
    too much is taken from the largest f, at most half of it (rounded down), then from what is now the largest, until
    the sum is right: a table of many tiny weights beside few large ones has no other way to exist.

    Args:
        weights: int64 [T, 256], 0 .. 2^40.

    >>> normalise(np.array([[3, 1, 0, 0]]))[0].tolist()
    [3072, 1024, 0, 0]
    """
    found = kernels.normalise(weights)
    if found is not None:
        return found
    sums = weights.sum(axis=1, keepdims=True)
    freq = np.where(weights > 0, np.maximum(weights * TOTAL // np.maximum(sums, 1), 1), 0)
    missing = np.where(sums[:, 0] > 0, TOTAL - freq.sum(axis=1), 0)
    while missing.any():
        rows = np.flatnonzero(missing)
        largest = freq[rows].argmax(axis=1)
        change = np.maximum(missing[rows], -(freq[rows, largest] // 2))
        freq[rows, largest] += change
        missing[rows] -= change
    return freq.astype(np.uint16)
