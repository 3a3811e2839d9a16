"""Successive quantisation that knows what the outputs count for: weighted rows, and rows that see each other."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from feedback_layers import layer, middling, moments, sensitivities, there_and_back
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import netweight as nw
from netweight import kernels_feedback, kernels_numpy_feedback
from netweight.cli import main
from netweight.codecs.base import STEPS_PER_OCTAVE, index_of
from netweight.codecs.feedback import Feedback, FeedbackScalar
from netweight.codecs.matrix import matrix_of
from netweight.codecs.ridge import Spectrum
from netweight.entropy.trellis import TAPS
from netweight.importance.core import Importance
from netweight.importance.stat import Stat
from netweight.kernels_feedback import Successive
from netweight.theory import gaussian, universal

core = pytest.mark.core

CODECS = [pytest.param(Feedback(), id="trellis"), pytest.param(FeedbackScalar(), id="scalar")]
LAYERS = ("layer3.2.conv1.weight", "layer3.2.conv2.weight")


# ---- kernels


@pytest.mark.parametrize("bits", [3, 8])
def test_twins_where_decisions_become_final_on_the_way(bits):
    """Columns so long that paths leave the list for what they did long ago."""
    random = np.random.default_rng(bits)
    rows, n = 256, 32
    x = random.normal(0, 2, (n, rows)).astype(np.float32)
    m = np.triu(random.standard_normal((1, n, n)) * 0.2, 1).astype(np.float32)
    down = np.triu(random.standard_normal((rows, rows)) * 0.1, 1).astype(np.float32)
    paid = np.full((1, n), 0.1, np.float32), np.ones(rows, np.float32)
    rate = (random.random((1, 2, 256)) * 500 + 200 * np.abs(np.arange(256) - 128)).astype(np.int32)
    how = Successive(rows, n, 1, n, rows, 1 << 15, bits, *TAPS[bits], 32)
    context = np.zeros((2, rows), np.uint16), np.zeros((2, rows), np.uint8)
    found = []
    for path in (kernels_feedback.feedback, kernels_numpy_feedback.feedback):
        targets, state = x.copy(), np.zeros(32, np.uint8)
        found.append([path(targets, m, down, paid, how, range(2), context, rate, state), targets, state])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@core
@pytest.mark.parametrize("bits", [0, 3])
def test_a_column_whose_rows_see_each_other_is_the_best_there_is(bits):
    """With a list as long as all paths are many; a scalar search takes row after row, and so may miss the best."""
    random = np.random.default_rng(bits)
    rows = 4
    x = random.normal(0, 1.2, (1, rows)).astype(np.float32)
    rate = (random.random((1, 2 if bits else 1, 256)) * 500 + 300 * np.abs(np.arange(256) - 128)).astype(np.int32)
    paid = np.full((1, 1), 0.1, np.float32), np.full(rows, 2.0, np.float32)
    down = np.triu(random.standard_normal((rows, rows)), 1).astype(np.float32)
    how = Successive(rows, 1, 1, 1, rows if bits else 0, rows, bits, *(TAPS[bits] if bits else (0, 0)), 64)
    context = np.zeros((1, rows), np.uint16), np.zeros((1, rows), np.uint8)
    none = np.zeros((1, 1, 1), np.float32)
    r = kernels_feedback.feedback(x.copy(), none, down, paid, how, range(1), context, rate, np.zeros(32, np.uint8))
    k = np.sign(r) * (np.abs(r) + 1 >> 1) if bits else r

    def costs(integers) -> list[float]:
        total, state, left = [], 0, np.zeros(rows)
        for o, value in enumerate(integers):
            book = state & 1 if bits else 0
            r = 2 * value - book * ((value > 0) - (value < 0)) if bits else value
            target = float(x[0, o]) + float(left @ down[:, o])
            left[o] = float(x[0, o]) - r
            total.append(1024 * ((target - r) ** 2 - 0.2 * (r * r - target * target)) + rate[0, book, value + 128])
            state = (state >> 1) ^ book * how.tap0 ^ (value & 1) * how.tap1
        return total

    found = costs(k[0].tolist())
    if bits:
        # children are two a path, of each parity the cheaper of two integers: less than all integers
        assert sum(found) <= 1.05 * min(sum(costs(some)) for some in itertools.product(range(-3, 4), repeat=rows))
    else:
        for o in range(rows):
            before = k[0, :o].tolist()
            assert found[o] <= min(costs([*before, v])[o] for v in range(-3, 4)) + 1


# ---- rows of unequal weight


@pytest.mark.parametrize("share", [0.003, 0.1, 0.7])
def test_the_ridge_of_weighted_rows_is_that_of_the_best_channel(share):
    """Against `theory.universal` on all products g_i a_j; expected loss and the nearest Kronecker product with it."""
    w, stat = layer((48, 12))
    spectrum = Spectrum.of(matrix_of(w, replace(stat, outputs=2.0 ** np.random.default_rng(1).integers(-2, 3, 48))))
    products = (spectrum.weights[0][:, None] * spectrum.values[0]).reshape(-1)
    energies = np.square(spectrum.along(slice(None))[0]).reshape(-1)
    theta = share * float((energies * products).mean())
    ridge = spectrum.ridge(theta)
    _, distortion, tau2 = universal.curve(products, ridge, energies)
    assert float(ridge[0] * tau2[0]) == pytest.approx(theta, rel=1e-9)
    target = spectrum.target(theta)
    expected = spectrum.matrix.w[0] @ spectrum.basis[0] * (products / (products + ridge)).reshape(48, 12)
    assert np.allclose(target.shrunk[0] @ spectrum.basis[0], expected)
    assert spectrum.expected_sum(theta) == pytest.approx(float(spectrum.expected(theta).sum()), rel=1e-9)
    assert float(spectrum.expected(theta).sum()) == pytest.approx(float(distortion[0]), rel=0.15)
    whole = np.diag(products + ridge)
    diagonal = np.square(np.diagonal(target.factor[0]))  # of another order than the eigenvalues: determinants agree
    kron = np.kron(np.square(target.rows[0]), np.linalg.eigvalsh(target.factor[0] @ target.factor[0].T))
    assert np.log(kron).sum() == pytest.approx(
        48 * np.log(diagonal).sum() + 12 * np.log(np.square(target.rows[0])).sum()
    )

    def divergence(k: np.ndarray) -> float:
        return float(np.sum(np.diagonal(whole) / k) + np.log(k).sum())

    g, a = np.square(target.rows[0]), np.linalg.eigvalsh(target.factor[0] @ target.factor[0].T)
    for rows, columns in ((0.0, 0.5), (0.5, 0.0), (-0.5, -0.5), (0.5, -0.5), (1.0, 1.0)):
        assert divergence(kron) <= divergence(np.kron(g + rows * g.min(), a + columns * a.min())) + 1e-6


def above_the_bound(w, stat, values, back, nbytes) -> float:
    """Bits a weight of a file above R(D), by reverse water-filling on the eigenvalues of the loss."""
    variance = float(np.mean(np.square(w, dtype=np.float64)))
    lost = 2 * stat.loss(w, w - back)
    bound_bits = float(gaussian.rate_nats(variance * np.sort(values)[::-1], lost)) / np.log(2) / w.size
    return 8 * nbytes / w.size - bound_bits


@pytest.mark.parametrize("codec", CODECS)
def test_weighted_rows_come_close_to_the_bound_and_not_below(codec):
    """Reverse water-filling on the products of g and the eigenvalues of A."""
    w, stat = layer((512, 192))
    stat = replace(stat, outputs=sensitivities(512, 1.0))
    values = np.kron(stat.outputs, np.linalg.eigvalsh(2.0 * stat.inputs[0]))
    for factor in (1.0, 0.25):
        back, nbytes = there_and_back(codec, w, stat, index_of(factor * middling(w, stat)))
        assert 0 < above_the_bound(w, stat, values, back, nbytes) < (0.25 if codec.grid.bits else 0.45)
        through = stat.weight * np.sum(stat.outputs[:, None] * (back @ stat.inputs[0]) * (w - back))
        assert abs(through) <= 1e-6 * stat.loss(w, w), "golden rule 1 in the metric of the loss"


# ---- rows whose outputs see each other


@pytest.mark.parametrize("codec", CODECS)
def test_correlated_outputs_come_close_to_the_bound_and_not_below(codec):
    """Reverse water-filling on the products of the eigenvalues of G and of A; golden rule 1 in that metric."""
    w, stat = layer((256, 192))
    stat = replace(stat, outputs=moments(256, seed=11)[0])
    values = np.kron(np.linalg.eigvalsh(stat.outputs), np.linalg.eigvalsh(2.0 * stat.inputs[0]))
    for factor in (1.0, 0.25):
        back, nbytes = there_and_back(codec, w, stat, index_of(factor * middling(w, stat)))
        assert 0 < above_the_bound(w, stat, values, back, nbytes) < (0.4 if codec.grid.bits else 0.55)
        through = stat.weight * np.sum((stat.outputs @ back @ stat.inputs[0]) * (w - back))
        assert abs(through) <= 1e-6 * stat.loss(w, w)


@pytest.mark.parametrize("codec", CODECS)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.1, 0.5, 2.0]), factor=st.sampled_from([3.0, 1.0, 0.3]))
@settings(max_examples=8, deadline=None)
def test_knowing_the_outputs_is_never_much_worse(codec, seed, spread, factor):
    """At the bits of a file that knows A only, its loss is at most a little less."""
    w, stat = layer((64, 80), seed=seed % 1000)
    random = np.random.default_rng(seed)
    root = np.eye(64) + spread * random.standard_normal((64, 64)) / 8
    stat = replace(stat, outputs=root @ root.T)
    mean = float(np.mean(np.diagonal(stat.outputs)))
    blind = replace(stat, outputs=None, weight=stat.weight * mean)
    knob = index_of(factor * middling(w, blind))
    back, nbytes = there_and_back(codec, w, blind, knob)
    target, tried = stat.loss(w, w - back), []
    for octaves in np.arange(-2, 2, 0.25):
        other, its_bytes = there_and_back(codec, w, stat, index_of(factor * 2.0**octaves * middling(w, blind)))
        tried.append((8 * its_bytes / w.size, np.log(stat.loss(w, w - other))))
    bits, logs = np.array(sorted(tried)).T
    assert np.exp(np.interp(8 * nbytes / w.size, bits, logs)) <= 1.1 * target


def test_rows_that_make_up_for_each_other_are_foretold_by_all_of_them():
    """Far below what they save each other; and where the loss runs away from one step to the next, each is tried."""
    w, stat = layer((256, 256))
    basis = np.linalg.qr(np.random.default_rng(5).standard_normal((256, 256)))[0]
    stat = replace(stat, outputs=basis * 2.0 ** np.linspace(-14, 0, 256) @ basis.T)
    codec, nothing = Feedback(), stat.loss(w, w)
    low = [p for p in codec.sweep(w, stat) if p.bits < 1.1 * w.size and p.loss < 0.99 * nothing]
    assert min(p.bits for p in low) < 0.15 * w.size
    for p in low:
        back, nbytes = there_and_back(codec, w, stat, p.knob)
        assert 8 * nbytes == pytest.approx(p.bits, rel=0.02, abs=2000)
        assert stat.loss(w, w - back) == pytest.approx(p.loss, rel=0.04)
    low.sort(key=lambda p: p.knob)
    for fine, coarse in itertools.pairwise(low):
        assert coarse.loss < 2.05 * fine.loss or coarse.knob - fine.knob < 1.1 * STEPS_PER_OCTAVE / 4


# ---- end to end


def test_a_real_network_loses_less_when_its_outputs_are_known(real, tmp_path):
    """Its weights through the command line at equal bytes, under second moments that are no diagonals."""
    tensors = {name: w for name, w in load_file(real("cifar10/resnet20.safetensors")).items() if name in LAYERS}
    save_file(tensors, tmp_path / "m.safetensors")
    known = {}
    for name, w in tensors.items():
        known[name] = Stat(1e-3, inputs=moments(w[0].size), outputs=moments(len(w), seed=2)[0])
    lost, sizes = {}, {}
    for case, stats in (
        ("full", known),
        (
            "blind",
            {
                n: replace(s, outputs=None, weight=1e-3 * float(np.mean(np.diagonal(s.outputs))))
                for n, s in known.items()
            },
        ),
    ):
        Importance.of(stats).save(tmp_path / case)
        out = tmp_path / f"{case}.nwt"
        words = ["compress", tmp_path / "m.safetensors", "-o", out, "--bits", "2.0", "--importance", tmp_path / case]
        assert main([str(word) for word in [*words, "-q"]]) == 0
        archive = nw.Archive.open(out)
        assert {row.codec for row in archive.rows()} == {"feedback"}
        lost[case] = sum(known[name].loss(w, w - archive[name]) for name, w in tensors.items())
        sizes[case] = out.stat().st_size
        if case == "full":
            assert archive.plan["loss"] == pytest.approx(lost[case], rel=0.06)
    assert sizes["full"] == pytest.approx(sizes["blind"], rel=0.005)
    assert lost["full"] < 0.8 * lost["blind"]
