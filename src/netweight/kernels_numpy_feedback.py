"""Successive quantisation among the NumPy twins of csrc/kernels.c: columns one after the other, with feedback.

Float arithmetic is single precision in the order of the C code: every product and every difference is rounded, and a
target loses what the columns before it leave in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netweight.kernel_types import Bytes, Float32, Int16, Int32
    from netweight.kernels_feedback import Successive

CENTRE = 128
FAR = 1 << 28
BOUND = np.float32(1e5)
FARTHEST = np.float32(30000)
MOST_PAID = np.float32(0.5)
LONGEST_PATH = 4096
STRIP, MEMORY = 32, 64


def dealt_classes(row: Int16, column: Int16, columns: int, lanes: int, start: int, size: int, top: int) -> Bytes:
    """Class of positions of the scan "kio": clamp(row + column level, 0, top)."""
    plane = row.size * columns
    if not size:
        return np.zeros(0, np.uint8)
    at = np.arange(start, start + size)
    position, r = at // plane, at % plane
    q = r % lanes * (plane // lanes) + r // lanes
    level = row[q % row.size].astype(np.int32) + column[position * columns + q // row.size]
    classes: Bytes = np.clip(level, 0, top).astype(np.uint8)
    return classes


def feedback(
    x: Float32, m: Float32, down: Float32 | None, paid: tuple[Float32, Float32], how: Successive,
    columns: range, contexts: tuple[NDArray[np.uint16], Bytes], rate: Int32, state: Bytes, fed: Float32 | None = None,
) -> Int16:  # fmt: skip
    """Quantise columns of one kernel position, given what those before them left."""
    index, flip = contexts
    r = np.empty(index.shape, np.int16)
    height = how.rows // how.groups
    targets = x[columns.start : columns.stop].copy() if fed is None else fed.copy()
    groups = [(g, slice(g * height, (g + 1) * height)) for g in range(how.groups)]
    for i in range(columns.start) if fed is None else ():
        for g, rows in groups:
            targets[:, rows] -= m[g, i, columns.start : columns.stop, None] * x[i, rows]
    for place, j in enumerate(columns):
        share = np.minimum(np.repeat(paid[0][:, j], height) * paid[1], MOST_PAID)
        column = Column(targets[place], share, flip[place] != 0, index[place], rate)
        if how.span:
            r[place] = _column(column, down, j, how, state)
        else:
            r[place] = column.nearest() if down is None else _nearest_down(column, down)
        x[j] = r[place].astype(np.float32) - x[j]
        for g, rows in groups:
            targets[place + 1 :, rows] -= m[g, j, j + 1 : columns.stop, None] * x[j, rows]
    return r


@dataclass(frozen=True, slots=True)
class Column:
    """Some entries of a column: targets, what the ridge has paid, whether the sign is coded flipped, tables, rates."""

    x: Float32
    share: Float32
    flip: NDArray[np.bool_]
    index: NDArray[np.uint16]
    rate: Int32

    def part(self, entries: slice, x: Float32 | None = None) -> Column:
        """Some of them; with targets x, which are several for one entry."""
        x = self.x[entries] if x is None else x
        share, flip = np.broadcast_to(self.share[entries], x.shape), np.broadcast_to(self.flip[entries], x.shape)
        return Column(x, share, flip, np.broadcast_to(self.index[entries], x.shape), self.rate)

    def nearest(self) -> Int16:
        """The cheapest integers."""
        return _nearest(self.x, self.share, self._sign(), self.index, self.rate)

    def branches(self) -> tuple[Int32, Int16]:
        """Cost and integer of each branch 2 codebook + parity: [4, O]."""
        return _branches(self.x, self.share, self._sign(), self.index, self.rate)

    def _sign(self) -> Int32:
        return np.where((self.x < 0) != self.flip, np.int32(-1), np.int32(1))


def _nearest_down(column: Column, down: Float32) -> Int16:
    """Row by row, where a row's target depends on what the rows above leave."""
    target, k = column.x.copy(), np.empty(column.x.size, np.int16)
    for o in range(k.size):
        k[o : o + 1] = column.part(slice(o, o + 1), target[o : o + 1]).nearest()
        target[o + 1 :] += down[o, o + 1 :] * (column.x[o] - np.float32(k[o]))
    return k


