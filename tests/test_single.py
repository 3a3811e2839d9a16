"""Single precision: what it makes of a matrix against double, and which matrices it is not used for."""

from dataclasses import replace

import numpy as np
import pytest

from netweight.codecs.matrix import Matrix
from netweight.codecs.ridge import Spectrum
from netweight.entropy.layout import Layout
from netweight.importance.core import Importance
from netweight.importance.given import spent
from netweight.importance.record import Record
from netweight.importance.sums import Sums
from netweight.single import LAPACK, LARGE, cholesky, eigh, single

N = LARGE + 24


def moments(seed: int, samples: int, least: float) -> np.ndarray:
    """Of inputs of very different size with one common direction, and a share of their diagonal: [1, N, N]."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((samples, N)) * 2.0 ** random.uniform(-2, 2, N) + random.standard_normal(N)
    a = x.T @ x / samples
    return (a + least * np.diag(np.diag(a)))[None]


@pytest.mark.parametrize(("samples", "least"), [(4 * N, 0.0), (N // 2, 0.01), (50, 0.002)])
def test_the_decompositions_are_those_of_double_precision(samples, least):
    a = moments(samples, samples, least)
    small = single(a)
    assert small.dtype == np.float32
    values, basis = eigh(small)
    truth = np.linalg.eigvalsh(a)
    assert np.abs(values - truth).max() < 1e-6 * truth.max()
    assert np.abs(basis[0].T @ basis[0] - np.eye(N)).max() < 1e-5
    assert np.linalg.norm(basis * values[:, None] @ np.swapaxes(basis, 1, 2) - a) < 1e-5 * np.linalg.norm(a)
    assert np.linalg.norm(basis * values[:, None] @ np.swapaxes(basis, 1, 2) - a) > 0
    factor, exact = cholesky(small), np.linalg.cholesky(a)
    assert np.abs(np.diagonal(factor[0]) / np.diagonal(exact[0]) - 1).max() < 1e-3


@pytest.mark.skipif(LAPACK is None, reason="this NumPy computes in double precision only")
def test_single_is_computed_in_single():
    a = moments(0, 2 * N, 0.0)
    values, basis = eigh(a.astype(np.float32))
    assert (values.dtype, basis.dtype, cholesky(a.astype(np.float32)).dtype) == (np.float32,) * 3
    assert not np.array_equal(values, np.linalg.eigh(a.astype(np.float32))[0])


@pytest.mark.parametrize(
    "a",
    [
        moments(0, 50, 0.0),  # singular
        moments(0, 50, 1e-4),  # as far from it as single precision can just tell
        moments(0, 2 * N, 0.0) * 1e-30,
        moments(0, 2 * N, 0.0) * 1e30,
        moments(0, 2 * N, 0.0)[:, :LARGE, :LARGE],
    ],
    ids=["singular", "near", "tiny", "huge", "few columns"],
)
def test_other_matrices_stay_in_double_precision(a):
    assert single(a) is a


def test_a_factor_to_come_counts():
    a = moments(0, 2 * N, 0.0)
    assert single(a, 2.0**-80) is a
    assert single(a, 0.5).dtype == np.float32


def test_there_are_errors_where_there_is_no_decomposition():
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(-np.eye(3, dtype=np.float32))
    with pytest.raises(np.linalg.LinAlgError):
        eigh(np.full((3, 3), np.nan, np.float32))


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 1.0, 1e3, 1e30])
@pytest.mark.parametrize("full", [False, True], ids=["rows", "G"])
def test_targets_and_losses_are_those_of_double_precision(rate, full):
    random = np.random.default_rng(0)
    a = moments(1, N, 0.02)
    w = random.standard_normal((1, 32, N)).astype(np.float32)
    g = np.cov(random.standard_normal((32, 50))) if full else None
    double = Matrix(w, a, Layout(32, N), None if g is None else np.diagonal(g)[None], g)
    theta = rate * float(np.trace(a[0])) / N
    found = []
    for matrix in (double, replace(double, a=single(a))):
        spectrum = Spectrum.of(matrix)
        target = spectrum.target(theta)
        rates = spectrum.rates(theta).sum()
        found.append((target, rates, spectrum.expected_sum(theta), *matrix.inner(w, w)))
    (exact, *numbers), (close, *others) = found
    assert others == pytest.approx(numbers, rel=1e-4)
    apart = close.shrunk - exact.shrunk
    assert double.inner(apart, apart)[0] <= 1e-4 * numbers[1]
    assert np.linalg.norm(close.factor - exact.factor) <= 1e-4 * np.linalg.norm(exact.factor)
    assert np.isfinite(close.factor).all()


def test_what_was_measured_comes_in_single_precision_to_codecs_only():
    halves = np.stack([moments(seed, 2 * N, 0.0) for seed in (0, 1)])
    sums = Sums((8, N), halves, np.ones((2, 8)), (500.0, 500.0))
    importance = Importance({"w": (sums,)}, Record(samples=1000, predictions=1000.0))
    stat, given = importance["w"], spent(importance, "w")
    assert (stat.inputs.dtype, given.inputs.dtype, given.spent) == (np.float64, np.float32, True)
    e = np.random.default_rng(0).standard_normal((8, N)).astype(np.float32)
    assert given.loss(e, e) == pytest.approx(stat.loss(e, e), rel=1e-5)
    assert given.flat().weight == pytest.approx(stat.flat().weight, rel=1e-6)
