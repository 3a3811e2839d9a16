"""Blahut-Arimoto against closed forms, with its certificate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight.theory import discrete

GEOMETRIC = [(15, 0.229638, 0.8), (8, 0.830816, 0.45), (3, 1.720964, 0.2), (1, 2.584010, 0.1)]


def entropy(p: float) -> float:
    return float(-p * np.log(p) - (1 - p) * np.log(1 - p))


@pytest.mark.parametrize(("distortion", "rate", "atom"), GEOMETRIC)
def test_geometric_source(distortion, rate, atom):
    mean, n = 19, 400
    x = np.arange(n)
    p = (mean / (1 + mean)) ** x / (1 + mean)
    cost = np.where(x[:, None] >= x, x[:, None] - x, np.inf)
    found = discrete.solve(p / p.sum(), cost, np.log(1 + 1 / distortion), tolerance_nats=1e-10)
    assert found.gap_nats <= 1e-10
    assert found.rate_nats == pytest.approx(rate, abs=1.1e-6)
    assert found.distortion == pytest.approx(distortion, abs=1e-6)
    assert found.output[0] == pytest.approx(atom, abs=1e-6)
    assert float(discrete.geometric_rate_nats(mean, distortion)) == pytest.approx(rate, abs=1.1e-6)


def test_laplacian_grid():
    h, reach = 0.02, 12
    u = np.arange(-reach, reach + h / 2, h)
    p = np.exp(-np.abs(u))
    cost = np.abs(u[:, None] - u)
    for slope, rate, distortion in ((1.25, 0.22315, 0.79988), (2.0, 0.69319, 0.49986), (4.0, 1.38672, 0.24973)):
        found = discrete.solve(p / p.sum(), cost, slope, tolerance_nats=1e-4, max_iterations=60)
        # The reference run stopped within 7e-4 nat of the law; along the tangent both agree much better.
        lagrangian = rate + slope * distortion
        assert found.rate_nats + slope * found.distortion == pytest.approx(lagrangian, abs=7e-4)
        assert found.rate_nats == pytest.approx(-np.log(found.distortion), abs=1e-3)


@given(st.floats(0.01, 0.5), st.floats(0.05, 0.95))
def test_binary_source(p, share):
    d = share * p
    found = discrete.solve([p, 1 - p], 1 - np.eye(2), np.log((1 - d) / d), tolerance_nats=1e-12)
    assert found.rate_nats == pytest.approx(entropy(p) - entropy(found.distortion), abs=1e-9)
    assert found.distortion == pytest.approx(d, abs=1e-5)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(2, 8), st.floats(0.1, 20))
def test_the_certificate_holds_on_random_problems(seed, inputs, outputs, slope):
    rng = np.random.default_rng(seed)
    p, cost = rng.dirichlet(np.ones(inputs)), rng.exponential(size=(inputs, outputs))
    rough = discrete.solve(p, cost, slope, max_iterations=3)
    fine = discrete.solve(p, cost, slope, tolerance_nats=1e-11, max_iterations=200_000)
    value, best = (s.rate_nats + slope * s.distortion for s in (rough, fine))
    assert best - 1e-9 <= value <= best + rough.gap_nats + 1e-9
    # The tangent of any slope is below the curve everywhere.
    other = discrete.solve(p, cost, slope * 2, tolerance_nats=1e-9)
    assert rough.lower_bound_nats(other.distortion) <= other.rate_nats + 1e-9


def test_constant_offsets_of_the_cost_do_not_overflow():
    found = discrete.solve([0.5, 0.5], 1e5 + 1 - np.eye(2), np.log(9))
    assert found.distortion == pytest.approx(1e5 + 0.1)
    assert found.rate_nats == pytest.approx(np.log(2) - entropy(0.1), abs=1e-6)


@pytest.mark.parametrize(
    ("source", "cost", "words"),
    [
        ([0.5, 0.4], np.eye(2), "sums to"),
        ([0.5, 0.5], np.eye(3), "shape"),
        ([0.5, 0.5], [[np.inf, np.inf], [0, 0]], "permitted"),
        ([0.5, 0.5], -np.eye(2), "shape"),
    ],
)
def test_refusals(source, cost, words):
    with pytest.raises(ValueError, match=words):
        discrete.solve(source, cost, 1.0)