def _tilted(a: Float32, rho: Float32, k: Int32, r: Int32, sign: Int32, rates: Int32, start: NDArray[np.int64]) -> Int32:
    """2^10 ((a - r)^2 - rho (r^2 - a^2)) + rate of k."""
    f = r.astype(np.float32)
    d = a - f
    share = rho * (d * (a + f))
    cost = np.clip((d * d + share) * np.float32(1024), -BOUND, BOUND).astype(np.int32)
    signed = sign * k
    escape = (signed < 1 - CENTRE) | (signed > CENTRE - 2)
    at: NDArray[np.int64] = start + np.where(escape, np.where(signed & 1, 255, 0), signed + CENTRE)
    total: Int32 = cost + rates[at]
    return total


def _nearest(x: Float32, rho: Float32, sign: Int32, index: NDArray[np.uint16], rate: Int32) -> Int16:
    a, rates, start = np.minimum(np.abs(x), FARTHEST), rate.reshape(-1), index.astype(np.int64) * 256
    nearest = (a + np.float32(0.5)).astype(np.int32)
    best, cost = nearest, _tilted(a, rho, nearest, nearest, sign, rates, start)
    for k in (nearest - 1, nearest + 1, np.zeros_like(nearest)):
        other = _tilted(a, rho, k, k, sign, rates, start)
        best, cost = np.where(other < cost, k, best), np.minimum(other, cost)
    return np.where(x < 0, -best, best).astype(np.int16)


def _branches(x: Float32, rho: Float32, sign: Int32, index: NDArray[np.uint16], rate: Int32) -> tuple[Int32, Int16]:
    """Cost and integer of each branch 2 codebook + parity: [4, O]."""
    a, turn, rates = np.minimum(np.abs(x), FARTHEST), np.where(x < 0, -1, 1), rate.reshape(-1)
    cost, value = np.empty((4, x.size), np.int32), np.empty((4, x.size), np.int16)
    for c in range(2):
        start = index.astype(np.int64) * 512 + 256 * c
        nearest = ((a + np.float32(c)) * np.float32(0.5)).astype(np.int32)
        costs, values = [], []
        for low in (nearest - 1, nearest):
            both = [_tilted(a, rho, k, 2 * k - c * np.sign(k), sign, rates, start) for k in (low, low + 2)]
            costs.append(np.minimum(both[1], both[0]))
            values.append(turn * np.where(both[1] < both[0], low + 2, low))
        even = (nearest & 1).astype(np.bool_)  # then the lower pair is even
        for parity in range(2):
            first = even if parity == 0 else ~even
            cost[2 * c + parity] = np.where(first, costs[0], costs[1])
            value[2 * c + parity] = np.where(first, values[0], values[1])
    return cost, value


def _column(column: Column, down: Float32 | None, j: int, how: Successive, state: Bytes) -> Int16:
    """Search a column in pieces: a lane ends, a piece of the tensor ends, or 4096 symbols are enough."""
    r = np.empty(how.rows, np.int16)
    plane = j // how.per_plane
    o, target = 0, column.x.copy()
    while o < how.rows:
        at = (j - plane * how.per_plane) * how.rows + o
        lane, t = at // how.span, plane * how.span + at % how.span
        size = min(how.rows - o, how.span - at % how.span, LONGEST_PATH, how.run - t % how.run)
        part = slice(o, o + size)
        before = int(state[lane]) if t % how.run else 0
        if down is None:
            cost, value = column.part(part).branches()
            branch, state[lane] = _path(cost, before, how)
            chosen = value[branch, np.arange(size)]
            r[part] = 2 * chosen - (branch >> 1) * np.sign(chosen)
        else:
            r[part], state[lane] = _listed_path(column, target, down, part, before, how)
            for i in range(o, o + size):
                target[o + size :] += down[i, o + size :] * (column.x[i] - r[i])
        o += size
    return r


