"""Code lengths, the textbook pruner, and compressibility."""

from math import comb, log, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from netweight.theory import compressibility, rates, surp

weights = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-100, 100)).filter(
    lambda w: np.abs(w).max() > 1e-3
)


def test_ratios():
    same = rates.paper_ratio([500, 250, 125, 125])
    assert (same.shannon, same.huffman) == (0.0586875, 0.0586875)
    assert same.entropy == pytest.approx(0.0586875, abs=1e-12)
    other = rates.paper_ratio([700, 200, 100])
    assert other.shannon * 32000 == 1796
    assert other.huffman * 32000 == 1396
    assert other.entropy * 32000 == pytest.approx(1252.780, abs=5e-4)
    assert (other.shannon, other.huffman, round(other.entropy, 6)) == (0.056125, 0.043625, 0.039149)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_order_of_the_three_codes(counts):
    entropy, shannon = rates.entropy_bits(counts), rates.shannon_code_bits(counts)
    lengths = rates.huffman_lengths(counts)
    huffman = sum(c * n for c, n in zip(counts, lengths, strict=True))
    used = [n for c, n in zip(counts, lengths, strict=True) if c]
    assert sum(2.0**-n for n in used) == 1 or len(used) == 1
    assert entropy - 1e-6 <= huffman
    assert huffman <= max(shannon, sum(counts)) + 1e-6
    assert shannon < entropy + sum(counts) + 1e-6


def test_geometric_codes():
    for p, entropy, parameter, bits in ((0.5, 2, 1, 2), (0.1, 4.6900, 7, 4.7251), (0.01, 8.0793, 69, 8.1050)):
        assert rates.geometric_entropy_bits(p) == pytest.approx(entropy, abs=5e-5)
        assert rates.golomb_parameter(p) == parameter
        assert rates.golomb_mean_bits(p) == pytest.approx(bits, abs=5e-5)


@given(st.floats(0.002, 0.9))
def test_golomb_against_direct_summation_and_every_other_parameter(p):
    k = np.arange(20_000)
    mass = p * (1 - p) ** k

    def direct(m: int) -> float:
        b = int(np.ceil(np.log2(m))) if m > 1 else 0
        length = k // m + 1 + b - (k % m < 2**b - m)
        return float((mass * length).sum())

    best = rates.golomb_parameter(p)
    assert (1 - p) ** best + (1 - p) ** (best + 1) <= 1
    assert best == 1 or (1 - p) ** (best - 1) + (1 - p) ** best > 1
    assert rates.golomb_mean_bits(p) == pytest.approx(direct(best), rel=1e-9)
    for m in {max(1, best - 1), best + 1, 2 * best}:
        assert rates.golomb_mean_bits(p, m) >= rates.golomb_mean_bits(p) - 1e-12
    assert rates.golomb_mean_bits(p) >= rates.geometric_entropy_bits(p) - 1e-9


def test_hand_example_of_the_pruner():
    run = surp.textbook([5, 3, 1, 1], log_ratio=1.2, steps=100)
    assert run.thresholds == pytest.approx([3.0, 2.1, 1.47])
    assert list(run.messages) == [0, 1, 0]
    assert run.reconstruction == pytest.approx([4.47, 2.1, 0, 0])
    assert run.residual == pytest.approx([0.53, 0.9, 1, 1])
    assert run.residual.mean() == pytest.approx(0.8575)
    assert run.residual.mean() == pytest.approx(2.5 * 0.7**3)
    assert run.residual.max() < 1.2 * run.residual.mean() == pytest.approx(1.029)


@given(st.integers(0, 2**32 - 1), st.integers(20, 400))
def test_mean_residual_identity(seed, n):
    rng = np.random.default_rng(seed)
    u = rng.exponential(size=n)
    c = log(n / log(n))
    run = surp.textbook(u, c, 50, rng)
    steps = run.messages.size
    assert run.residual.mean() == pytest.approx(u.mean() * (1 - c / n) ** steps)
    assert run.residual.mean() == pytest.approx(u.mean() - run.thresholds.sum() / n)
    assert (run.residual >= 0).all()
    assert run.reconstruction + run.residual == pytest.approx(u)


def test_the_textbook_form_stalls_after_about_beta_steps():
    rng = np.random.default_rng(0)
    n = 100_000
    steps = [
        surp.textbook(rng.exponential(size=n), log(n / beta), 100_000, rng).messages.size for beta in (log(n), 115.0)
    ]
    assert 2 < steps[0] < 40
    assert 60 < steps[1] < 240


