"""Memory of files that are read through a map: what was looked at stays there until somebody gives it back."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["give_back"]


def give_back(array: NDArray[Any]) -> None:
    """Give back the memory of a contiguous array that is a view of a file; it is read again when it is looked at.

    Nothing happens to any other array: those of a map that can be written to are somebody's own.

    >>> give_back(np.zeros(3))
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if not isinstance(base, mmap.mmap) or not array.flags.c_contiguous or not hasattr(base, "madvise"):
        return
    with memoryview(base) as view:
        if not view.readonly:
            return
        first = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    at = array.__array_interface__["data"][0] - first
    start = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (at + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < stop:
        base.madvise(mmap.MADV_DONTNEED, start, stop - start)
