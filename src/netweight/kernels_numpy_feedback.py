"""Successive quantisation among the NumPy twins of csrc/kernels.c: columns one after the other, with feedback.

Float arithmetic is single precision in the order of the C code: every product and every difference is rounded, and a
target loses what the columns before it leave in their order.
"""

from __future__ import annotations

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
LONGEST_PATH = 4096


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
    x: Float32, start: Float32, m: Float32, paid: tuple[Float32, Float32], how: Successive, columns: range,
    contexts: tuple[NDArray[np.uint16], Bytes], rate: Int32, state: Bytes,
) -> tuple[Int16, Float32]:  # fmt: skip
    """Quantise columns of one kernel position and take what they leave off those that follow."""
    index, flip = contexts
    k, r = np.empty(index.shape, np.int16), np.empty(index.shape, np.float32)
    height = how.rows // how.groups
    for place, j in enumerate(columns):
        share = np.minimum(np.repeat(paid[0][:, j], height) * paid[1], np.float32(1))
        sign = np.where((x[j] < 0) != (flip[place] != 0), np.int32(-1), np.int32(1))
        if how.span:
            cost, value = _branches(x[j], share, sign, index[place], rate)
            k[place], r[place] = _column(cost, value, j, how, state)
        else:
            k[place] = _nearest(x[j], share, sign, index[place], rate)
            r[place] = k[place]
        error = r[place] - start[j]
        for g in range(how.groups):
            rows = slice(g * height, (g + 1) * height)
            x[j + 1 :, rows] -= m[g, j, j + 1 :, None] * error[rows]
    return k, r


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


def _column(cost: Int32, value: Int16, j: int, how: Successive, state: Bytes) -> tuple[Int16, Float32]:
    """Search a column in pieces: a lane ends, a piece of the tensor ends, or 4096 symbols are enough."""
    k, r = np.empty(how.rows, np.int16), np.empty(how.rows, np.float32)
    plane = j // how.per_plane
    o = 0
    while o < how.rows:
        at = (j - plane * how.per_plane) * how.rows + o
        lane, t = at // how.span, plane * how.span + at % how.span
        size = min(how.rows - o, how.span - at % how.span, LONGEST_PATH, how.run - t % how.run)
        part = slice(o, o + size)
        before = int(state[lane]) if t % how.run else 0
        branch, state[lane] = _path(cost[:, part], before, how)
        chosen = value[branch, np.arange(o, o + size)]
        k[part] = chosen
        r[part] = 2 * chosen - (branch >> 1) * np.sign(chosen)
        o += size
    return k, r


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
