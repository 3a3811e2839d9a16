"""The pruner message by message: as in theory, exact on both sides, in distribution like the published loop."""

import importlib
import sys
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight.codecs.messages import HEADER, Rule, normalised, receive, send, write
from netweight.entropy.rice import BitReader, BitWriter, Mean
from netweight.errors import FormatError, UsageError
from netweight.theory.surp import textbook

AUTHORS = Rule(10.0, refreshed=True)


def laplacian(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).laplace(size=n)


# ---- codes


@given(
    numbers=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**63)), max_size=200), first=st.integers(0, 10**6)
)
def test_rice_codes_come_back(numbers, first):
    writer, mean = BitWriter(), Mean(first)
    for number in numbers:
        writer.rice(number, mean)
    reader, mean = BitReader(writer.bytes()), Mean(first)
    assert [reader.rice(mean) for _ in numbers] == numbers
    assert reader.at == len(writer)
    assert len(writer.bytes()) == -(-len(writer) // 8)


@pytest.mark.parametrize("p", [0.5, 0.1, 0.01])
def test_rice_codes_of_waiting_times_are_near_their_entropy(p):
    """Entropy of a geometric law, H(p) / p; the best Golomb code takes at most 2 % more, an adaptive Rice code 6 %."""
    waits = np.random.default_rng(0).geometric(p, 20_000) - 1
    writer, mean = BitWriter(), Mean(1)
    for wait in waits.tolist():
        writer.rice(wait, mean)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / p
    assert 0.98 * entropy < len(writer) / waits.size < 1.06 * entropy


# ---- the theory's rule


def test_thresholds_are_the_textbook_s():
    """T = c mean (1 - c/n)^t, whatever the indices: c = ln(n / beta)."""
    w = laplacian(5000)
    c = log(5000 / 100)
    sent = send(w, Rule(c))
    reference = textbook(np.abs(w), c, 10_000)
    assert sent.refreshes.sum() == 0
    shared = min(sent.thresholds.size, reference.thresholds.size)
    assert shared > 80
    np.testing.assert_allclose(sent.thresholds[:shared], reference.thresholds[:shared], rtol=1e-12)
    t = np.arange(sent.thresholds.size)
    np.testing.assert_allclose(sent.thresholds, c * np.abs(w).mean() * (1 - c / w.size) ** t, rtol=1e-9)
    left = np.abs(w - sent.vector).mean()
    assert left == pytest.approx(np.abs(w).mean() * (1 - c / w.size) ** t.size, rel=1e-9)
    assert (np.abs(w - sent.vector) <= np.abs(w)).all()


# ---- both sides


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 3000), refreshed=st.booleans(), factor=st.floats(0.5, 12.0),
    cut=st.floats(0, 1),
)  # fmt: skip
def test_both_sides_agree_bit_for_bit(seed, n, refreshed, factor, cut):
    w = np.random.default_rng(seed).standard_t(3, n)
    sent = send(w, Rule(factor, refreshed), zeros=0.6, steps=500)
    data = write(sent)
    np.testing.assert_array_equal(receive(data), sent.vector)
    some = int(cut * sent.waits.size)
    before = send(w, Rule(factor, refreshed), zeros=0.6, steps=some)
    np.testing.assert_array_equal(receive(data, some), before.vector)


def test_any_prefix_of_the_bits_is_a_coarser_vector():
    w = laplacian(4000)
    data = write(send(w, AUTHORS, zeros=0.8))
    bits, apart = [], []
    for count in range(0, 801, 100):
        short = write(send(w, AUTHORS, zeros=0.8, steps=count)) if count else data[: HEADER.size + 8]
        prefix = data[: len(short) + 8]  # the next refresh is announced before it comes
        bits.append(8 * len(prefix))
        apart.append(float(np.abs(w - receive(prefix, count)).mean()))
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 0.55 * apart[0]
    assert bits == sorted(bits)


def test_damage():
    data = write(send(laplacian(500), AUTHORS, zeros=0.8))
    for broken in (b"", data[:20], data[:-20], HEADER.pack(True, 0, 5, 1.0, 1.0), HEADER.pack(True, 5, 5, np.nan, 1.0)):
        with pytest.raises(FormatError):
            receive(broken)
    for w in (np.zeros(5), np.array([np.inf, 1.0])):
        with pytest.raises(UsageError, match="The mean magnitude is"):
            send(w, AUTHORS)


def test_norms():
    tensors = [laplacian(50).reshape(5, 10), np.zeros(3), 1e3 * laplacian(7)]
    joined, norms = normalised(tensors)
    assert norms[1] == 1.0
    assert joined.size == 60
    for part, norm, tensor in zip(np.split(joined, [50, 53]), norms, tensors, strict=True):
        np.testing.assert_allclose(part * norm, tensor.reshape(-1), rtol=1e-14)
    assert np.linalg.norm(joined[:50]) == pytest.approx(1)


# ---- the published loop


@pytest.fixture(scope="module")
def published():
    """A transcript of the published loop: its own means, its own draws."""
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.insert(0, root)
    pytest.importorskip("matplotlib")
    return importlib.import_module("experiments.surp_rule").official


def facts(u: np.ndarray, rebuilt: np.ndarray, messages: int, refreshes: int) -> list[float]:
    """Messages a weight, distortion, updates of each non-zero weight, error of its value, refreshes."""
    hit = rebuilt > 0
    return [
        messages / u.size, float(np.mean(u - rebuilt) / u.mean()), messages / int(hit.sum()),
        float(np.mean(1 - rebuilt[hit] / u[hit])), float(refreshes),
    ]  # fmt: skip


def test_the_published_loop_in_distribution(published):
    """n = 20,000, alpha 10, until a fifth is not zero: twelve runs of each on weights of their own."""
    stats = pytest.importorskip("scipy.stats")
    ours, theirs, values = [], [], ([], [])
    for seed in range(12):
        u = np.random.default_rng(seed).exponential(size=20_000)
        sent = send(u, AUTHORS, zeros=0.8)
        assert sent.n - np.count_nonzero(sent.vector) == 16_000
        ours.append(facts(u, sent.vector, sent.waits.size, int(sent.refreshes.sum())))
        random = np.random.default_rng(1000 + seed)
        v = random.exponential(size=20_000)
        trace = published(v, random)
        theirs.append(facts(v, trace.reconstruction, trace.thresholds.size, int(trace.refreshes[-1])))
        values[0].append((sent.vector[sent.vector > 0] / u[sent.vector > 0])[::40])
        values[1].append((trace.reconstruction / v)[trace.reconstruction > 0][::40])
    a, b = np.array(ours), np.array(theirs)
    error = np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / len(a))
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error + 1e-9).all()
    assert a[:, 0].mean() == pytest.approx(0.2, abs=0.01)
    assert a[:, 2].max() < 1.05
    assert 0.02 < a[:, 3].mean() < 0.06
    assert stats.ks_2samp(np.concatenate(values[0]), np.concatenate(values[1])).pvalue > 1e-3


def test_the_published_loop_on_the_same_weights(published):
    """Draws differ and nothing else: levels of thresholds are the same."""
    u = np.random.default_rng(3).exponential(size=20_000)
    sent, trace = send(u, AUTHORS, zeros=0.8), published(u, np.random.default_rng(4))
    assert sent.thresholds[0] == pytest.approx(trace.thresholds[0], rel=1e-12)
    for share in (0.1, 0.5, 0.9):
        ours, theirs = (float(np.quantile(t, share)) for t in (sent.thresholds, trace.thresholds))
        assert ours == pytest.approx(theirs, rel=0.03)