def test_efficiency():
    assert [round(surp.efficiency(10**k), 2) for k in range(3, 8)] == [0.72, 0.76, 0.79, 0.81, 0.83]
    with pytest.raises(ValueError, match="beta"):
        surp.efficiency(10, 20.0)


def test_ladder_rates():
    """An independent run of the same ladder, read at whole levels; ours interpolates between them, hence 6 %."""
    run = surp.ladder(np.random.default_rng(0).exponential(size=200_000), start=10.0)
    for ratio, bits in (
        (0.95, 0.105),
        (0.9, 0.230),
        (0.8, 0.508),
        (0.7, 0.821),
        (0.5, 1.614),
        (0.3, 2.653),
        (0.2, 3.706),
    ):
        assert np.interp(-ratio, -run.distortion, run.bits) == pytest.approx(bits, rel=0.06)
        assert np.interp(-ratio, -run.distortion, run.bits) > -log2(ratio)
    assert (np.diff(run.distortion) <= 0).all()
    assert np.interp(-0.9, -run.distortion, run.zeros) == pytest.approx(0.978, abs=0.003)


@given(st.integers(1, 3000), st.floats(0, 1))
def test_set_code_length(n, share):
    k = round(share * n)
    assert surp._log2_choose(n, k) == pytest.approx(log2(comb(n, k)), abs=1e-3)


def test_magnitude_pruning_of_an_exponential():
    for s, ratio in ((0.5, 0.153426), (0.8, 0.478112), (0.9, 0.669741), (0.95, 0.800213), (0.99, 0.943948)):
        u = -np.log1p(-(np.arange(200_000) + 0.5) / 200_000)
        errors = compressibility.best_k_term_errors(u, power=1.0)
        assert errors[round((1 - s) * u.size)] == pytest.approx(ratio, abs=2e-5)


@given(weights, st.floats(0.1, 10))
def test_compressibility_is_scale_free_and_ordered(w, factor):
    errors = compressibility.best_k_term_errors(w)
    assert errors[0] == pytest.approx(1)
    assert errors[-1] == 0
    assert (np.diff(errors) <= 1e-12).all()
    assert compressibility.pq_index(w) == pytest.approx(compressibility.pq_index(factor * w), abs=1e-9)
    assert -1e-9 <= compressibility.pq_index(w) <= 1 - 1 / w.size + 1e-9
    assert compressibility.weak_lq_radius(w, 1.0) <= np.abs(w).sum() * (1 + 1e-12)


@given(weights, st.sampled_from([0.5, 0.8, 1.2]))
def test_weak_radius_bounds_every_error(w, q):
    radius, norm = compressibility.weak_lq_radius(w, q), float(np.sqrt((w**2).sum()))
    errors = compressibility.best_k_term_errors(w) * norm
    k = np.arange(1, w.size + 1)
    assert (errors[1:] <= radius * (2 / q - 1) ** -0.5 * k ** (0.5 - 1 / q) * (1 + 1e-9)).all()


@given(weights, st.floats(0.01, 2))
def test_pq_bound_is_below_what_has_to_be_kept(w, eta):
    mass = np.cumsum(np.sort(np.abs(w))[::-1] ** 0.5)
    needed = 1 + int(np.argmax(mass[-1] - mass <= eta * mass))
    assert compressibility.pq_keep_bound(w, eta) <= needed * (1 + 1e-9)


def test_decay_exponent_and_refusals():
    assert compressibility.decay_exponent(np.arange(1, 2000) ** -1.25) == pytest.approx(0.8, abs=1e-6)
    with pytest.raises(ValueError, match="zero"):
        compressibility.pq_index([0.0, 0.0])
    with pytest.raises(ValueError, match="p = 2"):
        compressibility.pq_index([1.0], p=2.0, q=1.0)
    with pytest.raises(ValueError, match="decay"):
        compressibility.decay_exponent([1.0] * 10)
    with pytest.raises(ValueError, match="counts"):
        rates.entropy_bits([0, 0])
    with pytest.raises(ValueError, match="p is"):
        rates.geometric_entropy_bits(0.0)


def test_parameter_counts_of_resnet20(real):
    """What "a weight" is in ratios: matrices alone, or all that is trained."""
    with safe_open(real("cifar10/resnet20.safetensors"), "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping
    matrices = sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) > 1)
    trained = sum(int(np.prod(s)) for name, s in shapes.items() if not name.endswith(("running_mean", "running_var")))
    assert matrices == 268_336
    assert trained - sum("num_batches_tracked" in name for name in shapes) == 269_722
