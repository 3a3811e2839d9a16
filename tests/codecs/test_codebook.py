"""The codebook codec: oracles, brute force, golden rule 1, prices, and paper 1's own setting on a real network."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netweight as nw
from netweight.cli import main
from netweight.codecs.base import Point, index_of
from netweight.codecs.codebook import FREE, MOST, Codebook, Order, price_of
from netweight.codecs.intervals import WORD_BITS, Priced, Weights, bins_of, cuts_for
from netweight.codecs.registry import choose
from netweight.codecs.words import Book, weights_of
from netweight.errors import FormatError, UsageError
from netweight.importance.stat import Stat
from netweight.theory import codebooks

W, I = np.array([-1, -0.9, 0, 0.1, 0.9, 1.2], np.float32), np.array([1, 2, 1, 4, 1, 3], np.float32)
CODEC = Codebook()


def draw(seed: int, size: int) -> Weights:
    """Weights of mixed scales with importance and quartic terms."""
    random = np.random.default_rng(seed)
    w = random.standard_t(3, size).astype(np.float32)
    return Weights(
        w, random.exponential(size=size).astype(np.float32), random.exponential(size=size).astype(np.float32)
    )


def best_cost(weights: Weights, k: int) -> float:
    """What the dynamic programme reaches with a bin for each value."""
    bins, _ = bins_of(weights, max(weights.w.size, 8))
    *_, cuts = cuts_for(bins, k)
    return float(bins.running().between(cuts[:-1], cuts[1:]).costs().sum())


def partitions(size: int) -> list[list[slice]]:
    """All ways to cut so many weights into runs."""
    inner = range(1, size)
    chosen = (c for k in range(size) for c in itertools.combinations(inner, k))
    return [[slice(a, b) for a, b in itertools.pairwise([0, *c, size])] for c in chosen]


# ---- oracles


@pytest.mark.core
def test_a_small_example():
    """The worked example of the theory: clusters {1,2}, {3,4}, {5,6}."""
    parts = CODEC.encode(W, Stat(diagonal=I), 3)
    assert parts.reals["codewords"] == pytest.approx([-14 / 15, 0.08, 1.125], abs=1e-6)
    back = CODEC.decode(parts, {"k": parts.streams["k"].k}, W.shape)
    assert Stat(2.0, diagonal=I).loss(W, W - back) == pytest.approx(0.0821667, abs=1e-6)
    assert abs(float(np.sum(I * back * (W - back)))) < 1e-6
    plain = CODEC.encode(W, Stat(), 3)
    assert plain.reals["codewords"] == pytest.approx([-0.95, 0.05, 1.05], abs=1e-6)


def test_the_quartic_codeword():
    w = np.array([0.1, 0.2, 0.9], np.float32)
    stat = Stat(diagonal=np.ones(3, np.float32), quartic=np.array([5, 1, 50], np.float32))
    assert CODEC.encode(w, stat, 1).reals["codewords"] == pytest.approx([0.6194666], abs=1e-6)
    assert CODEC.encode(w, Stat(), 1).reals["codewords"] == pytest.approx([0.4], abs=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 4))
def test_every_partition_is_looked_at(seed, size, k):
    """Against all cuts of the sorted weights, quadratic and quartic, by the theory's own centroids."""
    weights = draw(seed, size)
    order = np.argsort(weights.w)
    w, a, b = (v[order].astype(np.float64) for v in (weights.w, weights.importance, weights.quartic))
    square = fourth = math.inf
    for cells in partitions(size):
        if len(cells) > k:
            continue
        means = [np.average(w[c], weights=a[c]) for c in cells]
        square = min(square, sum(float(np.sum(a[c] * (w[c] - m) ** 2)) for c, m in zip(cells, means, strict=True)))
        roots = [codebooks.quartic_centroid(w[c], a[c], b[c]) for c in cells]
        costs = (a[c] * (w[c] - r) ** 2 + b[c] * (w[c] - r) ** 4 for c, r in zip(cells, roots, strict=True))
        fourth = min(fourth, sum(float(np.sum(cost)) for cost in costs))
    assert best_cost(Weights(weights.w, weights.importance), k) == pytest.approx(square, rel=1e-9, abs=1e-9)
    assert best_cost(weights, k) == pytest.approx(fourth, rel=1e-9, abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(10, 400), st.integers(1, 30))
