"""What counts say of codes and rates: C and NumPy alike to the last bit, and by the formulas in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from netweight import kernels, kernels_counts, kernels_numpy_counts

pytestmark = pytest.mark.core
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, tables: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Counts with empty tables, narrow ones, escapes and the outermost values."""
    random = np.random.default_rng(seed)
    values = np.rint(random.laplace(scale=random.choice([0.3, 4.0, 60.0]), size=(tables, 3000))).clip(-128, 127) + 128
    counts = np.stack([np.bincount(row.astype(np.int64), minlength=256) for row in values]).astype(np.int64)
    counts[random.random(tables) < 0.3] = 0
    counts[0, [0, 1, 255]] += random.integers(0, 3, 3)
    return counts * random.integers(1, 1 << 30), random.random(tables) < 0.5


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, tables=st.integers(1, 8))
def test_length_of_a_code(seed: int, tables: int) -> None:
    counts, symmetric = drawn(seed, tables)
    bits, found = kernels_counts.code_bits(counts, symmetric)
    assert (bits, found) == kernels_numpy_counts.code_bits(counts, symmetric)
    expected, numbers = 0.0, 0
    for row, same in zip(counts.tolist(), symmetric.tolist(), strict=True):
        inner = [0, *row[1:255], 0]
        shape = [(inner[v] + inner[-v % 256]) / 2 for v in range(256)] if same else inner
        numbers += sum(n > 0 for n in (shape[128:] if same else shape))
        expected += sum(n * math.log2(sum(inner) / s) for n, s in zip(inner, shape, strict=True) if n)
    assert bits == pytest.approx(expected, rel=1e-12)
    assert found == (counts[:, [0, 255]].sum(), np.count_nonzero(counts[:, 1:255].any(axis=1)), numbers)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, tables=st.integers(1, 8), price=st.sampled_from([0.5, 300.0, 1e6]))
def test_rates_that_counts_teach(seed: int, tables: int, price: float) -> None:
    counts, symmetric = drawn(seed, tables)
    counts //= 1 << 20
    prior = np.random.default_rng(seed + 1).random((tables, 256)) + 1e-4
    before = np.full((tables, 256), 77, np.int32)
    rate = kernels_counts.learn(counts, prior, symmetric, 16.0, price, before)
    twin = before.copy()
    kernels_numpy_counts.learn(counts, prior, symmetric, np.array([16.0, price]), twin)
    np.testing.assert_array_equal(rate, twin)
    for t in range(tables):
        if not counts[t].any():
            assert (rate[t] == 77).all()
            continue
        learnt = counts[t] + 16 * prior[t]
        learnt = learnt + learnt[-np.arange(256)] if symmetric[t] else learnt
        expected = -price * np.log2(np.maximum(learnt / learnt.sum(), 1e-9))
        assert np.abs(rate[t] - np.minimum(expected, 2.0**24))[1:255].max() <= 0.5 + 1e-6
        assert (rate[t, [0, 255]] == 77).all()
    assert (before == 77).all()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, n=st.integers(0, 900), shift=st.integers(0, 9), spread=st.sampled_from([3, 300, 1 << 20]))
def test_integers_without_their_low_bits(seed: int, n: int, shift: int, spread: int) -> None:
    random = np.random.default_rng(seed)
    k, classes = random.integers(-spread, spread + 1, n).astype(np.int32), random.integers(0, 5, n).astype(np.uint8)
    counts, beyond, longer = kernels_counts.split(k, classes, shift, 5)
    twin = np.zeros((5, 256), np.int64)
    assert (beyond, longer) == kernels_numpy_counts.split(k, classes, shift, twin)
    np.testing.assert_array_equal(counts, twin)
    high = [v >> shift for v in k.tolist()]
    outside = [2 * abs(v) for v in high if not -127 <= v <= 126]
    assert beyond == len(outside)
    assert longer == sum((v >= 1 << 14) + (v >= 1 << 21) for v in outside)
    expected = np.zeros((5, 256), np.int64)
    for v, c in zip(high, classes.tolist(), strict=True):
        expected[c, v + 128 if -127 <= v <= 126 else 0] += 1
    np.testing.assert_array_equal(counts, expected)


def test_logarithm() -> None:
    """Within two units in the last place of 1 of libm's, and exact at powers of two."""
    x = np.exp(np.random.default_rng(0).uniform(-300, 300, 20_000))
    assert np.abs(kernels_numpy_counts.log2(x) - np.log2(x)).max() < 2.0**-43
    near = np.random.default_rng(1).uniform(0.5, 2.0, 20_000)
    assert np.abs(kernels_numpy_counts.log2(near) - np.log2(near)).max() < 2.0**-51
    assert kernels_numpy_counts.log2(2.0 ** np.arange(-40, 41)).tolist() == list(range(-40, 41))


def test_the_c_library_is_what_was_compared() -> None:
    if kernels.backend() != "c":
        pytest.skip("the C library is not in use: NumPy was compared with the formulas only")
    assert kernels_counts.LIBRARY is not None
