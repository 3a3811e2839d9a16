"""Symmetric matrices by their upper half.

An n by n matrix is cut into bands of rows. Of the rows from a to b the columns from a on are kept, row by row, band
after band: little more than half of the entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Triangle", "bands", "packed_size"]

BAND: Final = 32  # rows


@cache
def bands(n: int) -> tuple[tuple[int, int, slice], ...]:
    """Give the first row of each band, the row after its last, and where its entries are.

    >>> bands(50)
    ((0, 32, slice(0, 1600, None)), (32, 50, slice(1600, 1924, None)))
    """
    found, at = [], 0
    for start in range(0, n, BAND):
        stop = min(start + BAND, n)
        end = at + (stop - start) * (n - start)
        found.append((start, stop, slice(at, end)))
        at = end
    return tuple(found)


def packed_size(n: int) -> int:
    """Entries that are kept of an n by n matrix."""
    return bands(n)[-1][2].stop if n else 0


@dataclass(frozen=True, slots=True, eq=False)
class Triangle:
    """Symmetric matrices of both halves of the data and of each group, in the place of an array [2, groups, n, n].

    Attributes:
        n: rows and columns of a matrix.
        values: [2, groups, packed_size(n)].
    """

    n: int
    values: Float64

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that it stands for."""
        return (*self.values.shape[:2], self.n, self.n)

    def __getitem__(self, half: int) -> Float64:
        """Unfold one half, [groups, n, n]."""
        out = np.empty(self.shape[1:])
        self._unfold(half, out)
        return out

    def full(self) -> Float64:
        """Unfold all, [2, groups, n, n]."""
        out = np.empty(self.shape)
        for half in range(len(out)):
            self._unfold(half, out[half])
        return out

    def _unfold(self, half: int, out: Float64) -> None:
        for start, stop, place in bands(self.n):
            band = self.values[half][:, place].reshape(-1, stop - start, self.n - start)
            out[:, start:stop, start:] = band
            out[:, stop:, start:stop] = np.swapaxes(band[:, :, stop - start :], 1, 2)
