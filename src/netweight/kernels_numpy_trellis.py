"""The quantisers among the NumPy twins of csrc/kernels.c: rounding by rate and distortion, and the trellis.

Float arithmetic is single precision in the order of the C code, so that both paths choose the same integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netweight.kernels import Float32, Int16, Int32

LANES = 32
CENTRE = 128
FAR = 1 << 28
BLOCK = 1 << 14  # symbols whose candidates are found at once, so that they stay in cache
# What a branch costs above the cheapest of four, at most; where sums stop; steps after which the least is taken off.
MOST, FULL, TURN = 8191, np.uint16(65535), 16


def _symbols(k: Int32) -> Int32:
    """Place of an integer in a table of 256 rates; escapes by parity."""
    escape = (k < 1 - CENTRE) | (k > CENTRE - 2)
    return np.where(escape, np.where(k & 1, 255, 0), k + CENTRE).astype(np.int32)


def _magnitudes(u: Float32) -> tuple[Float32, Int32]:
    negative = u < 0
    return np.where(negative, -u, u), np.where(negative, np.int32(-1), np.int32(1))


def _squares(d: Float32) -> Int32:
    """2^10 d^2, towards zero."""
    return (d * d * np.float32(1024)).astype(np.int32)


def round_rd(u: Float32, index: NDArray[np.uint16], rate: Int32) -> Int16:
    """Integers k with the least 2^10 (u - k)^2 + rate[index, k] of the nearest, the next towards zero, and zero."""
    a, sign = _magnitudes(np.asarray(u, np.float32))
    flat, start = np.asarray(rate, np.int32).reshape(-1), index.astype(np.int64) * 256
    best = (a + np.float32(0.5)).astype(np.int32)
    after = best - (best > 0)
    cost = _squares(a - best.astype(np.float32)) + flat[start + _symbols(sign * best)]
    other = _squares(a - after.astype(np.float32)) + flat[start + _symbols(sign * after)]
    small = a < np.float32(16)
    zero = np.where(small, _squares(np.where(small, a, np.float32(0))) + flat[start + CENTRE], np.int32(FAR))
    best = np.where(other < cost, after, best)
    best[zero < np.minimum(cost, other)] = 0
    return (sign * best).astype(np.int16)


def _candidates(u: Float32, index: NDArray[np.uint16], rate: Int32, costs: Int32, values: Int16) -> None:
    """Cost and value of the cheapest integer of each branch 2 codebook + parity, into arrays [4, n].

    Of the four around k = floor((|u| + codebook) / 2), k - 1 .. k + 2; of two as cheap, the smaller.
    """
    a, sign = _magnitudes(u)
    flat, start = rate.reshape(-1), index.astype(np.int64) * 512
    tame = not a.size or float(a.max()) < 2 * CENTRE - 16  # no escape among the candidates
    for book in range(2):
        k = ((a + np.float32(book)) * np.float32(0.5)).astype(np.int32)
        twice = a - (2 * k).astype(np.float32)
        table = start + 256 * book
        if tame:
            here_at = table + CENTRE + sign * k
            below, here, above, far = (flat[here_at + j * sign] for j in (-1, 0, 1, 2))
        else:
            below, here, above, far = (flat[table + _symbols(sign * (k + j))] for j in (-1, 0, 1, 2))
        around = (k > 1).astype(np.int32) - (k < 1)
        below += _squares(twice + (2 + book * around).astype(np.float32))
        here += _squares(twice + (book * (k > 0)).astype(np.float32))
        above += _squares(twice + np.float32(book - 2))
        far += _squares(twice + np.float32(book - 4))
        odd = (k & 1).astype(np.bool_)
        same, other = np.minimum(here, far), np.minimum(below, above)
        same_k, other_k = sign * (k + 2 * (far < here)), sign * (k - 1 + 2 * (above < below))
        costs[2 * book], costs[2 * book + 1] = np.where(odd, other, same), np.where(odd, same, other)
        values[2 * book], values[2 * book + 1] = np.where(odd, other_k, same_k), np.where(odd, same_k, other_k)


def _merges(bits: int, tap0: int, tap1: int) -> NDArray[np.int64]:
    """The two transitions 2 s + parity into each state, by s and then parity: int64 [2, 2^bits]."""
    transition = np.arange(2 << bits)
    s, parity = transition >> 1, transition & 1
    target = (s >> 1) ^ (s & 1) * tap0 ^ parity * tap1
    order = np.argsort(target, kind="stable")
    if not np.array_equal(target[order], transition >> 1):
        raise ValueError(f"taps {tap0} and {tap1} do not lead two branches into each of {1 << bits} states")
    return np.ascontiguousarray(order.reshape(-1, 2).T)


def trellis(u: Float32, index: NDArray[np.uint16], rate: Int32, bits: int, tap0: int, tap1: int) -> Int16:
    """Integers of the cheapest path of each lane through a trellis of 2^bits states; rate int32 [T, 2, 256]."""
    n, states, steps = u.size, 1 << bits, -(-u.size // LANES)
    u, rate = np.asarray(u, np.float32), np.asarray(rate, np.int32)
    cost, value = np.zeros((4, steps * LANES), np.uint16), np.zeros((4, steps * LANES), np.int16)
    for at in range(0, n, BLOCK):
        part = slice(at, min(at + BLOCK, n))
        cheapest = np.empty((4, u[part].size), np.int32)
        _candidates(u[part], index[part], rate, cheapest, value[:, part])
        cost[:, part] = np.minimum(cheapest - cheapest.min(axis=0), MOST)
    into = _merges(bits, tap0, tap1)
    source, branch = into >> 1, into & 3  # transition 2 s + parity takes branch 2 (s mod 2) + parity
    total = np.full((states, LANES), FULL, np.uint16)
    total[0] = 0
    arrivals, added, room = (np.empty((2, states, LANES), np.uint16) for _ in range(3))
    first, second = arrivals
    later, choices = np.empty((states, LANES), np.bool_), []
    for step, step_cost in enumerate(np.ascontiguousarray(cost.reshape(4, steps, LANES).swapaxes(0, 1)), 1):
        total.take(source, axis=0, out=arrivals, mode="clip")
        step_cost.take(branch, axis=0, out=added, mode="clip")
        np.subtract(FULL, added, out=room)
        np.minimum(arrivals, room, out=arrivals)  # sums stop at 65535
        np.add(arrivals, added, out=arrivals)
        np.greater(first, second, out=later)
        np.minimum(first, second, out=total)
        if step % TURN == 0:
            total -= total.min(axis=0)
        choices.append(np.packbits(later))
    path = _trace(choices, into, np.argmin(total, axis=0)).reshape(-1)[:n]
    chosen: Int16 = value[path, np.arange(n)]
    return chosen


def _trace(choices: list[NDArray[np.uint8]], into: NDArray[np.int64], state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Branches of the paths that end in these states of the lanes, int64 [steps, 32]."""
    lane = np.arange(LANES)
    before = ((into >> 1)[:, :, None] * LANES + lane).reshape(-1)  # place s 32 + lane one step earlier
    half, place = np.array(into[0].size * LANES), state * LANES + lane
    arrival, later = np.empty((len(choices), LANES), np.int64), np.empty(LANES, np.uint8)
    for choice, row in zip(reversed(choices), arrival[::-1], strict=True):
        np.unpackbits(choice).take(place, out=later, mode="clip")
        np.multiply(later, half, out=row)
        np.add(row, place, out=row)
        before.take(row, out=place, mode="clip")
    branches: NDArray[np.int64] = (into & 3).reshape(-1)[arrival // LANES]
    return branches
