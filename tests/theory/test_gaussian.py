"""Reverse water-filling against a table of exact values, against a general optimiser, and as a code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar

from netweight.theory import gaussian

LAM = VAR = np.array([3.0, 2.0, 1.0])
# D, mu, (D_1, D_2, D_3), R in nats, R in bits
TABLE = [
    (1, 1 / 3, (1 / 9, 1 / 6, 1 / 3), 3.43967790, 4.96240625),
    (2, 2 / 3, (2 / 9, 1 / 3, 2 / 3), 2.39995713, 3.46240625),
    (3, 1, (1 / 3, 1 / 2, 1), 1.79175947, 2.58496250),
    (4, 1.5, (0.5, 0.75, 1), 1.38629436, 2),
    (5, 2, (2 / 3, 1, 1), 1.09861229, 1.58496250),
    (6, 2.5, (2.5 / 3, 1.25, 1), 0.87546874, 1.26303441),
    (9, 4, (4 / 3, 2, 1), 0.40546511, 0.58496250),
    (11, 6, (2, 2, 1), 0.20273255, 0.29248125),
    (13, 8, (8 / 3, 2, 1), 0.05889152, 0.08496250),
    (14, 9, (3, 2, 1), 0, 0),
]

positive_vectors = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(1e-3, 1e3))


@pytest.mark.parametrize(("distortion", "level", "parts", "nats", "bits"), TABLE)
def test_the_table_of_figure_6(distortion, level, parts, nats, bits):
    filling = gaussian.waterfill(VAR, distortion, LAM)
    assert filling.level == pytest.approx(level, abs=1e-12)
    assert filling.distortions == pytest.approx(parts, abs=1e-12)
    assert filling.rate_nats == pytest.approx(nats, abs=5e-9)
    assert filling.rate_nats / np.log(2) == pytest.approx(bits, abs=5e-9)
    assert float(gaussian.rate_nats(VAR, distortion, LAM)) == pytest.approx(nats, abs=5e-9)
    assert float(gaussian.distortion_at(VAR, nats, LAM)) == pytest.approx(distortion, abs=1e-6)


def test_the_knots_of_figure_6():
    assert gaussian.rate_nats(VAR, [3, 9], LAM) == pytest.approx([0.5 * np.log(36), 0.5 * np.log(2.25)], abs=1e-12)


@given(positive_vectors, positive_vectors, st.floats(1e-4, 0.999))
def test_filling_meets_the_distortion_and_its_two_inverses_agree(variances, weights, share):
    size = min(variances.size, weights.size)
    var, lam = variances[:size], weights[:size]
    top = float(var @ lam)
    filling = gaussian.waterfill(var, share * top, lam)
    assert filling.distortion == pytest.approx(share * top, rel=1e-9)
    assert (filling.distortions <= var * (1 + 1e-12)).all()
    rate = gaussian.rate_nats(var, share * top, lam)
    assert float(rate) == pytest.approx(filling.rate_nats, rel=1e-9, abs=1e-9)
    assert float(gaussian.distortion_at(var, rate, lam)) == pytest.approx(share * top, rel=1e-7)


@given(positive_vectors, st.floats(0.01, 0.95))
def test_slope_is_minus_one_over_two_mu(variances, share):
    top = float(variances.sum())
    filling = gaussian.waterfill(variances, share * top)
    step = 1e-5 * filling.level
    rates = gaussian.rate_nats(variances, share * top + step * np.array([-1.0, 1.0]))
    assert float(np.diff(rates)[0]) / (2 * step) == pytest.approx(filling.slope, rel=1e-3)


@given(positive_vectors)
def test_curve_is_convex_decreasing_and_ends_at_zero(variances):
    top = float(variances.sum())
    d = np.linspace(0.02, 1.0, 60) * top
    r = gaussian.rate_nats(variances, d)
    assert (np.diff(r) <= 1e-12).all()
    assert (np.diff(r, 2) >= -1e-9 * r[0]).all()
    assert r[-1] == pytest.approx(0, abs=1e-12)
    assert gaussian.rate_nats(variances, 2 * top) == 0


@given(positive_vectors, st.floats(0.05, 0.95), st.floats(0.01, 100))
def test_scaling_the_weights_scales_the_distortion(variances, share, factor):
    d = share * variances.sum()
    assert gaussian.rate_nats(variances * factor, d * factor) == pytest.approx(
        gaussian.rate_nats(variances, d), abs=1e-9
    )


@given(hnp.arrays(np.float64, 2, elements=st.floats(0.1, 10)), st.floats(0.05, 0.95))
def test_no_other_split_of_two_vessels_is_better(variances, share):
    budget = share * float(variances.sum())

    def rate(first: float) -> float:
        parts = np.minimum([first, budget - first], variances)
        return float(0.5 * np.log(variances / parts).sum())

    found = minimize_scalar(
        rate, bounds=(1e-9 * budget, budget * (1 - 1e-9)), method="bounded", options={"xatol": 1e-10}
    )
    assert gaussian.rate_nats(variances, budget) <= found.fun + 1e-9


@given(positive_vectors, st.lists(st.integers(0, 5), min_size=12, max_size=12), st.floats(0.01, 1.1))
def test_counts_are_repetitions(variances, counts, share):
    n = np.array(counts[: variances.size])
    n[0] += 1
    many = np.repeat(variances, n)
    d = share * many.sum()
    rate = gaussian.rate_nats(many, d)
    assert gaussian.rate_nats(variances, d, counts=n) == pytest.approx(rate, rel=1e-9, abs=1e-9)
    assert gaussian.distortion_at(variances, rate, counts=n) == pytest.approx(
        gaussian.distortion_at(many, rate), rel=1e-9
    )


def test_zero_variance_and_zero_weight_cost_nothing():
    assert gaussian.rate_nats([1.0, 0.0, 4.0], 0.5, [1.0, 5.0, 0.0]) == pytest.approx(0.5 * np.log(2))
    filling = gaussian.waterfill([1.0, 0.0, 4.0], 0.5, [1.0, 5.0, 0.0])
    assert filling.distortions == pytest.approx([0.5, 0.0, 4.0])
    assert gaussian.waterfill([0.0], 1.0).rate_nats == 0


def test_infinite_rate_at_distortion_zero_and_back():
    assert gaussian.rate_nats([1.0], 0.0) == np.inf
    assert gaussian.distortion_at([1.0, 2.0], np.inf) == 0


def test_the_achieving_code_reaches_the_curve():
    rng = np.random.default_rng(7)
    draws = 400_000
    w = rng.standard_normal((draws, 3)) * np.sqrt(VAR)
    v = gaussian.code(w, VAR, 5.0, rng, LAM)
    loss = ((w - v) ** 2) @ LAM
    assert abs(loss.mean() - 5.0) < 4 * loss.std() / draws**0.5
    cross = v * (w - v)
    assert (np.abs(cross.mean(0)) < 4 * cross.std(0) / draws**0.5 + 1e-15).all()
    assert (v[:, 2] == 0).all(), "a full vessel is pruned"
    correlations = [np.corrcoef(w[:, i], v[:, i])[0, 1] for i in (0, 1)]
    information = -0.5 * sum(np.log(1 - r * r) for r in correlations)
    assert information == pytest.approx(np.log(3), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, -1.0], 0.5), "variances"),
        (([1.0, np.nan], 0.5), "NaN"),
        (([], 0.5), "shape"),
        (([1.0], 0.0), "distortion"),
        (([1.0], 0.5, [1.0, 2.0]), "entries"),
    ],
)
def test_refusals_name_the_argument_and_a_remedy(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        gaussian.waterfill(*arguments)
    assert str(caught.value).count("\n") == 1


def test_counts_must_match():
    for counts in ([1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="counts"):
            gaussian.rate_nats([1.0, 2.0], 0.5, counts=counts)


def test_the_code_refuses_a_wrong_axis():
    with pytest.raises(ValueError, match="last axis"):
        gaussian.code(np.zeros((3, 2)), [1.0, 1.0, 1.0], 1.0, np.random.default_rng(0))
