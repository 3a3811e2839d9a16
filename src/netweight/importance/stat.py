"""What is known of the importance of one tensor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Stat:
    """Diagonal importance: loss = 1/2 sum_i I_i (w_i - w'_i)^2.

    Attributes:
        weight: the factor of all I_i.
        relative: I_i = weight / w_i^2 instead of I_i = weight.
    """

    weight: float = 1.0
    relative: bool = False

    def loss(self, w: NDArray[np.float32], error: NDArray[np.floating]) -> float:
        """Half the weighted sum of squares of an error.

        Args:
            w: the weights, any shape.
            error: of the same shape.

        >>> Stat(2.0).loss(np.ones(3, np.float32), np.array([0.5, 0.0, -0.5]))
        0.5
        """
        total = 0.0
        flat, errors = w.reshape(-1), error.reshape(-1)
        for at in range(0, flat.size, BLOCK):  # a tensor of any size needs no copy of itself
            e = errors[at : at + BLOCK].astype(np.float64)
            if self.relative:
                part = flat[at : at + BLOCK]
                e = np.divide(e, part, out=np.zeros_like(e), where=part != 0)
            total += float(np.sum(e * e))
        return 0.5 * self.weight * total


def largest_of(w: NDArray[np.float32]) -> float:
    """Give the largest magnitude of an array without a copy of it; NaN if it holds one.

    >>> largest_of(np.array([1.0, -3.0], np.float32))
    3.0
    """
    return max(float(w.max()), -float(w.min())) if w.size else 0.0
