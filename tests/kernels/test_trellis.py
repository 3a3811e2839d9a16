"""The trellis quantiser against every path, against greed, and against the gain that theory gives it."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netweight import kernels
from netweight.kernels import Model, Segment

pytestmark = pytest.mark.core
BITS = [3, 4, 5, 6, 7, 8]


def symbol_of(k: int) -> int:
    return k + 128 if -127 <= k <= 126 else 255 * (k & 1)


def cost_of(u: float, k: int, book: int, rate: NDArray[np.int32]) -> int:
    """2^10 (u - r)^2, towards zero, + rate: exact, as the tests' u are multiples of 1/16."""
    fine = 2 * k - book * int(np.sign(k))
    return int(1024 * (u - fine) ** 2) + int(rate[book, symbol_of(k)])


def around(u: float, book: int) -> list[int]:
    """The four integers that are looked at."""
    sign, low = -1 if u < 0 else 1, int((abs(u) + book) / 2)
    return [sign * (low + j) for j in (-1, 0, 1, 2)]


def costs_of(k: NDArray[np.int16], u: NDArray[np.float32], rate: NDArray[np.int32], model: Model) -> NDArray[np.int64]:
    """What each lane's path costs, its codebooks by the coder's own contexts."""
    _, book, _ = kernels.contexts(k, model, Segment(k.size))
    cost = [cost_of(float(u[i]), int(k[i]), int(book[i]), rate[i]) for i in range(k.size)]
    return np.bincount(np.arange(k.size) % 32, weights=cost, minlength=32).astype(np.int64)


def model_of(taps: tuple[int, int]) -> Model:
    return Model(2, 1, *taps, np.zeros((1, 4), np.int32))


def after(state: int, parity: int, taps: tuple[int, int]) -> int:
    return (state >> 1) ^ (state & 1) * taps[0] ^ parity * taps[1]


@pytest.mark.parametrize("highest_rate", [1, 4000])
@pytest.mark.parametrize("bits", BITS)
def test_no_path_is_cheaper(taps: Any, bits: int, highest_rate: int) -> None:
    """All 2^6 paths of each lane; without rates the candidates are all integers in reach, else the four around."""
    random = np.random.default_rng(bits)
    steps = 6
    u = (random.integers(-96, 97, 32 * steps) / 16).astype(np.float32)
    index = random.integers(0, 2, u.size).astype(np.uint16)
    rate = random.integers(0, highest_rate, (2, 2, 256)).astype(np.int32)
    k = kernels.trellis(u, index, rate, bits, *taps(bits))
    costs = costs_of(k, u, rate[index], model_of(taps(bits)))
    for lane in range(32):
        least = 1 << 60
        for parities in product((0, 1), repeat=steps):
            state = total = 0
            for i, parity in zip(range(lane, u.size, 32), parities, strict=True):
                book, x = state & 1, float(u[i])
                reach = around(x, book) if highest_rate > 1 else list(range(-9, 10))
                total += min(cost_of(x, c, book, rate[index[i]]) for c in reach if c & 1 == parity)
                state = after(state, parity, taps(bits))
            least = min(least, total)
        assert costs[lane] == least


@pytest.mark.parametrize("n", [1, 31, 33, 700])
@pytest.mark.parametrize("bits", BITS)
def test_never_dearer_than_greed(taps: Any, bits: int, n: int) -> None:
    """Greed takes the cheapest integer of the codebook in force and lives with the state that follows."""
    random = np.random.default_rng(n)
    u = (np.rint(random.laplace(scale=3, size=n) * 16) / 16).astype(np.float32)
    rate = np.repeat(random.integers(0, 3000, (1, 2, 256)), n, axis=0).astype(np.int32)
    greedy, states = np.zeros(n, np.int16), [0] * 32
    for i in range(n):
        book = states[i % 32] & 1
        greedy[i] = min(around(float(u[i]), book), key=lambda k: cost_of(float(u[i]), k, book, rate[i]))
        states[i % 32] = after(states[i % 32], int(greedy[i]) & 1, taps(bits))
    k = kernels.trellis(u, np.zeros(n, np.uint16), rate[:1], bits, *taps(bits))
    model = model_of(taps(bits))
    ours, theirs = (costs_of(path, u, rate, model) for path in (k, greedy))
    assert (ours <= theirs).all()
    assert n < 700 or ours.sum() < 0.97 * theirs.sum()


def test_gain_over_scalar(taps: Any) -> None:
    """Uniform source, no rates: gain over step 2 in dB grows with the states and stays below the bound of 1.53."""
    u = np.random.default_rng(1).uniform(-60, 60, 1 << 16).astype(np.float32)
    index, rate = np.zeros(u.size, np.uint16), np.zeros((1, 2, 256), np.int32)
    gains_db = []
    for bits in BITS:
        k = kernels.trellis(u, index, rate, bits, *taps(bits))
        _, _, fine = kernels.contexts(k, model_of(taps(bits)), Segment(u.size))
        gains_db.append(10 * np.log10(4 / 12 / np.mean((u - fine) ** 2)))
    assert gains_db[0] > 0.75
    assert gains_db[-1] > 1.25
    assert all(more > less - 0.02 for less, more in pairwise(gains_db))
    assert max(gains_db) < 1.53


def test_escapes_keep_their_size(taps: Any) -> None:
    """Far outside the tables the rate is the escape's, and the integer still the nearest of its parity."""
    u = np.array([500.25, -3000.5, 20_000.0, -254.0, 252.9] * 13, np.float32)
    k = kernels.trellis(u, np.zeros(u.size, np.uint16), np.zeros((1, 2, 256), np.int32), 4, *taps(4))
    _, book, _ = kernels.contexts(k, model_of(taps(4)), Segment(u.size))
    fine = 2 * k.astype(np.int64) - book * np.sign(k)
    assert np.abs(u - fine).max() <= 2


def test_rounding_weighs_rate_against_distortion() -> None:
    """By hand: 0.6 goes to 1 for free, to 0 where 1 costs more than the 2^10 (0.36 - 0.16) it saves."""
    u, index = np.array([0.6, 0.6, -2.4, 0.0, 7.5], np.float32), np.array([0, 1, 1, 1, 0], np.uint16)
    rate = np.zeros((2, 256), np.int32)
    rate[1, 129] = 206
    assert kernels.round_rd(u, index, rate).tolist() == [1, 0, -2, 0, 8]
    rate[1, 129] = 203
    assert kernels.round_rd(u, index, rate).tolist() == [1, 1, -2, 0, 8]
    rate[1, 126] = 20_000
    rate[1, 127] = 20_000
    assert kernels.round_rd(u, index, rate).tolist() == [1, 1, 0, 0, 8]
