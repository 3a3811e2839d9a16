"""The decoder that does not know the input covariance pays between nothing and 0.11 bit a weight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from netweight.theory import gaussian, universal

spectra = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-12, 6)).map(np.exp)


@given(spectra, st.floats(-14, 8))
def test_between_exact_and_a_ninth_of_a_bit(spectrum, log_ridge):
    rate, distortion, _ = universal.curve(spectrum, np.exp(log_ridge))
    exact = gaussian.rate_nats(spectrum, distortion)
    assert rate >= exact - 1e-9 * spectrum.size
    assert rate <= exact + 0.11 * np.log(2) * spectrum.size


@given(spectra, hnp.arrays(np.float64, 20, elements=st.floats(0.1, 10)), st.floats(-8, 4))
def test_never_below_the_exact_curve_for_unequal_variances(spectrum, variances, log_ridge):
    s = variances[: spectrum.size]
    rate, distortion, _ = universal.curve(spectrum, np.exp(log_ridge), s)
    assert rate >= gaussian.rate_nats(spectrum * s, distortion) - 1e-9 * spectrum.size


def test_the_price_comes_close_to_its_ceiling():
    worst = 0.0
    for small in np.exp(-np.linspace(1, 12, 23)):
        for strong in (1, 2, 4):
            spectrum = np.r_[np.ones(strong), np.full(8, small)]
            r, d, _ = universal.curve(spectrum, np.exp(np.linspace(-14, 2, 200)))
            worst = max(worst, float((r - gaussian.rate_nats(spectrum, d)).max()) / spectrum.size / np.log(2))
    assert 0.09 < worst < 0.11


@given(spectra)
def test_white_inputs_have_no_price(spectrum):
    white = np.full(spectrum.size, spectrum[0])
    r, d, _ = universal.curve(white, spectrum[0] * np.array([0.01, 0.3, 5.0]))
    assert r == pytest.approx(gaussian.rate_nats(white, d), rel=1e-9, abs=1e-12)


@settings(max_examples=30)
@given(spectra, st.floats(0.01, 0.99), st.floats(0.01, 4))
def test_the_two_inversions(spectrum, share, nats):
    d = share * float(spectrum.sum())
    rate = universal.rate_nats(spectrum, d)
    assert float(universal.distortion_at(spectrum, rate)) == pytest.approx(d, rel=1e-6)
    r = nats * spectrum.size
    back = universal.rate_nats(spectrum, universal.distortion_at(spectrum, r))
    assert float(back) == pytest.approx(r, rel=1e-5)


def test_ends_of_the_curve():
    assert universal.rate_nats([2.0, 1.0], [3.0, 5.0]) == pytest.approx([0, 0])
    assert universal.distortion_at([2.0, 1.0], 0.0) == 3.0


def test_a_random_codebook_realises_the_channel():
    """The ridge channel has the distortion and, against the codebook law, the divergence that `curve` says."""
    rng = np.random.default_rng(5)
    lam, mu = np.array([5.0, 1.0, 0.1]), 0.4
    rate, distortion, tau2 = universal.curve(lam, mu)
    gain, noise = lam / (lam + mu), mu * tau2 / (lam + mu)
    draws = 200_000
    w = rng.standard_normal((draws, 3))
    v = gain * w + np.sqrt(noise) * rng.standard_normal((draws, 3))
    loss = ((w - v) ** 2) @ lam
    assert abs(loss.mean() - distortion) < 4 * loss.std() / draws**0.5
    density = -((v - gain * w) ** 2) / (2 * noise) - np.log(noise) / 2 + v**2 / (2 * tau2) + np.log(tau2) / 2
    information = density.sum(1)
    assert abs(information.mean() - rate) < 4 * information.std() / draws**0.5


def test_refusals():
    with pytest.raises(ValueError, match="zero variance"):
        universal.curve([1.0, 0.0], 1.0, [0.0, 1.0])
    with pytest.raises(ValueError, match="spectrum"):
        universal.curve([-1.0], 1.0)
