"""One ReLU unit: the exact error, what survives of Theorem 4, and the counter-examples."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.optimize import minimize_scalar

from netweight.theory import codebooks, relu

W, V, S = np.array([0.7, -0.3, 1.1]), np.array([0.5, 0.0, 1.3]), np.diag([1.0, 2.0, 0.5])


def test_hermite_squares():
    squares = [0.15915494, 0.25, 0.07957747, 0, 0.00663146, 0, 0.00198944, 0, 0.00088814]
    assert relu.hermite_coefficients(8) ** 2 == pytest.approx(squares, abs=5e-9)
    assert relu.hermite_coefficients(0).shape == (1,)
    for p in (2, 4, 6):
        basis = np.polynomial.hermite_e.HermiteE.basis(p)
        found = integrate.quad(lambda t, b=basis: t * b(t) * stats.norm.pdf(t), 0, 40)[0] / factorial(p) ** 0.5
        assert relu.hermite_coefficients(p)[p] == pytest.approx(found, abs=1e-8), "the sign alternates"


@given(st.floats(-0.95, 0.95))
def test_the_series_sums_to_the_arc_cosine_kernel(rho):
    c = relu.hermite_coefficients(150)
    assert float((c**2 * rho ** np.arange(151)).sum()) == pytest.approx(float(relu.kappa(rho)) / 2, abs=1e-5)


def test_exact_error_of_the_example():
    assert float(relu.error(W, V, S)) == pytest.approx(0.108956, abs=5e-7)
    x = np.random.default_rng(0).standard_normal((1_000_000, 3)) * np.sqrt(np.diag(S))
    loss = (np.maximum(x @ W, 0) - np.maximum(x @ V, 0)) ** 2
    assert abs(loss.mean() - 0.108956) < 4 * loss.std() / 1000


def test_the_printed_series_is_wrong_for_norms_other_than_one():
    """sum_p c_p^2 (A^p - 2 (w S v)^p + (v S v)^p) passes 0.155755 on its way to infinity; the error is 0.108956."""
    a, b, ab = W @ S @ W, V @ S @ V, W @ S @ V
    c = relu.hermite_coefficients(120) ** 2
    terms = [c[p] * (a**p - 2 * ab**p + b**p) for p in range(121)]
    partial = np.cumsum(terms)
    assert np.abs(partial - 0.155755).min() < 1e-5
    assert partial[-1] > 1e3


def test_importance_is_half_the_input_covariance():
    x = np.random.default_rng(1).standard_normal((400_000, 3)) * np.sqrt(np.diag(S))
    gradient = x * (x @ W > 0)[:, None]
    assert gradient.T @ gradient / len(x) == pytest.approx(relu.importance(S), abs=0.01)


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_corollary_1_survives_for_diagonal_inputs(seed, size):
    rng = np.random.default_rng(seed)
    w, lam = rng.normal(size=size), np.exp(rng.normal(size=size))
    for keep in range(1, size):
        subset, best = relu.best_subset(w, np.diag(lam), keep)
        by_score = np.sort(np.argsort(-(lam * w**2), kind="stable")[:keep])
        chosen = np.zeros(size)
        chosen[by_score] = w[by_score]
        assert float(relu.error(w, chosen, np.diag(lam))) == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert abs(float(relu.rule1_residual(w, chosen, np.diag(lam)))) < 1e-12
        assert len(subset) == keep


def test_corollary_1_fails_for_some_correlated_inputs():
    """The quadratic over subsets and the exact error disagree in about 2 % of random problems."""
    rng, failures, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        factor = rng.standard_normal((5, 5))
        cov, w = factor @ factor.T, rng.normal(size=5)
        rows = np.zeros((10, 5))
        for row, kept in zip(rows, combinations(range(5), 2), strict=True):
            row[list(kept)] = w[list(kept)]
        exact, quadratic = relu.error(w, rows, cov), relu.quadratic_error(w, rows, cov)
        failures += int(exact.argmin() != quadratic.argmin())
    assert 0.01 < failures / trials < 0.04


def test_theorem_4_is_false_for_classes_closed_under_scaling():
    w = [1.0, 0.2]
    assert float(relu.error(w, [0.6, 0.6], np.eye(2))) == pytest.approx(0.1419715, abs=5e-8)
    assert float(relu.error(w, [0.6150237] * 2, np.eye(2))) == pytest.approx(0.1417458, abs=5e-8)
    assert 0.6 * relu.centroid_scale(w, [0.6, 0.6], np.eye(2)) == pytest.approx(0.6150237, abs=5e-8)
    best = minimize_scalar(lambda c: float(relu.error(w, [c, c], np.eye(2))), bounds=(0.3, 0.9), method="bounded")
    assert best.x == pytest.approx(0.6150237, abs=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_rescaled_centroids_are_never_worse_and_gain_little(seed):
    rng = np.random.default_rng(seed)
    w, lam = rng.normal(size=7), np.exp(rng.normal(size=7) / 2)
    values = codebooks.optimal(w, 2, lam).values
    plain = float(relu.error(w, values, np.diag(lam)))
    scaled = float(relu.error(w, values * relu.centroid_scale(w, values, np.diag(lam)), np.diag(lam)))
    assert scaled <= plain + 1e-12


@given(st.integers(0, 2**32 - 1))
def test_the_error_is_symmetric_homogeneous_and_zero_only_at_equality(seed):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((4, 4))
    cov, w, v = factor @ factor.T, rng.normal(size=4), rng.normal(size=4)
    assert relu.error(w, v, cov) == pytest.approx(float(relu.error(v, w, cov)))
    assert relu.error(3 * w, 3 * v, cov) == pytest.approx(9 * float(relu.error(w, v, cov)))
    assert float(relu.error(w, w, cov)) < 1e-6 * float(w @ cov @ w)
    assert relu.error(w, np.zeros(4), cov) == pytest.approx(float(w @ cov @ w) / 2)


def test_refusals():
    with pytest.raises(ValueError, match="rho"):
        relu.kappa(1.5)
    with pytest.raises(ValueError, match="at most 20"):
        relu.best_subset(np.ones(25), np.eye(25), 3)
    with pytest.raises(ValueError, match="points along"):
        relu.centroid_scale([1.0], [-1.0], np.eye(1))
    with pytest.raises(ValueError, match="order"):
        relu.hermite_coefficients(200)
