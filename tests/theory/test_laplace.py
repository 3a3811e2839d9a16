"""Absolute error: curves, output laws and codes of Laplacian and exponential weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from netweight.theory import discrete, laplace

# s, v_0, q_0, D, R; checked independently on grids
SIGN_EXACT = [
    (2.0, 1.227947, 0.853553, 0.673725, 0.518005),
    (3.0, np.log(2), 2 / 3, 0.435618, np.log(3)),
    (1.5, 2.11515, None, 0.87476, 0.16859),
    (5.0, None, None, 0.24431, 1.82986),
    (10.0, None, None, 0.11255, 2.73717),
]


def test_plain_values():
    assert laplace.rate_nats([0.5, 0.1]) == pytest.approx([0.693147, 2.302585], abs=6e-7)
    assert laplace.rate_nats(0.25, scale=0.5) == pytest.approx(0.693147, abs=6e-7), "lambda = 2"
    assert laplace.two_sided_output(0.5).atom == 0.25
    assert laplace.two_sided_output(0.1).atom == pytest.approx(0.01)
    assert laplace.one_sided_output(0.5).atom == 0.5
    assert laplace.one_sided_output(0.1).atom == pytest.approx(0.1)


@given(st.floats(1e-6, 10), st.floats(1e-3, 1e3))
def test_only_the_ratio_matters_and_the_inverse_inverts(ratio, scale):
    rate = laplace.rate_nats(ratio * scale, scale)
    assert rate == pytest.approx(max(0.0, -np.log(ratio)), abs=1e-9)
    assert laplace.distortion_at(rate, scale) == pytest.approx(min(ratio, 1.0) * scale, rel=1e-9)


@pytest.mark.parametrize(("slope", "dead_zone", "atom", "distortion", "rate"), SIGN_EXACT)
def test_sign_exact_values(slope, dead_zone, atom, distortion, rate):
    point = laplace.sign_exact(slope)
    assert float(point.distortion) == pytest.approx(distortion, abs=6e-6)
    assert float(point.rate_nats) == pytest.approx(rate, abs=6e-6)
    if dead_zone:
        assert float(point.dead_zone) == pytest.approx(dead_zone, abs=6e-6)
    if atom:
        assert float(point.atom) == pytest.approx(atom, abs=6e-7)


@given(st.floats(1.001, 200))
def test_sign_exact_satisfies_the_optimality_conditions(slope):
    """a(v) = int p(u) exp(-s d(u, v)) / c(u) du is 1 on the support and at most 1 elsewhere, in closed form."""
    point = laplace.sign_exact(slope)
    v0, q0, s = float(point.dead_zone), float(point.atom), slope
    at_zero = (1 - np.exp(-v0)) / q0 + 2 * np.exp(-s * v0)
    if s * v0 < 600:  # int_{v0}^inf exp(-u) exp(-s u) 2 s exp(u) du = 2 exp(-s v0)
        assert at_zero == pytest.approx(1, abs=1e-9)
    v = np.linspace(0, v0, 50)[1:]
    dead = 0.5 * (np.exp((s - 1) * v) - np.exp(s * v - v0)) / q0 + np.exp(s * (v - v0))
    assert (dead <= 1 + 1e-9).all()
    assert dead[-1] == pytest.approx(1, abs=1e-9)


def test_sign_exact_against_blahut_arimoto():
    h, slope = 0.02, 3.0
    u = (np.arange(600) + 0.5) * h
    p = np.exp(-u) / np.exp(-u).sum()
    # Half of the problem: given the sign, outputs 0 (shared by both signs) and v > 0 (of one sign only, which costs
    # ln(2)/s more).
    v = np.arange(600) * h
    cost = np.where(v <= u[:, None], u[:, None] - v + np.log(2) / slope * (v > 0), np.inf)
    found = discrete.solve(p, cost, slope, tolerance_nats=1e-6, max_iterations=4000)
    exact = laplace.sign_exact(slope)
    lagrangian = float(exact.rate_nats + slope * exact.distortion)
    assert found.rate_nats + slope * found.distortion == pytest.approx(lagrangian, abs=slope * h)


def test_sign_exact_lies_between_the_plain_curve_and_the_naive_one():
    d = np.linspace(0.02, 0.98, 49)
    rate = laplace.sign_exact_at(d).rate_nats
    plain, naive = laplace.rate_nats(d), laplace.rate_nats(d) + (1 - d) * np.log(2)
    assert (rate > plain).all()
    assert (rate < naive).all()
    assert 0.11 < (naive - rate).max() < 0.13, "loose by up to about 0.12 nat"
    assert laplace.sign_exact_at(d).distortion == pytest.approx(d, rel=1e-9)
    assert laplace.sign_exact_at(d * 5, scale=5.0).rate_nats == pytest.approx(rate, rel=1e-9)


def test_sign_exact_slope_is_the_derivative():
    s = np.array([1.2, 2.0, 6.0])
    left, right = laplace.sign_exact(s * (1 - 1e-5)), laplace.sign_exact(s * (1 + 1e-5))
    assert (right.rate_nats - left.rate_nats) / (right.distortion - left.distortion) == pytest.approx(-s, rel=1e-4)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_two_sided_output_convolved_with_the_noise_is_the_source(ratio):
    """Backward channel U = V + N: density of V + Laplace(D) equals Laplace(1)."""
    atom = laplace.two_sided_output(ratio).atom
    for u in (0.0, 0.3, 2.0):

        def integrand(v, u=u):
            return stats.laplace.pdf(v) * stats.laplace.pdf(u - v, scale=ratio)

        smooth = integrate.quad(integrand, -40, 40, points=sorted({0.0, u}), limit=400)[0]
        mixed = atom * stats.laplace.pdf(u, scale=ratio) + (1 - atom) * smooth
        assert mixed == pytest.approx(stats.laplace.pdf(u), rel=1e-7)


def check_code(u, v, expected_distortion, law, draws, positive_only=False):
    loss = np.abs(u - v)
    assert abs(loss.mean() - expected_distortion) < 4 * loss.std() / draws**0.5
    zeros = float(np.mean(v == 0))
    assert abs(zeros - law.atom) < 4 * (law.atom * (1 - law.atom) / draws) ** 0.5
    tail = v[v != 0]
    if not positive_only:
        assert abs(np.mean(tail > 0) - 0.5) < 4 * 0.5 / tail.size**0.5
    excess = np.abs(tail) - law.dead_zone
    assert stats.kstest(excess, stats.expon(scale=law.scale).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("ratio", "scale"), [(0.1, 1.0), (0.5, 3.0), (0.9, 1.0)])
def test_the_codes_have_the_distortion_and_the_output_law(ratio, scale):
    rng, draws = np.random.default_rng(1), 100_000
    u = rng.laplace(scale=scale, size=draws)
    d = ratio * scale
    check_code(u, laplace.code_two_sided(u, d, rng, scale), d, laplace.two_sided_output(d, scale), draws)
    e = np.abs(u)
    v = laplace.code_one_sided(e, d, rng, scale)
    assert (v <= e).all()
    check_code(e, v, d, laplace.one_sided_output(d, scale), draws, positive_only=True)


@pytest.mark.parametrize("slope", [1.5, 3.0, 10.0])
def test_the_sign_exact_code(slope):
    rng, draws = np.random.default_rng(2), 100_000
    u = rng.laplace(scale=2.0, size=draws)
    v = laplace.code_sign_exact(u, slope, rng, scale=2.0)
    point = laplace.sign_exact(slope, scale=2.0)
    law = laplace.OutputLaw(float(point.atom), 2.0, float(point.dead_zone))
    assert (np.abs(v) <= np.abs(u)).all()
    assert (v * u >= 0).all()
    check_code(u, v, float(point.distortion), law, draws)


def test_output_law_is_a_distribution():
    law = laplace.OutputLaw(0.25, 2.0, dead_zone=1.0)
    assert law.cdf([-50.0, -1.0, -0.5, 0.0, 1.0, 50.0]) == pytest.approx([0, 0.375, 0.375, 0.625, 0.625, 1], abs=1e-10)
    assert laplace.one_sided_output(0.5).cdf([-1.0, 0.0, 40.0]) == pytest.approx([0.0, 0.5, 1.0])


def test_zero_rate_slope():
    d = np.array([1 - 2e-6, 1 - 1e-6])
    assert np.diff(laplace.rate_nats(d)) / np.diff(d) == pytest.approx(-1, rel=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="above E"):
        laplace.two_sided_output(2.0)
    with pytest.raises(ValueError, match="slope"):
        laplace.sign_exact(1.0)
    with pytest.raises(ValueError, match="Stay in"):
        laplace.sign_exact_at(1.0)
    with pytest.raises(ValueError, match="u has"):
        laplace.code_one_sided([-1.0], 0.5, np.random.default_rng(0))
