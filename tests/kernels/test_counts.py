"""What counts say of codes and rates: C and NumPy alike to the last bit, and by the formulas in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from netweight import kernels, kernels_counts, kernels_lattice, kernels_numpy_counts
from netweight.entropy import field_tables

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


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, tables=st.integers(1, 8))
def test_entropy(seed: int, tables: int) -> None:
    counts, _ = drawn(seed, tables)
    expected = sum(n * math.log2(sum(row) / n) for row in counts.tolist() for n in row if n)
    for part in (counts, counts[:, :300:7]):
        assert kernels_counts.entropy(part) == kernels_numpy_counts.entropy(part)
    assert kernels_counts.entropy(counts) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, tables=st.integers(1, 8), octave=st.sampled_from([4, 8]))
def test_entropy_of_levels(seed: int, tables: int, octave: int) -> None:
    """Against the levels that tables are written by."""
    counts, _ = drawn(seed, tables)
    found = kernels_counts.level_bits(counts, octave)
    assert found == kernels_numpy_counts.level_bits(counts, octave)
    occurs, used = counts.any(axis=1), np.flatnonzero(counts.any(axis=0))
    assert found[1:] == (used.size, int(occurs.sum()))
    if used.size:
        levels = field_tables._ideal(counts[occurs, used[0] : used[-1] + 1], octave)
        residuals = field_tables._wrapped(levels - field_tables._predictions(levels))
        each = np.unique(residuals, return_counts=True)[1]
        assert found[0] == pytest.approx(float(np.sum(each * np.log2(each.sum() / each))), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, n=st.integers(0, 700), wide=st.booleans(), largest=st.sampled_from([1, 9, 30_000]))
def test_multiple_that_fits_best(seed: int, n: int, wide: bool, largest: int) -> None:
    random = np.random.default_rng(seed)
    r = random.integers(-largest, largest + 1, n).astype(np.int32 if wide else np.int16)
    x = (0.3 * r + random.normal(size=n)).astype(np.float32)
    alpha, left = kernels_lattice.fit(x, r)
    assert (alpha, left) == kernels_lattice._fit(x, r)
    y, v = x.astype(np.float64), r.astype(np.float64)
    expected = np.float32(y @ v / (v @ v)) if v.any() else np.float32(0)
    assert alpha == pytest.approx(expected, rel=1e-6)
    assert left == pytest.approx(float(np.sum((y - np.float64(alpha) * v) ** 2)), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, tables=st.integers(1, 5), values=st.integers(1, 40), ties=st.booleans())
def test_cheap_levels(seed: int, tables: int, values: int, ties: bool) -> None:
    """No single level can be changed for a cheaper one, all before it being as they are."""
    random = np.random.default_rng(seed)
    tried = random.integers(0, 50, (tables, values, 5))
    cost = np.rint(9 * random.random(tried.shape)) if ties else 9 * random.random(tried.shape)
    price = 2 * np.log2(1 + 2 * np.arange(400))
    levels = kernels_counts.cheap_levels(tried, cost, price)
    np.testing.assert_array_equal(levels, kernels_numpy_counts.cheap_levels(tried, cost, price))
    before = np.zeros((tables, values), np.int64)
    before[:, 1:] += levels[:, :-1]
    before[1:] += np.diff(levels, axis=1, prepend=0)[:-1]
    prices = cost + price[np.abs(tried - before[:, :, None])]
    np.testing.assert_array_equal(levels, np.take_along_axis(tried, prices.argmin(axis=2)[..., None], 2)[..., 0])