def test_divide_and_conquer_against_the_full_table(seed, size, k):
    weights = draw(seed, size)
    best = codebooks.optimal(weights.w, min(k, size), weights.importance)
    assert best_cost(Weights(weights.w, weights.importance), k) == pytest.approx(best.cost, rel=1e-8, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 10), st.floats(1e-4, 1.0))
def test_the_best_partition_at_a_price(seed, size, price):
    weights = draw(seed, size)
    order = np.argsort(weights.w)
    w, a = weights.w[order].astype(np.float64), weights.importance[order].astype(np.float64)
    least = math.inf
    for cells in partitions(size):
        bits = sum((c.stop - c.start) * math.log2(size / (c.stop - c.start)) + WORD_BITS for c in cells)
        errors = (a[c] * (w[c] - np.average(w[c], weights=a[c])) ** 2 for c in cells)
        least = min(least, price * bits + sum(float(np.sum(e)) for e in errors))
    bins, _ = bins_of(Weights(weights.w, weights.importance), 16)
    cuts = Priced.of(bins).cuts(price)
    cells = bins.running().between(cuts[:-1], cuts[1:])
    bits = np.sum(cells.count * np.log2(size / cells.count) + WORD_BITS)
    assert float(cells.costs().sum() + price * bits) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("law", ["normal", "laplace", "standard_cauchy"])
def test_a_fine_histogram_is_as_good_as_the_weights(law):
    """1,500 weights in 512 bins: within 0.2 % of the exact optimum after refinement."""
    w = getattr(np.random.default_rng(1), law)(size=1500).astype(np.float32)
    bins, starts = bins_of(Weights(w), 512)
    assert 500 < bins.count.size <= 512
    assert int(bins.count.sum()) == w.size
    assert np.all(np.diff(starts) > 0)
    for k, cuts in enumerate(cuts_for(bins, 24), start=1):
        if k in (5, 24):
            book, groups = Book.of(bins.running().between(cuts[:-1], cuts[1:]), 0.0).refined(Weights(w), 3)
            assert book.loss(Weights(w), groups) <= 1.002 * codebooks.optimal(w, k).cost


# ---- what the codec promises


@pytest.mark.parametrize("knob", [2, 16, 200, index_of(0.3) - FREE])
def test_golden_rule_1_by_codeword(knob):
    weights = draw(3, 20_000)
    stat = Stat(diagonal=weights.importance.reshape(100, 200))
    w = weights.w.reshape(100, 200)
    parts = CODEC.encode(w, stat, knob)
    k = parts.streams["k"].k.reshape(w.shape)
    back = CODEC.decode(parts, {"k": k.reshape(-1)}, w.shape)
    assert len(np.unique(back)) == len(np.unique(k)) > 1
    product = stat.diagonal * back.astype(np.float64) * (w - back.astype(np.float64))
    scale = float(np.sum(stat.diagonal * np.square(w, dtype=np.float64)))
    for j in np.unique(k):
        assert abs(float(product[k == j].sum())) <= 1e-6 * scale


