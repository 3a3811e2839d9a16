"""Correlated weights: the printed bound, the exact curve, and a code in the joint eigenbasis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netweight.theory import correlated, gaussian

COV = np.array([[1.0, 0.9], [0.9, 1.0]])
# D, printed bound, exact, in nats
TABLE = [
    (0.05, 2.858514, 2.858514),
    (0.1, 2.165367, 2.165367),
    (0.2, 1.472219, 1.472219),
    (0.4, 0.779072, 0.922913),
    (1.0, -0.137218, 0.373607),
    (1.9, -0.779072, 0.027034),
    (2.0, -0.830366, 0.0),
]


def random_covariance(rng: np.random.Generator, size: int, rank: int) -> np.ndarray:
    factor = rng.standard_normal((size, rank)) * np.exp(rng.normal(size=rank))
    return factor @ factor.T


@pytest.mark.parametrize(("distortion", "printed", "exact"), TABLE)
def test_the_table_of_the_correlated_pair(distortion, printed, exact):
    assert float(correlated.paper_bound_nats(COV, [1, 1], distortion)) == pytest.approx(printed, abs=6e-7)
    found = gaussian.rate_nats(correlated.components(COV, np.eye(2)), distortion)
    assert float(found) == pytest.approx(exact, abs=6e-7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(1e-3, 1.2))
def test_the_printed_bound_is_never_above_the_exact_rate(seed, size, share):
    rng = np.random.default_rng(seed)
    cov_w = random_covariance(rng, size, size + 2)
    lam = np.exp(rng.normal(size=size))
    distortion = share * float(lam @ np.diag(cov_w))
    exact = gaussian.rate_nats(correlated.components(cov_w, np.diag(lam)), distortion)
    printed = correlated.paper_bound_nats(cov_w, lam, distortion)
    assert printed <= exact + 1e-8
    diagonal = np.diag(np.diag(cov_w))
    same = gaussian.rate_nats(correlated.components(diagonal, np.diag(lam)), distortion)
    assert correlated.paper_bound_nats(diagonal, lam, distortion) == pytest.approx(same, abs=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_components_are_the_spectrum_of_the_product(seed, size):
    rng = np.random.default_rng(seed)
    cov_w, cov_x = random_covariance(rng, size, max(1, size - 1)), random_covariance(rng, size, size)
    product = np.sort(np.linalg.eigvals(cov_w @ cov_x).real)[::-1]
    assert correlated.components(cov_w, cov_x) == pytest.approx(product, rel=1e-6, abs=1e-8 * product[0])


@given(st.integers(0, 2**32 - 1))
def test_rotating_weights_and_inputs_together_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    cov_w, cov_x = random_covariance(rng, 4, 4), random_covariance(rng, 4, 4)
    q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    turned, plain = correlated.components(q @ cov_w @ q.T, q @ cov_x @ q.T), correlated.components(cov_w, cov_x)
    assert turned == pytest.approx(plain, rel=1e-7, abs=1e-10 * plain[0])


@pytest.mark.parametrize("rank", [4, 2])
def test_the_code_reaches_the_exact_curve(rank):
    rng = np.random.default_rng(11)
    cov_w, cov_x = random_covariance(rng, 4, 4), random_covariance(rng, 4, rank)
    parts = correlated.components(cov_w, cov_x)
    distortion = 0.2 * float(parts.sum())
    draws = 200_000
    w = rng.standard_normal((draws, 4)) @ np.linalg.cholesky(cov_w).T
    v = correlated.code(w, cov_w, cov_x, distortion, rng)
    loss = np.einsum("ni,ij,nj->n", w - v, cov_x, w - v)
    assert abs(loss.mean() - distortion) < 4 * loss.std() / draws**0.5
    # Information of the pair as the metric sees it: T = Sigma_X^(1/2) W and U = Sigma_X^(1/2) V on their support.
    values, basis = np.linalg.eigh(cov_x)
    keep = values > 1e-9 * values[-1]
    into = basis[:, keep] * np.sqrt(values[keep])
    t, u = w @ into, v @ into
    residual = np.cov((t - u).T).reshape(rank, rank)
    information = 0.5 * (np.linalg.slogdet(np.cov(t.T))[1] - np.linalg.slogdet(residual)[1])
    assert information == pytest.approx(float(gaussian.rate_nats(parts, distortion)), abs=0.03)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [([[1.0, 0.5]], "shape"), ([[1.0, 0.5], [0.0, 1.0]], "symmetric"), ([[1.0, 2.0], [2.0, 1.0]], "eigenvalue")],
)
def test_refusals(matrix, words):
    with pytest.raises(ValueError, match=words):
        correlated.components(matrix, np.eye(2))
    with pytest.raises(ValueError, match="Match them"):
        correlated.components(np.eye(3), np.eye(2))
