"""A level of the ladder: C and NumPy agree, and what is sent and what is missing make up the weight."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netweight import kernels_ladder
from netweight.kernels_ladder import add_level, send_level

pytestmark = pytest.mark.core

LEVELS = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 2000), st.integers(1, 1 << 20), st.sampled_from([1e2, 1e4, 1e6, 2e9])
)


def by_numpy(name: str, *arguments: object) -> object:
    """Call a function without the C library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels_ladder, "LIBRARY", None)
        return getattr(kernels_ladder, name)(*arguments)


def residuals(seed: int, n: int, scale: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.clip(random.standard_normal(n) * scale, -(2**30), 2**30).astype(np.int32)


@given(level=LEVELS)
def test_both_paths_send_the_same(level):
    seed, n, threshold, scale = level
    a = residuals(seed, n, scale)
    a[: min(4, n)] = [threshold, threshold + 1, -threshold, -threshold - 1][: min(4, n)]
    b = a.copy()
    k, other = send_level(a, threshold, threshold // 5), by_numpy("send_level", b, threshold, threshold // 5)
    assert k.dtype == other.dtype
    np.testing.assert_array_equal(k, other)
    np.testing.assert_array_equal(a, b)
    totals = np.zeros((2, n), np.int32)
    add_level(totals[0], k, threshold, threshold // 5)
    by_numpy("add_level", totals[1], k, threshold, threshold // 5)
    np.testing.assert_array_equal(totals[0], totals[1])


@given(level=LEVELS)
def test_sent_and_missing_make_up_the_weight(level):
    seed, n, threshold, scale = level
    before = residuals(seed, n, scale)
    missing, total = before.copy(), np.zeros(n, np.int32)
    k = send_level(missing, threshold, threshold // 5)
    add_level(total, k, threshold, threshold // 5)
    np.testing.assert_array_equal(total.astype(np.int64) + missing, before)
    np.testing.assert_array_equal(k != 0, np.abs(before.astype(np.int64)) > threshold)
    assert (np.abs(missing)[k != 0] < np.abs(before)[k != 0]).all(), "a level brings a weight nearer"
    assert (np.abs(missing) <= threshold).all()


def test_sums_wrap_as_the_format_says():
    for add in (add_level, lambda *a: by_numpy("add_level", *a)):
        total = np.full(3, 2**31 - 5, np.int32)
        add(total, np.array([1, 0, -1], np.int16), 10, 2)
        assert total.tolist() == [7 - 2**31, 2**31 - 5, 2**31 - 17]
        add(total, np.full(3, 1 << 22, np.int32), 11520, 2304)
        wide = (1 << 22) * 11520 + 2304
        assert total.tolist() == [(x + wide + 2**31) % 2**32 - 2**31 for x in (7 - 2**31, 2**31 - 5, 2**31 - 17)]