@pytest.mark.parametrize("knob", [4, 24, index_of(0.8) - FREE, index_of(0.2) - FREE])
@pytest.mark.parametrize("quartic", [False, True])
def test_predictions_with_importance(knob, quartic):
    """The loss of all weights' own importance is within 2 % of what a sweep says, and below what means ignore."""
    weights = draw(4, 24_000)
    shape = (120, 200)
    stat = Stat(
        3.0,
        diagonal=np.square(weights.importance).reshape(shape),
        quartic=weights.quartic.reshape(shape) if quartic else None,
    )
    w = weights.w.reshape(shape)
    points = {p.knob: p for p in CODEC.sweep(w, stat)}
    nearest = min(points, key=lambda k: (k * knob < 0, abs(k - knob)))
    lost = []
    for known in (stat, stat.flat()):
        parts = CODEC.encode(w, known, nearest)
        back = CODEC.decode(parts, {"k": parts.streams["k"].k}, w.shape)
        lost.append(stat.loss(w, w - back.astype(np.float64)))
    assert points[nearest].loss == pytest.approx(lost[0], rel=0.02)
    assert lost[0] < lost[1] or nearest < 0


def test_a_price_spends_bits_where_they_matter():
    """With half of the weights a hundred times as important: fewer bytes, and less loss + slope bits."""
    random = np.random.default_rng(5)
    w = random.standard_normal((200, 200)).astype(np.float32)
    stat = Stat(diagonal=np.where(random.random(w.shape) < 0.5, 100.0, 1.0).astype(np.float32))
    knob = index_of(1.0) - FREE
    slope = 0.5 * price_of(knob, 50.5)
    found = []
    for known in (stat, Stat()):
        archive = nw.encode({"w": w}, nw.Plan({"w": Point(0, 0, "codebook", knob)}, 0.0), {"w": known})
        loss = stat.loss(w, w - archive["w"].astype(np.float64))
        found.append((archive.nbytes, loss + slope * 8 * archive.nbytes))
    assert found[0][0] < 0.9 * found[1][0]
    assert found[0][1] < 0.97 * found[1][1]


def test_structure_counts_by_its_diagonal():
    random = np.random.default_rng(6)
    a = np.stack([m @ m.T for m in random.standard_normal((2, 3, 3))])
    g = random.exponential(size=4)
    weights = weights_of(np.ones((4, 3), np.float32), Stat(inputs=a, outputs=g))
    expected = np.concatenate([np.outer(g[:2], np.diag(a[0])), np.outer(g[2:], np.diag(a[1]))])
    assert weights.importance == pytest.approx(expected.reshape(-1).astype(np.float32), rel=1e-6)
    full = weights_of(np.ones((4, 3), np.float32), Stat(inputs=a, outputs=np.diag(g)))
    assert np.array_equal(full.importance, weights.importance)


def test_weights_without_importance_go_to_the_nearest_codeword():
    w = np.array([0.0, 0.1, 5.0, 4.9], np.float32)
    k = CODEC.encode(w, Stat(diagonal=np.array([1, 1, 1, 0], np.float32)), 2).streams["k"].k
    assert k[3] == k[2] != k[0]
    nothing = CODEC.encode(w, Stat(diagonal=np.zeros(4, np.float32)), 2).streams["k"].k
    assert len(set(nothing.tolist())) == 2


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_integers_rise_with_the_codewords(seed, size):
    random = np.random.default_rng(seed)
    words = np.sort(random.standard_normal(size))
    order = Order.of(words, random.integers(1, 1000, size).astype(np.float64))
    table = order.table(words)
    assert np.all(np.diff(order.integers) > 0)
    assert np.array_equal(table[order.integers.astype(int) + order.zero], words.astype(np.float32))
    assert table.size == size + order.gap


def test_two_equal_halves_cost_a_bit():
    """Two codewords go to 1 and -1 about a gap: tables cannot tell signs apart."""
    w = np.where(np.random.default_rng(7).random((128, 128)) < 0.5, 1.0, 3.0).astype(np.float32)
    archive = nw.encode({"w": w}, nw.Plan({"w": Point(0, 0, "codebook", 2)}, 0.0))
    assert np.array_equal(archive["w"], w)
    assert w.size / 8 <= archive.nbytes <= w.size / 8 + 600


