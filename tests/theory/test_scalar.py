"""Generalised Gaussian laws against scipy; R(D) under squared error; the best scalar quantisers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, special, stats
from scipy.optimize import minimize

from netweight.theory import discrete, ecsq, scalar
from netweight.theory.gamma import lower_gamma
from netweight.theory.scalar import GeneralizedGaussian

# D/D0, bits, dead zone t, step w, zeros in % (units of E|u|)
ABSOLUTE = [
    (0.95, 0.0925, 4.59, 5.28, 99.0),
    (0.9, 0.1937, 3.70, 4.36, 97.5),
    (0.8, 0.4158, 2.77, 3.38, 93.7),
    (0.7, 0.6645, 2.18, 2.79, 88.6),
    (0.5, 1.2642, 1.36, 1.90, 74.3),
    (0.3, 2.1040, 0.74, 1.14, 52.5),
    (0.2, 2.7286, 0.47, 0.78, 37.5),
    (0.1, 3.7552, 0.22, 0.40, 19.5),
]


@given(st.floats(0.05, 60), hnp.arrays(np.float64, 8, elements=st.floats(0, 200)))
def test_incomplete_gamma_against_scipy(a, x):
    assert lower_gamma(a, x) == pytest.approx(special.gammainc(a, x), abs=1e-12)


@pytest.mark.parametrize("a", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_incomplete_gamma_shortcuts(a):
    x = np.r_[0.0, np.geomspace(1e-8, 2000, 60), np.inf]
    assert lower_gamma(a, x) == pytest.approx(special.gammainc(a, x), abs=1e-14)


@pytest.mark.parametrize("shape", [0.5, 0.7, 1.0, 1.4, 2.0, 5.0])
def test_the_law_against_scipy(shape):
    law = GeneralizedGaussian.of(shape, variance=3.0)
    twin = stats.gennorm(shape, scale=law.alpha)
    assert law.variance == pytest.approx(3.0)
    assert twin.var() == pytest.approx(3.0)
    assert law.entropy_nats == pytest.approx(twin.entropy(), abs=1e-9)
    u = np.linspace(-4, 4, 17)
    assert law.log_density(u) == pytest.approx(twin.logpdf(u), abs=1e-10)
    assert law.cdf(u) == pytest.approx(twin.cdf(u), abs=1e-12)
    assert law.mean_absolute == pytest.approx(2 * integrate.quad(lambda t: t * twin.pdf(t), 0, np.inf)[0], rel=1e-6)
    for order in (0, 1, 2):
        moment = integrate.quad(lambda t, k=order: t**k * twin.pdf(t), 0, 1.3)[0]
        assert float(law.moment_below(order, 1.3)) == pytest.approx(moment, rel=1e-7)
    x = law.sample(40_000, np.random.default_rng(4))
    assert stats.kstest(x, twin.cdf).pvalue > 1e-3
    assert GeneralizedGaussian.fit(x).shape == pytest.approx(shape, rel=0.1)


def test_gaussian_rate_is_computed_to_1e_6():
    for slope in (0.6, 2.0, 20.0):
        rate, distortion, _ = scalar.rate_points(GeneralizedGaussian.gaussian(), [slope], span=9)[0]
        assert rate == pytest.approx(0.5 * np.log(1 / distortion), abs=2e-6)
    points = [(0.34657, 0.5), (0.69314, 0.25), (1.15129, 0.1)]
    for rate, distortion in points:
        assert float(scalar.rate_nats(GeneralizedGaussian.gaussian(), distortion)) == pytest.approx(rate, abs=1.1e-5)


@pytest.mark.parametrize("slope", [0.3, 0.55, 0.9, 1.35, 2.2, 5.0])
def test_laplacian_table_against_a_fresh_computation(slope):
    law = GeneralizedGaussian.laplace(2.0)
    rate, distortion, _ = scalar.rate_points(law, [slope / 2], resolution=0.08, max_iterations=1500)[0]
    assert float(scalar.rate_nats(law, distortion)) == pytest.approx(rate, abs=2.5e-4)


def test_laplacian_rate_against_a_certificate():
    """A plain grid, solved to a gap of 1e-3: the tabulated curve is within gap and grid of the certified interval."""
    law, h = GeneralizedGaussian.laplace(), 0.08
    u = np.arange(-10, 10 + h / 2, h)
    p = np.exp(law.log_density(u))
    found = discrete.solve(p / p.sum(), (u[:, None] - u) ** 2, 0.9, tolerance_nats=1e-3, max_iterations=20_000)
    assert found.gap_nats <= 1e-3
    table = float(scalar.rate_nats(law, found.distortion))
    assert found.rate_nats - 1e-3 - h**2 <= table <= found.rate_nats + h**2


@pytest.mark.parametrize("law", [GeneralizedGaussian.of(b) for b in (0.6, 1.0, 2.0)])
def test_rate_is_convex_decreasing_scale_free_and_ends_at_zero(law):
    d = np.linspace(0.01, 1.0, 200)
    r = scalar.rate_nats(law, d)
    assert (np.diff(r) <= 0).all()
    assert r[-1] == 0
    wide = GeneralizedGaussian.of(law.shape, 9.0)
    assert scalar.rate_nats(wide, 9 * d) == pytest.approx(r, abs=1e-12)
    exact = scalar.rate_nats(GeneralizedGaussian.gaussian(), d)
    assert (r <= exact + 1e-12).all(), "the Gaussian is the hardest law of its variance"
    if law.shape >= 1:
        assert (np.diff(r, 2) > -3e-4).all()


@given(st.sampled_from([0.6, 1.0, 1.5, 2.0]), st.floats(0, 8))
def test_distortion_at_inverts_the_rate(shape, rate):
    law = GeneralizedGaussian.of(shape, 2.5)
    d = float(scalar.distortion_at(law, rate))
    assert float(scalar.rate_nats(law, d)) <= rate + 1e-9
    assert float(scalar.rate_nats(law, d * (1 - 1e-6))) >= rate - 1e-9
    assert d <= 2.5 * np.exp(-2 * rate) * (1 + 1e-9)


@pytest.mark.parametrize(("ratio", "bits", "dead_zone", "step", "zeros"), ABSOLUTE)
def test_best_dead_zone_quantiser_for_absolute_error(ratio, bits, dead_zone, step, zeros):
    found = ecsq.best(GeneralizedGaussian.laplace(2.0), ratio, power=1)
    assert found.distortion == pytest.approx(ratio, rel=1e-8)
    assert found.rate_bits == pytest.approx(bits, abs=1.1e-4)
    # The minimum is flat; t and w are from a search on a coarse grid.
    assert found.dead_zone == pytest.approx(dead_zone, rel=0.03)
    assert found.step == pytest.approx(step, rel=0.04)
    assert 100 * found.zero_probability == pytest.approx(zeros, abs=0.4)
    assert found.rate_bits > -np.log2(ratio)


def test_outputs_of_exponential_bins_are_conditional_medians():
    found = ecsq.quantise(GeneralizedGaussian.laplace(2.0), 0.8, 0.5, power=1)
    offset = -np.log((1 + np.exp(-0.8)) / 2)
    assert found.outputs[:3] - (0.5 + 0.8 * np.arange(3)) == pytest.approx([offset] * 3, abs=1e-12)
    twin = ecsq.quantise(GeneralizedGaussian(1.0000001, 1.0), 0.8, 0.5, power=1)
    assert twin.outputs[:3] == pytest.approx(found.outputs[:3], abs=1e-5)
    assert twin.distortion == pytest.approx(found.distortion, abs=1e-6)


@pytest.mark.parametrize("shape", [0.8, 1.0, 2.0])
@pytest.mark.parametrize("power", [1, 2])
def test_a_quantiser_against_samples(shape, power):
    law = GeneralizedGaussian.of(shape)
    found = ecsq.quantise(law, 0.7, 0.5, power)
    x = law.sample(200_000, np.random.default_rng(6))
    index = np.where(np.abs(x) <= 0.5, 0, 1 + np.floor((np.abs(x) - 0.5) / 0.7).astype(int))
    value = np.sign(x) * np.r_[0.0, found.outputs, 0.0][np.minimum(index, found.outputs.size)]
    loss = np.abs(x - value) ** power
    assert abs(loss.mean() - found.distortion) < 4 * loss.std() / x.size**0.5
    share = np.bincount((np.sign(x) * index).astype(int) + 200) / x.size
    empirical = -float((share * np.log(np.where(share > 0, share, 1))).sum())
    assert empirical == pytest.approx(found.rate_nats, abs=0.01)


def test_no_two_parameter_search_beats_the_best():
    law = GeneralizedGaussian.gaussian()
    found = ecsq.best_at_rate(law, 1.0)

    def cost(x):
        q = ecsq.quantise(law, float(np.exp(x[0])), float(np.exp(x[1])))
        return q.rate_nats + q.distortion * found_slope

    near = ecsq.best_at_rate(law, 1.001)
    found_slope = -0.001 / (near.distortion - found.distortion)
    start = np.log([found.step, found.dead_zone])
    other = minimize(cost, start + 0.1, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    assert found.rate_nats + found.distortion * found_slope <= other.fun + 1e-6


@pytest.mark.parametrize("bits", [0.5, 1, 2, 3, 4])
def test_scalar_quantisation_loses_at_most_a_quarter_of_a_bit(bits):
    for law in (GeneralizedGaussian.gaussian(), GeneralizedGaussian.laplace()):
        found = ecsq.best_at_rate(law, bits * np.log(2))
        loss = bits - float(scalar.rate_nats(law, found.distortion)) / np.log(2)
        assert found.rate_bits == pytest.approx(bits, abs=1e-6)
        assert 0 < loss < 0.2547, "pi e / 6 is 0.2546 bit"
        if bits >= 3 and law.shape == 2:
            assert loss == pytest.approx(0.5 * np.log2(np.pi * np.e / 6), abs=1e-4)


def test_refusals():
    law = GeneralizedGaussian.gaussian()
    with pytest.raises(ValueError, match="bins"):
        ecsq.quantise(law, 1e-6, 1.0)
    with pytest.raises(ValueError, match="power"):
        ecsq.quantise(law, 1.0, 1.0, power=3)
    with pytest.raises(ValueError, match="distortion"):
        ecsq.best(law, 1.5)
    with pytest.raises(ValueError, match="zero"):
        GeneralizedGaussian.fit([0.0, 0.0])
