"""Integer weights to frequencies that sum to 4096: the one rounding that encoder and decoder must share."""

import numpy as np
from numpy.typing import NDArray

from netweight.errors import FormatError

TOTAL = 4096


def normalise(weights: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Scale each row to sum to 4096, every positive weight to at least 1; rows of zeros stay zero.

    f = max(1, floor(4096 w / sum w)) where w > 0; what is missing or too much goes to the largest f, the first of
    equals.

    Args:
        weights: int64 [T, 256], 0 .. 2^40.

    Raises:
        FormatError: a row has so many small weights that its largest cannot pay for them.

    >>> normalise(np.array([[3, 1, 0, 0]]))[0].tolist()
    [3072, 1024, 0, 0]
    """
    sums = weights.sum(axis=1, keepdims=True)
    freq = np.where(weights > 0, np.maximum(weights * TOTAL // np.maximum(sums, 1), 1), 0)
    largest = freq.argmax(axis=1)
    rows = np.flatnonzero(sums[:, 0] > 0)
    freq[rows, largest[rows]] += TOTAL - freq[rows].sum(axis=1)
    if (freq < 0).any() or (freq[rows, largest[rows]] < 1).any():
        raise FormatError(
            "A frequency table asks for more than 4096 symbols' worth.", "The file is damaged: get it again."
        )
    return freq.astype(np.uint16)
