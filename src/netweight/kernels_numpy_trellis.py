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


def _candidates(u: Float32, index: NDArray[np.uint16], rate: Int32) -> tuple[Int32, Int16]:
    """Cost and value of the cheapest integer of each branch 2 codebook + parity: [4, n] each.

    Of the four around k = floor((|u| + codebook) / 2), k - 1 .. k + 2; of two as cheap, the smaller.
    """
    a, sign = _magnitudes(u)
    flat, start = rate.reshape(-1), index.astype(np.int64) * 512
    costs, values = np.empty((4, u.size), np.int32), np.empty((4, u.size), np.int16)
    for book in range(2):
        k = ((a + np.float32(book)) * np.float32(0.5)).astype(np.int32)
        twice = a - (2 * k).astype(np.float32)
        table = start + 256 * book
        below, here, above, far = (flat[table + _symbols(sign * (k + j))] for j in (-1, 0, 1, 2))
        around = (k > 1).astype(np.int32) - (k < 1)
        below += _squares(twice + (2 + book * around).astype(np.float32))
        here += _squares(twice + (book * (k > 0)).astype(np.float32))
        above += _squares(twice + np.float32(book - 2))
        far += _squares(twice + np.float32(book - 4))
        odd = (k & 1).astype(np.bool_)
        same, other = np.minimum(here, far), np.minimum(below, above)
        same_k, other_k = sign * np.where(far < here, k + 2, k), sign * np.where(above < below, k + 1, k - 1)
        costs[2 * book], costs[2 * book + 1] = np.where(odd, other, same), np.where(odd, same, other)
        values[2 * book], values[2 * book + 1] = np.where(odd, other_k, same_k), np.where(odd, same_k, other_k)
    return costs, values


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
    into = _merges(bits, tap0, tap1)
    cost, value = _candidates(np.asarray(u, np.float32), index, np.asarray(rate, np.int32))
    costs = np.zeros((steps, 4, LANES), np.int32)
    for branch in range(4):
        padded = np.zeros(steps * LANES, np.int32)
        padded[:n] = cost[branch]
        costs[:, branch] = padded.reshape(steps, LANES)
    choice = np.empty((steps, states * LANES // 8), np.uint8)
    old = np.full((states // 2, 2, 1, LANES), FAR, np.int32)
    old[0, 0] = 0
    new = old.reshape(states, LANES)
    sums = np.empty((states // 2, 2, 2, LANES), np.int32)
    arrivals = np.empty((2, states, LANES), np.int32)
    second = np.empty((states, LANES), np.bool_)
    for branch_costs, chosen in zip(costs.reshape(steps, 2, 2, LANES), choice, strict=True):
        np.add(old, branch_costs, out=sums)
        sums.reshape(-1, LANES).take(into, axis=0, out=arrivals, mode="clip")
        np.greater(arrivals[0], arrivals[1], out=second)
        np.minimum(arrivals[0], arrivals[1], out=new)
        chosen[:] = np.packbits(second, bitorder="little")
    path = _trace(choice, into, np.argmin(new, axis=0)).reshape(-1)[:n]
    chosen_values: Int16 = value[path, np.arange(n)]
    return chosen_values


def _trace(choice: NDArray[np.uint8], into: NDArray[np.int64], state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Branches of the paths that end in these states of the lanes, int64 [steps, 32]."""
    states = into.shape[1]
    flat = into.reshape(-1)
    lane = np.arange(LANES)
    byte, bit = lane >> 3, (lane & 7).astype(np.uint8)
    out = np.empty((len(choice), LANES), np.int64)
    for row in range(len(choice) - 1, -1, -1):
        which = choice[row].take(state * 4 + byte) >> bit & 1
        out[row] = flat.take(which * np.int64(states) + state)
        state = out[row] >> 1
    return out & 3
