"""How two tensors differ, in the terms `verify --against` reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from netweight.dtypes import is_float, to_float32
from netweight.importance.stat import Stat

__all__ = ["Difference", "difference"]

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCK: Final = 1 << 20  # elements in float64 at a time: a tensor of any size needs no copy of itself


@dataclass(frozen=True, slots=True)
class Difference:
    """What separates a restored tensor from its original.

    Args:
        identical: whether all bits are equal.
        signal: sum of w^2.
        error: sum of (w - w')^2.
        largest: largest |w - w'|.
        loss: 1/2 sum of I (w - w')^2 with the importance I that was assumed.
    """

    identical: bool
    signal: float
    error: float
    largest: float
    loss: float

    @property
    def snr_db(self) -> float:
        """10 log10(signal / error); infinite without an error.

        >>> Difference(False, 100.0, 1.0, 1.0, 0.5).snr_db
        20.0
        """
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal > 0 else -math.inf


def difference(original: Array, restored: Array, dtype: str, stat: Stat) -> Difference:
    """Compare two tensors in storage form.

    Args:
        original: storage of `dtype`, any shape.
        restored: the same shape and dtype.
        dtype: code of the elements; other than floats are compared bit for bit.
        stat: importance of the elements.

    >>> d = difference(np.float32([3, 4]), np.float32([3, 3.5]), "F32", Stat())
    >>> d.identical, d.signal, d.error, d.largest, d.loss
    (False, 25.0, 0.25, 0.5, 0.125)
    """
    first, second = np.ravel(original), np.ravel(restored)
    if np.array_equal(first.view(np.uint8), second.view(np.uint8)):
        return Difference(True, _signal(first, dtype), 0.0, 0.0, 0.0)
    if not is_float(dtype):
        return Difference(False, 0.0, math.inf, math.inf, math.inf)
    signal = error = largest = loss = 0.0
    for begin in range(0, first.size, _BLOCK):
        before = _float64(first[begin : begin + _BLOCK], dtype)
        with np.errstate(invalid="ignore"):  # infinity minus itself
            apart = np.abs(before - _float64(second[begin : begin + _BLOCK], dtype))
            loss += stat.loss(before, apart)
        signal += float(before @ before)
        error += float(apart @ apart)
        largest = max(largest, float(apart.max()))
    return Difference(False, signal, error, largest, loss)


def _signal(flat: Array, dtype: str) -> float:
    if not is_float(dtype):
        return 0.0
    total = 0.0
    for begin in range(0, flat.size, _BLOCK):
        block = _float64(flat[begin : begin + _BLOCK], dtype)
        total += float(block @ block)
    return total


def _float64(block: Array, dtype: str) -> Array:
    return block if dtype == "F64" else to_float32(block, dtype).astype(np.float64)
