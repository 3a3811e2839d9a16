"""The two loops of successive refinement, in C where it was built, and in NumPy: the same integers."""

import numpy as np
from numpy.typing import NDArray

from netweight.clibrary import LIBRARY, call

Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]

WIDEST = (1 << 15) - 1  # multiples of a threshold that int16 holds


def send_level(missing: Int32, threshold: int, offset: int) -> Int16 | Int32:
    """Send what passes a threshold, as often as it does, and take it off.

        k = sign(r) (ceil(|r| / threshold) - 1),   r -= k threshold + sign(k) offset

    Args:
        missing: int32 [n], contiguous, above -2^31; changed in place.
        threshold: 1 .. 2^24.
        offset: 0 .. threshold.

    Returns:
        k, int16 where all fit it.

    >>> r = np.array([25, 7, -11, 10], np.int32)
    >>> send_level(r, 10, 2), r
    (array([ 2,  0, -1,  0], dtype=int16), array([ 3,  7,  1, 10], dtype=int32))
    """
    if LIBRARY is not None:
        k = np.empty(missing.size, np.int16)
        if not call("nw_send_level", missing, missing.size, threshold, offset, k):
            return k
    magnitude = np.abs(missing)
    where = np.flatnonzero(magnitude > threshold)
    passed = (magnitude[where] - 1) // threshold
    sent = np.sign(missing[where]) * passed
    missing[where] -= sent * threshold + np.sign(sent) * offset
    fits = not where.size or int(magnitude.max()) <= WIDEST * threshold
    out: Int32 = np.zeros(missing.size, np.int32)
    out[where] = sent
    return out.astype(np.int16) if fits else out


def add_level(total: Int32, k: NDArray[np.signedinteger], threshold: int, offset: int) -> None:
    """Add what a level says, modulo 2^32: total += k threshold + sign(k) offset.

    >>> total = np.zeros(3, np.int32)
    >>> add_level(total, np.array([2, 0, -1], np.int16), 10, 2)
    >>> total
    array([ 22,   0, -12], dtype=int32)
    """
    if LIBRARY is not None and k.dtype == np.int16:
        call("nw_add_level", total, np.ascontiguousarray(k), total.size, threshold, offset)
    else:
        wide: Int32 = k.astype(np.int32)
        sign: Int32 = np.sign(wide)
        total += wide * np.int32(threshold) + sign * np.int32(offset)
