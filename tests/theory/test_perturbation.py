"""Weight error to output error: the theorem, its condition, and where it is attained."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight.theory import perturbation


def random_pair(rng: np.random.Generator, depth: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    sizes = rng.integers(1, 6, depth + 1)
    layers = [rng.normal(size=(b, a)) for a, b in pairwise(sizes)]
    smaller = [w * rng.choice([0.0, 0.3, 0.9, 1.0], w.shape) for w in layers]
    return layers, smaller


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(["l1", "column", "frobenius"]))
def test_no_input_errs_more_than_the_bound(seed, depth, norm):
    rng = np.random.default_rng(seed)
    layers, smaller = random_pair(rng, depth)
    bound = perturbation.output_bound(layers, smaller, norm)
    for activation in (lambda x: np.maximum(x, 0), np.tanh):
        found = perturbation.output_error(layers, smaller, rng, activation, samples=40, norm=norm)
        assert found <= bound * (1 + 1e-9)


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 1), st.floats(0, 1))
def test_chains_of_one_weight(a, b, keep_a, keep_b):
    pair, small = [[[a]], [[b]]], [[[a * keep_a]], [[b * keep_b]]]
    found = perturbation.output_error(pair, small, np.random.default_rng(0), lambda x: np.maximum(x, 0), samples=2)
    assert found == pytest.approx(a * b * (1 - keep_a * keep_b), rel=1e-9, abs=1e-12)
    assert found <= perturbation.output_bound(pair, small) + 1e-9
    one = perturbation.output_bound([[[a]]], [[[a * keep_a]]])
    assert one == pytest.approx(a * (1 - keep_a)), "attained by a single weight"


def test_the_condition_cannot_be_dropped():
    before, after = [[[1.0]], [[1.0]]], [[[3.0]], [[3.0]]]
    with pytest.raises(ValueError, match=r"norm 3, the original 1\."):
        perturbation.output_bound(before, after)
    x = np.array([[1.0]])
    error = abs(
        perturbation.forward(before, x, lambda t: np.maximum(t, 0))
        - perturbation.forward(after, x, lambda t: np.maximum(t, 0))
    )
    assert float(error[0, 0]) == 8
    assert 1 * (2 / 1 + 2 / 1) == 4, "what the formula would have said"


def test_norms():
    w = [[1.0, -2.0], [2.0, 3.0]]
    assert perturbation.layer_norm(w) == 8
    assert perturbation.layer_norm(w, "column") == 5
    assert perturbation.layer_norm(w, "frobenius") == pytest.approx(18**0.5)


def test_refusals():
    with pytest.raises(ValueError, match="same number"):
        perturbation.output_bound([[[1.0]]], [])
    with pytest.raises(ValueError, match="zero"):
        perturbation.output_bound([[[0.0]]], [[[0.0]]])
    with pytest.raises(ValueError, match="equal shapes"):
        perturbation.output_bound([[[1.0]]], [[[1.0, 2.0]]])
    with pytest.raises(ValueError, match="flatten"):
        perturbation.layer_norm([1.0])
