"""Weighted k-means, the quartic centroid, and the local expansions they come from."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from netweight.theory import codebooks, expansion, relu

W, I = np.array([-1, -0.9, 0, 0.1, 0.9, 1.2]), np.array([1.0, 2, 1, 4, 1, 3])


def test_a_small_example():
    book = codebooks.optimal(W, 3, I)
    assert list(book.assignment) == [0, 0, 1, 1, 2, 2]
    assert book.centroids == pytest.approx([-0.9333333, 0.08, 1.125], abs=1e-6)
    assert book.cost == pytest.approx(0.0821667, abs=5e-8)
    assert abs(float(relu.rule1_residual(W, book.values, np.diag(I)))) < 1e-15
    plain = codebooks.optimal(W, 3)
    assert plain.centroids == pytest.approx([-0.95, 0.05, 1.05], abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3))
def test_dynamic_programming_against_all_assignments(seed, size, k):
    rng = np.random.default_rng(seed)
    k = min(k, size)
    w, h = rng.normal(size=size), rng.exponential(size=size)
    best = np.inf
    for labels in product(range(k), repeat=size):
        a = np.array(labels)
        mass = np.bincount(a, h, k)
        c = np.bincount(a, h * w, k) / np.where(mass > 0, mass, 1)
        best = min(best, float((h * (w - c[a]) ** 2).sum()))
    assert codebooks.optimal(w, k, h).cost == pytest.approx(best, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(5, 200), st.integers(1, 5))
def test_lloyd_is_never_better_than_the_optimum_and_orthogonal_where_it_stops(seed, size, k):
    rng = np.random.default_rng(seed)
    w, h = rng.normal(size=size) + 3, rng.exponential(size=size)
    local, best = codebooks.lloyd(w, k, h, iterations=1000), codebooks.optimal(w, k, h)
    assert local.cost >= best.cost - 1e-9
    assert (np.diff(best.centroids) >= 0).all()
    for book in (local, best):
        assert abs(float((book.values * h * (w - book.values)).sum())) < 1e-8 * size
        nearest = np.abs(w[:, None] - book.centroids).argmin(1)
        assert float((h * (w - book.centroids[nearest]) ** 2).sum()) == pytest.approx(book.cost, abs=1e-9)


def test_zero_importance_goes_to_the_nearest_centroid():
    book = codebooks.optimal([0.0, 0.1, 5.0, 4.9], 2, [1.0, 1.0, 1.0, 0.0])
    assert book.assignment[3] == book.assignment[2]


def test_quartic_centroid():
    assert codebooks.quartic_centroid([0.1, 0.2, 0.9], [1, 1, 1], [5, 1, 50]) == pytest.approx(0.6194666, abs=5e-8)
    assert codebooks.quartic_centroid([0.1, 0.3], [1, 3], [0, 0]) == pytest.approx(0.25)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_quartic_centroid_against_the_real_root_and_a_minimiser(seed, size):
    rng = np.random.default_rng(seed)
    w, a, b = rng.normal(size=size), rng.exponential(size=size), rng.exponential(size=size) * 10
    c = codebooks.quartic_centroid(w, a, b)
    cubic = [(4 * b).sum(), -(12 * b * w).sum(), (12 * b * w**2 + 2 * a).sum(), -(4 * b * w**3 + 2 * a * w).sum()]
    roots = np.roots(cubic)
    assert c == pytest.approx(float(roots[np.abs(roots.imag).argmin()].real), abs=1e-6)
    best = minimize_scalar(lambda t: float((a * (w - t) ** 2 + b * (w - t) ** 4).sum()))
    assert c == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize("kind", list(expansion.SECOND_ORDER))
def test_divergence_coefficients(kind):
    rng = np.random.default_rng(0)
    f = rng.dirichlet(np.ones(5) * 4)
    delta = rng.normal(size=5)
    delta -= delta.mean()
    chi2 = float((delta**2 / f).sum())
    ratios = []
    for size in (1e-3, 1e-4):
        d = float(expansion.divergence_nats(f + size * delta, f, kind))
        ratios.append(d / (size**2 * chi2))
    assert ratios[1] == pytest.approx(expansion.SECOND_ORDER[kind], rel=2e-3)
    assert abs(ratios[1] - expansion.SECOND_ORDER[kind]) < abs(ratios[0] - expansion.SECOND_ORDER[kind]) + 1e-6


def test_softmax_importance_predicts_the_divergence():
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(200, 4)), rng.normal(size=(3, 4))
    info = expansion.softmax_importance(x, w)
    f = expansion.softmax(x @ w.T)
    assert np.diag(info).reshape(3, 4) == pytest.approx((f * (1 - f)).T @ x**2 / 200)
    assert np.linalg.eigvalsh(info)[0] > -1e-12
    shift = rng.normal(size=(3, 4)) * 1e-3
    kl = float(expansion.divergence_nats(expansion.softmax(x @ (w + shift).T), f).mean())
    assert kl / (0.5 * shift.ravel() @ info @ shift.ravel()) == pytest.approx(1, abs=5e-3)


def test_supervised_example_in_closed_form_and_by_sampling():
    assert float(expansion.supervised_loss(0.5, 0.7)) == pytest.approx(0.302575, abs=1e-12)
    rng = np.random.default_rng(1)
    x, noise = rng.standard_normal(500_000), 0.5 * rng.standard_normal(500_000)
    square = (((0.7 * x - noise) ** 2 - noise**2) / 2) ** 2
    assert abs(square.mean() - 0.302575) < 4 * square.std() / 500_000**0.5


def test_refusals():
    with pytest.raises(ValueError, match="k is 3"):
        codebooks.optimal([1.0, 2.0], 3)
    with pytest.raises(ValueError, match="4000"):
        codebooks.optimal(np.arange(5000.0), 2)
    with pytest.raises(ValueError, match="probability vector"):
        expansion.divergence_nats([0.5, 0.6], [0.5, 0.5])
    with pytest.raises(ValueError, match="kind"):
        expansion.divergence_nats([0.5, 0.5], [0.5, 0.5], "total_variation")
    assert all(a < b for a, b in pairwise(codebooks.optimal([3.0, 1.0, 2.0], 3).centroids))