def test_a_price_is_that_of_a_uniform_grid():
    """dD / dR of D = step^2 / 12, R = h - log2(step), by differences."""
    step, h = 0.25, 1e-6
    slope = ((step + h) ** 2 - step**2) / 12 / (math.log2(step + h) - math.log2(step))
    assert price_of(index_of(step) - FREE, 3.0) == pytest.approx(3.0 * slope, rel=1e-5)


# ---- knobs, defaults, damage


@pytest.mark.parametrize("knob", [0, MOST + 1, -2 * FREE, 1 << 19])
def test_knobs_that_are_none(knob):
    with pytest.raises(UsageError, match=f"no knob {knob}"):
        CODEC.encode(W, Stat(), knob)


def test_a_price_that_asks_for_too_many_codewords():
    w = np.random.default_rng(8).standard_normal(5000).astype(np.float32)
    with pytest.raises(UsageError, match="larger knob"):
        CODEC.encode(w, Stat(), index_of(1e-6) - FREE)


def test_it_is_tried_only_when_asked_for():
    assert "codebook" not in [codec.id for codec in choose(None)[0]]
    assert [codec.id for codec in choose(["codebook"])[0]] == ["codebook"]


def test_an_integer_without_a_codeword_is_damage(tmp_path):
    w = np.random.default_rng(9).standard_normal((30, 40)).astype(np.float32)
    archive = nw.encode({"w": w}, nw.Plan({"w": Point(0, 0, "codebook", 8)}, 0.0))
    parts = CODEC.encode(w, Stat(), 8)
    for k in (-100, 100):
        with pytest.raises(ValueError, match="without a codeword"):
            CODEC.decode(parts, {"k": np.full(w.size, k, np.int16)}, w.shape)
    archive.save(tmp_path / "a.nwt")
    with nw.Archive.open(tmp_path / "a.nwt") as read, pytest.raises(FormatError, match="cannot rebuild 'w'"):
        read.section(0).rebuild(0, {"k": np.full(w.size, 100, np.int16)})


# ---- a real network


def test_the_papers_own_setting(real, tmp_path):
    """The same number of codewords in every matrix, by editing a plan, through the command line."""
    source = real("mnist/lenet5.safetensors")
    plan, out, back = (str(tmp_path / name) for name in ("plan.json", "small.nwt", "back.safetensors"))
    assert main(["plan", str(source), "--bits", "5", "-o", plan, "-q"]) == 0
    with open(plan, encoding="utf-8") as file:
        edited = json.load(file)
    from safetensors.numpy import load_file

    before = load_file(source)
    for name, entry in edited["tensors"].items():
        if before[name].ndim > 1:
            entry.update(codec="codebook", knob=16)
    with open(plan, "w", encoding="utf-8") as file:
        json.dump(edited, file)
    assert main(["compress", str(source), "-o", out, "--plan", plan, "-q"]) == 0
    assert main(["verify", out, "--against", str(source), "-q"]) == 0
    assert main(["restore", out, "-o", back, "-q"]) == 0
    after = load_file(back)
    for name, w in before.items():
        if w.ndim > 1:
            assert len(np.unique(after[name])) == min(16, w.size)
            error = float(np.sum(np.square(w.astype(np.float64) - after[name])))
            assert error <= 1.001 * codebooks.lloyd(w.reshape(-1), 16, iterations=30).cost


@pytest.mark.slow
def test_a_real_network_at_a_size(real):
    """Alone, with `exact`: the size is met from below, and the predicted loss is the measured one."""
    source = real("cifar10/resnet20.safetensors")
    archive = nw.compress(source, bits=3.0, codecs=["codebook", "exact"])
    weights = sum(math.prod(info.shape) for info in archive.infos.values())
    assert 0.98 * 3.0 <= 8 * archive.nbytes / weights <= 3.0
    used = {s.codec for s in archive.header.sections}
    assert "codebook" in used
