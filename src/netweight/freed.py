"""Memory that was freed: the C library keeps much of it for later, and what one thread freed no other one takes."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["LEAST_BYTES", "eased", "give_back_freed", "listening"]


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


class _Task(threading.local):
    """Who wants to know what the task of this thread takes."""

    told: Callable[[int], None] | None = None


TASK: Final = _Task()


@contextmanager
def listening(told: Callable[[int], None]) -> Iterator[None]:
    """Let `eased` call a function in this thread.

    >>> with listening(print):
    ...     eased(7)
    7
    """
    before, TASK.told = TASK.told, told
    try:
        yield
    finally:
        TASK.told = before


def eased(bytes_: int) -> None:
    """Say that the task of this thread takes no more than so much memory from here on."""
    if TASK.told is not None:
        TASK.told(bytes_)
