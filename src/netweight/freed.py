"""Memory that was freed: the C library keeps much of it for later, and what one thread freed no other one takes."""

import ctypes
from collections.abc import Callable
from typing import Final

__all__ = ["LEAST_BYTES", "give_back_freed"]


def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None  # no glibc: others give back what is large, or have no such function
    return found


TRIM: Final = _trim()
LEAST_BYTES: Final = 1 << 23  # less is taken again before long, and new pages cost more than they save


def give_back_freed(freed_bytes: int) -> None:
    """Give all memory that was freed back to the system, of every thread, if it is worth the milliseconds.

    Args:
        freed_bytes: at least so much was freed.

    >>> give_back_freed(1 << 24)
    """
    if TRIM is not None and freed_bytes >= LEAST_BYTES:
        TRIM(0)
