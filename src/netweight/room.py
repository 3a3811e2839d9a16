"""Tasks over threads that share one memory: as few large ones at a time as takes hardly longer."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition
from typing import Any, Final, Generic, NamedTuple, TypeVar

from netweight.freed import listening
from netweight.single import LARGE

__all__ = ["Need", "need_of_encoding", "need_of_sweep", "room", "run"]

LONGER: Final = 1.15  # what less memory may cost, in the time that is foretold without any limit
AT_ONCE: Final = 1 << 18  # weights that are worked on in double precision
GROWTH: Final = 1.25  # from one room that is tried to the next

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Need(NamedTuple):
    """What a task takes.

    Attributes:
        bytes: of memory, while it is worked on.
        cost: seconds on one core, or any unit of time.
    """

    bytes: int
    cost: float


def need_of_sweep(size: int, sums_bytes: int) -> Need:
    """Memory and seconds of predicting a tensor.

    Args:
        size: weights.
        sums_bytes: of what was measured.
    """
    cost = 5.5e-12 * sums_bytes**1.5 + 1e-7 * size + measured_s(size, sums_bytes, 0.3)
    return Need(max(decomposed_bytes(sums_bytes) + 16 * min(size, AT_ONCE), 4 * size), cost)


def need_of_encoding(size: int, sums_bytes: int) -> Need:
    """Memory and seconds of coding a tensor.

    Args:
        size: weights.
        sums_bytes: of what was measured.
    """
    most = max(decomposed_bytes(sums_bytes) + 16 * min(size, AT_ONCE), 8 * size)
    return Need(most, 2.6e-12 * sums_bytes**1.5 + 3e-7 * size + measured_s(size, sums_bytes, 0.2))


def decomposed_bytes(sums_bytes: int) -> int:
    """Memory of a decomposition of what was measured in two halves, as measured: five squares, or six small ones.

    Large ones are in single precision (`single`).
    """
    return 6 * sums_bytes // 4 if sums_bytes > 2 * 8 * LARGE**2 else 5 * sums_bytes // 2


def measured_s(size: int, sums_bytes: int, most_s: float) -> float:
    """Seconds that a matrix takes however small it is, where something was measured."""
    return min(most_s, 3e-6 * size) if sums_bytes else 0.0


def run(
    executor: Executor | None,
    task: Callable[[_Item], _Result],
    items: Sequence[_Item],
    needs: Sequence[Need] = (),
) -> Iterator[_Result]:
    """Map over the items by the executor, or here; give the results in the order of the items.

    A thread takes the first item left that has room beside what the others work on. The room is the smallest one,
    of the largest need and more, with which all of it takes no more than 15 % longer than without any limit: layers of
    one size are worked on in all threads, a single large one beside small ones only. A task that is through with most
    of its memory says so (`freed.eased`), and the next one begins.

    Args:
        executor: anything with `map`; one that is no pool of threads gets all items at once.
        task: of one argument.
        items: in the order in which they should begin.
        needs: of each item; without them there is no limit.

    >>> with ThreadPoolExecutor(3) as pool:
    ...     list(run(pool, abs, [-1, 2, -3], [Need(5, 1.0)] * 3))
    [1, 2, 3]
    """
    if executor is None:
        yield from map(task, items)
    elif not (needs and isinstance(executor, ThreadPoolExecutor)):
        yield from executor.map(task, items)
    else:
        shared = _Shared(task, items, needs, room(needs, executor._max_workers))
        found: dict[int, _Result] = {}
        at = 0
        try:
            for place, result in executor.map(shared.one, range(len(items))):
                found[place] = result
                while at in found:
                    yield found.pop(at)
                    at += 1
        finally:
            shared.stop()


@dataclass(slots=True)
class _Shared(Generic[_Item, _Result]):
    """The items that are left, and the room that is left for them."""

    task: Callable[[_Item], _Result]
    items: Sequence[_Item]
    needs: Sequence[Need]
    room_bytes: float
    left: list[int] = field(init=False)
    taken_bytes: int = 0
    changed: Condition = field(default_factory=Condition)

    def __post_init__(self) -> None:
        self.left = list(range(len(self.items)))

    def one(self, _: int) -> tuple[int, Any]:
        """Work on the next item that has room; give its place too. (-1, None) when the work was stopped."""
        with self.changed:
            while (at := _first(self.left, self.needs, self.room_bytes, self.taken_bytes)) is None:
                self.changed.wait()
            if at < 0:
                return -1, None
            place = self.left.pop(at)
            taken_bytes = self.needs[place].bytes
            self.taken_bytes += taken_bytes

        def to(bytes_: int) -> None:
            nonlocal taken_bytes
            with self.changed:
                self.taken_bytes -= taken_bytes - bytes_
                taken_bytes = bytes_
                self.changed.notify_all()

        try:
            with listening(lambda bytes_: to(min(bytes_, taken_bytes))):
                return place, self.task(self.items[place])
        finally:
            to(0)

    def stop(self) -> None:
        """Begin nothing more."""
        with self.changed:
            self.left.clear()
            self.changed.notify_all()


def _first(left: Sequence[int], needs: Sequence[Need], room_bytes: float, taken_bytes: int) -> int | None:
    """Place in `left` of the first item with room; -1 where nothing is left, None where all have to wait."""
    if not left or not taken_bytes:
        return 0 if left else -1
    return next((at for at, item in enumerate(left) if taken_bytes + needs[item].bytes <= room_bytes), None)


def room(needs: Sequence[Need], workers: int) -> float:
    """Give the smallest room, of the largest need times powers of 1.25, that makes the work hardly longer: bytes.

    >>> room([Need(100, 1.0)] * 8, 2) >= 200, room([Need(100, 9.0)] + [Need(10, 1.0)] * 9, 2)
    (True, 125.0)
    """
    free = _length(needs, workers, math.inf)
    tried = GROWTH * max((need.bytes for need in needs), default=0)
    while tried < sum(need.bytes for need in needs) and _length(needs, workers, tried) > LONGER * free:
        tried *= GROWTH
    return tried


def _length(needs: Sequence[Need], workers: int, room_bytes: float) -> float:
    """Time that the work takes, were the costs right."""
    left, taken, now = list(range(len(needs))), 0, 0.0
    running: list[tuple[float, int]] = []
    while left or running:
        at = _first(left, needs, room_bytes, taken) if len(running) < workers else None
        if at is not None and at >= 0:
            item = left.pop(at)
            taken += needs[item].bytes
            heapq.heappush(running, (now + needs[item].cost, item))
        else:
            now, item = heapq.heappop(running)
            taken -= needs[item].bytes
    return now
