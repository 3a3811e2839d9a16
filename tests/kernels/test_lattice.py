"""A pass over runs in one call gives what its kernels give one by one, by every path; sums of 16 bits lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from netweight import kernels, kernels_decode, kernels_lattice, kernels_numpy, kernels_numpy_trellis
from netweight.codecs.lattice import _prior_price
from netweight.entropy.layout import Layout, Levels
from netweight.entropy.stream import model_of, table_count
from netweight.entropy.trellis import TAPS
from netweight.kernels import Segment

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(kernels.backend() != "c", reason="the C library is not in use: nothing to compare with"),
]
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.sampled_from([(1,), (700,), (40, 50), (3, 5, 3, 3), (6, 32, 3, 3), (40, 2, 2, 3)])


@settings(deadline=None, max_examples=120)
@given(
    seed=SEEDS,
    shape=SHAPES,
    bits=st.sampled_from([0, 3, 8]),
    scale=st.sampled_from([0.3, 2.0, 30.0, 150.0]),
    run=st.sampled_from([32, 100, 4096]),
    guessed=st.booleans(),
    path=st.integers(0, 2),
)
def test_one_call_gives_what_its_parts_give(
    seed: int, shape: tuple[int, ...], bits: int, scale: float, run: int, guessed: bool, path: int
) -> None:
    random = np.random.default_rng(seed)
    layout = Layout.of(shape)
    model = model_of(bits, layout.plane > 0)
    row, column = (random.integers(-6, 7, n).astype(np.int16) for n in (layout.rows, layout.places))
    levels = Levels(int(random.integers(0, 30)), row, column)
    like = Segment(0, 0, layout.plane, layout.width, layout.positions, grid=levels.grid(layout))
    x = random.laplace(scale=scale, size=layout.size).astype(np.float32)
    rate = random.integers(0, random.choice([1, 3000, 9000]), (table_count(model), 256)).astype(np.int32)
    runs = [(at, min(run, layout.size - at)) for at in range(0, layout.size, run)][:: 1 + seed % 2]
    guess = random.integers(-9, 10, layout.size).astype(np.int16) * np.int16(guessed)
    found = []
    try:
        kernels_decode.WIDEST = path
        for way in (kernels_lattice.choose, kernels_lattice._in_parts):
            k, fine = np.zeros(layout.size, np.int16), guess.copy()
            counts = way(x, np.float32(0.7), runs, like, model, rate, bits, k, fine)
            found.append((counts, k, fine))
    finally:
        kernels_decode.WIDEST = 2
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found[0][0].sum() == sum(size for _, size in runs)


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("highest", [1, 3000, 100_000])
def test_every_path_searches_alike(bits: int, highest: int) -> None:
    """Scalar, AVX2, AVX-512 and NumPy, over steps enough to take the least sum off many times."""
    random = np.random.default_rng(bits + highest)
    u = random.laplace(scale=4, size=32 * 150 + 5).astype(np.float32)
    u[[100, 3000]] = 400, -2500
    index = random.integers(0, 3, u.size).astype(np.uint16)
    rate = random.integers(0, highest, (3, 2, 256)).astype(np.int32)
    expected = kernels_numpy.trellis(u, index, rate, bits, *TAPS[bits])
    try:
        for kernels_decode.WIDEST in (0, 1, 2):
            np.testing.assert_array_equal(kernels.trellis(u, index, rate, bits, *TAPS[bits]), expected)
    finally:
        kernels_decode.WIDEST = 2


def wide(u: NDArray[np.float32], index: NDArray[np.uint16], rate: NDArray[np.int32], bits: int) -> NDArray[np.int16]:
    """The search by sums of 64 bits that nothing is ever taken off."""
    steps, states = -(-u.size // 32), 1 << bits
    cost, value = np.zeros((4, steps * 32), np.int32), np.zeros((4, steps * 32), np.int16)
    kernels_numpy_trellis._candidates(u, index, rate, cost[:, : u.size], value[:, : u.size])
    into = kernels_numpy_trellis._merges(bits, *TAPS[bits])
    total = np.full((states, 32), 1 << 40, np.int64)
    total[0] = 0
    choices = []
    for step in cost.reshape(4, steps, 32).swapaxes(0, 1):
        first, second = total[into >> 1] + step[into & 3]
        choices.append(np.packbits(first > second))
        total = np.minimum(first, second)
    path = kernels_numpy_trellis._trace(choices, into, np.argmin(total, axis=0)).reshape(-1)[: u.size]
    chosen: NDArray[np.int16] = value[path, np.arange(u.size)]
    return chosen


@pytest.mark.parametrize("scale", [0.5, 3.0, 20.0])
def test_sums_of_sixteen_bits_lose_nothing(scale: float) -> None:
    """At the rates of tables that fit, all integers are those of a search without bounds."""
    random = np.random.default_rng(5)
    u = (scale * random.standard_t(4, 32 * 3000)).astype(np.float32)
    index = np.full(u.size, 8 + round(4 * np.log2(scale)), np.uint16)
    rate = _prior_price(2, 1, 0.3).reshape(-1, 2, 256)
    np.testing.assert_array_equal(kernels.trellis(u, index, rate, 8, *TAPS[8]), wide(u, index, rate, 8))
