"""What is known of the importance of one tensor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
        e = error.astype(np.float64)
        if self.relative:
            e = np.divide(e, w, out=np.zeros_like(e), where=w != 0)
        return 0.5 * self.weight * float(np.sum(e * e))
