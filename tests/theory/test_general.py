"""Bounds for any law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from netweight.theory import correlated, discrete, gaussian, general


def test_gaussian_entropy_against_scipy():
    cov = np.array([[2.0, 0.3], [0.3, 0.5]])
    assert general.gaussian_entropy_nats(cov) == pytest.approx(stats.multivariate_normal(cov=cov).entropy(), abs=1e-12)
    assert general.gaussian_entropy_nats([2.0, 0.5]) == pytest.approx(
        stats.norm(scale=2**0.5).entropy() + stats.norm(scale=0.5**0.5).entropy()
    )
    with pytest.raises(ValueError, match="determinant"):
        general.gaussian_entropy_nats([[1.0, 1.0], [1.0, 1.0]])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.01, 1.2))
def test_lemma_1_becomes_theorem_2_for_gaussian_weights(seed, size, share):
    rng = np.random.default_rng(seed)
    var, lam = np.exp(rng.normal(size=size)), np.exp(rng.normal(size=size))
    h = np.array([general.gaussian_entropy_nats(v) for v in var])
    d = share * float(var @ lam)
    bound = general.lemma1_bound_nats(float(h.sum()), h, lam, d)
    assert bound == pytest.approx(float(gaussian.rate_nats(var, d, lam)), abs=1e-9)


def test_the_maximum_of_lemma_1_against_a_general_optimiser():
    h, lam, d = np.array([0.3, 1.1, -0.4]), np.array([2.0, 0.5, 1.0]), 0.8
    powers = np.exp(2 * h) / (2 * np.pi * np.e)
    found = minimize(
        lambda e: -np.minimum(h, 0.5 * np.log(2 * np.pi * np.e * np.maximum(e, 1e-12))).sum(),
        np.full(3, d / 6),
        bounds=[(1e-9, p) for p in powers],
        constraints={"type": "ineq", "fun": lambda e: d - lam @ e},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert general.lemma1_bound_nats(0.0, h, lam, d) == pytest.approx(found.fun, abs=1e-6)


def test_lemma_1_is_below_the_truth_for_laplacian_weights():
    h = 1 + np.log(2 / 2**0.5)  # unit variance
    assert general.lemma1_bound_nats(3 * h, [h] * 3, [1] * 3, 0.3) == pytest.approx(
        3 * float(general.shannon_lower_bound_nats(h, 0.1))
    )
    with pytest.raises(ValueError, match="zeros"):
        general.lemma1_bound_nats(0.0, [1.0, 1.0], [1.0, 0.0], 1.0)


def test_quadratic_bound_of_gaussian_weights_is_exact_and_of_others_at_high_rate_shannons():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(5, 5))
    importance, var = root @ root.T, np.exp(rng.normal(size=5))
    h = [general.gaussian_entropy_nats(v) for v in var]
    exact = gaussian.rate_nats(correlated.components(np.diag(var), importance), [0.1, 1.0, 10.0])
    assert general.quadratic_bound_nats(h, importance, [0.1, 1.0, 10.0]) == pytest.approx(exact, abs=1e-9)
    h = rng.normal(size=5)
    shannon = h.sum() + 0.5 * np.linalg.slogdet(importance)[1] - 2.5 * np.log(2 * np.pi * np.e * 1e-9 / 5)
    assert float(general.quadratic_bound_nats(h, importance, 1e-9)) == pytest.approx(shannon, abs=1e-6)
    diagonal = np.diag([3.0, 1.0, 0.2, 0.5, 2.0])
    lemma = general.lemma1_bound_nats(float(h.sum()), h, np.diag(diagonal), 0.05)
    assert float(general.quadratic_bound_nats(h, diagonal, 0.05)) == pytest.approx(lemma, abs=1e-9)


@pytest.mark.parametrize("slope", [0.25, 0.4, 1.0])
def test_quadratic_bound_is_below_two_laplacians_under_a_form_that_mixes_them(slope):
    """R(D) of the pair by Blahut-Arimoto on a plane; one direction is weak, so its vessel is full at low rate."""
    step, reach = 0.35, 6.3
    x = np.arange(-reach, reach + step / 2, step)
    p = np.exp(-np.abs(x))
    importance = np.array([[1.0, 0.8], [0.8, 1.0]])
    plane = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    apart = plane[:, None] - plane
    cost = np.einsum("ijk,kl,ijl->ij", apart, importance, apart)
    source = np.outer(p, p).ravel()
    found = discrete.solve(source / source.sum(), cost, slope, tolerance_nats=1e-3, max_iterations=300)
    laplace = 1 + np.log(2)
    bound = float(general.quadratic_bound_nats([laplace, laplace], importance, found.distortion))
    # R(D) is at most that of Gaussians of the same variances; the grid moves it by less than 0.01 nat.
    hardest = gaussian.rate_nats(correlated.components(2 * np.eye(2), importance), found.distortion)
    assert bound < found.rate_nats + 0.01
    assert found.rate_nats - found.gap_nats < float(hardest) + 0.01


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_shannons_noise_is_the_law_of_largest_entropy(power):
    d = 0.3
    scale = (power * d) ** (1 / power)
    law = stats.gennorm(power, scale=scale)
    assert law.expect(lambda x: np.abs(x) ** power) == pytest.approx(d, rel=1e-6)
    assert -float(general.shannon_lower_bound_nats(0.0, d, power)) == pytest.approx(law.entropy(), abs=1e-6)


@pytest.mark.parametrize("law", [stats.norm(), stats.laplace(), stats.uniform(), stats.t(4)])
def test_entropy_estimate(law):
    x = law.rvs(size=60_000, random_state=2)
    assert general.spacing_entropy_nats(x) == pytest.approx(law.entropy(), abs=0.02)
    assert general.spacing_entropy_nats(3 * x) == pytest.approx(general.spacing_entropy_nats(x) + np.log(3), abs=1e-9)


@pytest.mark.parametrize("window", [1, 3, 10])
def test_entropy_estimate_of_evenly_spaced_values_is_exact(window):
    """Spacings of 1/n are those of a uniform law on [0, 1], whose entropy is 0, up to both ends of the sample."""
    x = (np.arange(25) + 0.5) / 25
    assert general.spacing_entropy_nats(x, window) == pytest.approx(0, abs=1e-12)


def test_entropy_estimate_refuses_repeated_values():
    with pytest.raises(ValueError, match="repeated"):
        general.spacing_entropy_nats(np.zeros(100))
    with pytest.raises(ValueError, match="samples"):
        general.spacing_entropy_nats([1.0, 2.0])