@dataclass(frozen=True, slots=True)
class Paths:
    """The cheapest paths through some entries of a column.

    Attributes:
        cost: [paths].
        state: [paths].
        target: of the entries from the first on, [paths, O].
        k: [paths, entries so far].
        r: the same in fine steps.
    """

    cost: NDArray[np.int64]
    state: NDArray[np.int64]
    target: Float32
    k: Int16
    r: Float32

    def some(self, which: NDArray[np.intp]) -> Paths:
        """Some of them."""
        return Paths(self.cost[which], self.state[which], self.target[which], self.k[which], self.r[which])

    def best(self) -> int:
        """The cheapest; of two the smaller state."""
        return int(np.argmin(self.cost * 256 + self.state))


def _listed_path(
    column: Column, target: Float32, down: Float32, part: slice, state: int, how: Successive
) -> tuple[Float32, int]:
    """The same search where a row's target depends on what the rows above leave: the cheapest paths are kept."""
    size = part.stop - part.start
    none = np.empty((1, 0))
    first = np.zeros(1, np.int64)
    paths = Paths(first, first + state, target[None, part], none.astype(np.int16), none.astype(np.float32))
    for t in range(size):
        if t % STRIP == 0 and t > MEMORY:
            same = (paths.k[:, : t - MEMORY] == paths.k[paths.best(), : t - MEMORY]).all(axis=1)
            paths = paths.some(np.flatnonzero(same))
        o = part.start + t
        cost, value = column.part(slice(o, o + 1), paths.target[:, t]).branches()
        paths = _ways_on(paths, cost, value, how)
        paths = paths.some(_cheapest(paths, how.survivors))
        left = column.x[o] - paths.r[:, t]
        paths.target[:, t + 1 :] += down[o, o + 1 : part.stop] * left[:, None]
    best = paths.best()
    return paths.r[best], int(paths.state[best])


def _ways_on(paths: Paths, cost: Int32, value: Int16, how: Successive) -> Paths:
    """Both ways on from each path, one after the other."""
    parent, parity = np.divmod(np.arange(2 * paths.cost.size), 2)
    book = paths.state[parent] & 1
    branch = 2 * book + parity
    k = value[branch, parent]
    r = (2 * k - book * np.sign(k)).astype(np.float32)
    return Paths(
        paths.cost[parent] + cost[branch, parent],
        (paths.state[parent] >> 1) ^ (book * how.tap0) ^ (parity * how.tap1),
        paths.target[parent],
        np.column_stack([paths.k[parent], k]),
        np.column_stack([paths.r[parent], r]),
    )


def _cheapest(paths: Paths, most: int) -> NDArray[np.intp]:
    """Of paths in the same state the cheapest, the first of those; of all of these the cheapest, in their order."""
    order = np.lexsort((np.arange(paths.cost.size), paths.cost, paths.state))
    alone = order[np.concatenate([[True], np.diff(paths.state[order]) > 0])]
    key = paths.cost[alone] * 256 + paths.state[alone]
    return np.sort(alone[np.argsort(key)[:most]])


def _path(cost: Int32, state: int, how: Successive) -> tuple[NDArray[np.int64], int]:
    """Branches of the path of least cost from a state, and the state it ends in."""
    half = 1 << how.bits >> 1
    j = np.arange(half)
    other, top = j ^ how.tap1, j ^ how.tap0
    old = np.full(2 * half, FAR, np.int32)
    old[state] = 0
    choices = np.empty((cost.shape[1], 2 * half), np.bool_)
    for c, choice in zip(cost.T, choices, strict=True):
        even, odd = old[0::2], old[1::2]
        x, y, u, v = even + c[0], even[other] + c[1], odd + c[2], odd[other] + c[3]
        old = np.empty_like(old)
        old[:half], choice[:half] = np.minimum(x, y), y < x
        old[top], choice[top] = np.minimum(u, v), v < u
    s = best = int(np.argmin(old))
    branch = np.empty(cost.shape[1], np.int64)
    for t in range(cost.shape[1] - 1, -1, -1):
        parity, book = int(choices[t, s]), int(s >= half)
        branch[t] = 2 * book + parity
        s = 2 * (s ^ book * how.tap0 ^ parity * how.tap1) + book
    return branch, best
