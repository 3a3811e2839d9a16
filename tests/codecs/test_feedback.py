"""Successive quantisation under the second moment of the inputs: brute force, bounds, and its own predictions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from feedback_layers import drawn, layer, middling, moments, sensitivities, there_and_back
from hypothesis import given, settings
from hypothesis import strategies as st

import netweight as nw
from netweight import kernels_feedback, kernels_numpy_feedback
from netweight.codecs.base import Point, index_of, step_of
from netweight.codecs.feedback import Feedback, FeedbackScalar
from netweight.codecs.matrix import column_order, matrix_of
from netweight.codecs.ridge import Spectrum
from netweight.codecs.steps import exponents, factors, step_table
from netweight.codecs.whitened import theta_of
from netweight.entropy.decode import decode_chunk, decode_head
from netweight.entropy.layout import Layout, Levels
from netweight.entropy.stream import encode_section
from netweight.entropy.trellis import TAPS
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.kernels_feedback import Successive
from netweight.theory import gaussian, universal

core = pytest.mark.core

CODECS = [pytest.param(Feedback(), id="trellis"), pytest.param(FeedbackScalar(), id="scalar")]
SHAPES = [(96, 40), (64, 8, 3, 3), (64, 1, 3, 3), (33, 7), (32, 2, 9, 9), (48, 6, 5)]


# ---- scan


@core
@pytest.mark.parametrize("shape", [*SHAPES, (5,), (0, 3), (), (40, 32, 65)])
def test_the_scan_is_a_permutation_that_walks_down_columns(shape):
    layout = Layout.down(shape)
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    scan = layout.scan(numbers)
    assert np.array_equal(layout.unscan(scan, shape), numbers)
    assert np.array_equal(np.sort(scan), numbers.reshape(-1))
    if len(shape) >= 2 and layout.size:
        lane = scan.reshape(layout.positions, -1, layout.lanes)[0, :, 0]
        of_column = np.unravel_index(lane, (layout.rows, layout.columns, layout.positions))
        assert np.array_equal(of_column[1] * layout.rows + of_column[0], np.arange(lane.size))


@core
@pytest.mark.parametrize("shape", SHAPES)
def test_classes_are_those_of_rows_and_columns(shape):
    random = np.random.default_rng(0)
    layout = Layout.down(shape)
    row, row_step = random.integers(-5, 5, (2, layout.rows)).astype(np.int16)
    column, column_step = random.integers(-5, 5, (2, layout.places)).astype(np.int16)
    levels = Levels(9, row, column, row_step, column_step)
    whole = np.clip(9 + (row + row_step)[:, None] + column + column_step, 0, 31).astype(np.uint8)
    cube = whole.reshape(layout.rows, layout.positions, layout.columns).transpose(0, 2, 1)
    expected = layout.scan(np.ascontiguousarray(cube))
    for start, size in ((0, layout.size), (layout.size // 3, layout.size // 2), (5, 0)):
        found = levels.classes(layout, start, size)
        assert np.array_equal(found, expected[start : start + size])


# ---- kernels


@core
@given(
    seed=st.integers(0, 10**6), bits=st.sampled_from([0, 3, 4, 8]), groups=st.sampled_from([1, 2, 8]),
    per_plane=st.integers(1, 5), planes=st.integers(1, 3), scale=st.sampled_from([0.4, 3.0, 200.0]),
    survivors=st.sampled_from([0, 1, 5, 32, 64]), rows=st.sampled_from([32, 128]), dear=st.sampled_from([1, 10000]),
)  # fmt: skip
@settings(max_examples=40)
def test_twins(seed, bits, groups, per_plane, planes, scale, survivors, rows, dear):
    """C and NumPy give the same integers, whatever the targets, and where paths' costs are far apart."""
    random = np.random.default_rng(seed)
    n = per_plane * planes
    x, m, paid, rate = drawn(random, rows, n, groups, bits, scale)
    taps = TAPS[bits] if bits else (0, 0)
    rate, span = (rate * dear).astype(np.int32), per_plane * rows // 32
    how = Successive(rows, n, groups, per_plane, span if bits else 0, 4 * rows, bits, *taps, survivors)
    down = None
    if survivors:
        down = np.triu(random.standard_normal((rows, rows)) * 0.2, 1).astype(np.float32)
    context = random.integers(0, 6, (n, rows)).astype(np.uint16), random.integers(0, 2, (n, rows)).astype(np.uint8)
    found = []
    for path in (kernels_feedback.feedback, kernels_numpy_feedback.feedback):
        targets, state, out = x.copy(), np.zeros(32, np.uint8), []
        for plane in range(planes):
            for at in range(plane * per_plane, (plane + 1) * per_plane, 2):
                part = range(at, min(at + 2, (plane + 1) * per_plane))
                some = tuple(a[part.start : part.stop] for a in context)
                out.append(path(targets, m, down, paid, how, part, some, rate, state))
        found.append([targets, state, *out])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@core
@pytest.mark.parametrize("bits", [0, 3])
def test_a_column_is_the_best_there_is(bits):
    """All sequences of integers of a short column, tried one by one."""
    random = np.random.default_rng(bits)
    rows = 4
    x = random.normal(0, 1.2, (1, rows)).astype(np.float32)
    rate = (random.random((1, 2 if bits else 1, 256)) * 500 + 300 * np.abs(np.arange(256) - 128)).astype(np.int32)
    paid = np.full((1, 1), 0.1, np.float32), np.full(rows, 2.0, np.float32)
    how = Successive(rows, 1, 1, 1, rows if bits else 0, rows, bits, *(TAPS[bits] if bits else (0, 0)))
    context = np.zeros((1, rows), np.uint16), np.zeros((1, rows), np.uint8)
    none = np.zeros((1, 1, 1), np.float32)
    r = kernels_feedback.feedback(x.copy(), none, None, paid, how, range(1), context, rate, np.zeros(32, np.uint8))
    k = np.sign(r) * (np.abs(r) + 1 >> 1) if bits else r

    def cost(integers) -> float:
        total, state = 0.0, 0
        for value, target in zip(integers, x[0].tolist(), strict=True):
            book = state & 1 if bits else 0
            r = 2 * value - book * ((value > 0) - (value < 0)) if bits else value
            total += 1024 * ((target - r) ** 2 - 0.2 * (r * r - target * target)) + rate[0, book, value + 128]
            state = (state >> 1) ^ book * how.tap0 ^ (value & 1) * how.tap1
        return total

    least = min(cost(some) for some in itertools.product(range(-3, 4), repeat=rows))
    assert cost(k[0].tolist()) <= least + rows  # costs are rounded to integers


# ---- steps


def test_exponents_cost_less_than_one_step_or_are_not_given():
    random = np.random.default_rng(0)
    assert exponents(random.normal(0, 0.01, 100), 500, 40.0) is None
    wide = random.normal(0, 1, 100)
    found = exponents(wide, 500, 40.0)
    assert np.abs(found / 4 - wide).max() < 0.6
    few = exponents(wide, 2, 40.0)
    assert few is None or np.unique(few).size < np.unique(found).size


def test_steps_are_what_the_decoder_multiplies_by():
    level = np.arange(-100, 101, dtype=np.int16)
    scale = np.float32(0.37)
    assert step_table(scale)[254 + level] == pytest.approx(float(scale) * factors(level), rel=1e-7)
    assert factors(np.array([0, -4, 8], np.int16)).tolist() == [1.0, 2.0, 0.25]


# ---- the target


@pytest.mark.parametrize("share", [0.003, 0.1, 0.7])
def test_the_ridge_is_that_of_the_best_channel(share):
    """Rate and distortion of the ridge are those of `theory.universal`; mu tau^2 = theta."""
    w, stat = layer((64, 24))
    spectrum = Spectrum.of(matrix_of(w, stat))
    variances = np.mean(np.square(spectrum.along(slice(None))[0]), axis=0)
    theta = share * float((variances * spectrum.values[0]).mean())
    mu = spectrum.ridge(theta)
    _, distortion, tau2 = universal.curve(spectrum.values[0], mu, variances)
    assert float(mu[0] * tau2[0]) == pytest.approx(theta, rel=1e-9)
    assert float(spectrum.expected(theta).mean()) == pytest.approx(float(distortion[0]), rel=1e-9)
    found = spectrum.target(theta)
    a = spectrum.matrix.a[0]
    assert found.factor[0] @ found.factor[0].T == pytest.approx(a + mu * np.eye(24))
    assert np.allclose(found.shrunk[0] @ (a + mu * np.eye(24)), spectrum.matrix.w[0] @ a)


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_come_in_scan_order(shape):
    w, stat = layer(shape)
    matrix = matrix_of(w, stat)
    order = column_order(matrix.layout)
    e = np.random.default_rng(3).standard_normal(shape)
    rows = e.reshape(shape[0], -1)[:, order]
    assert 0.5 * np.sum((rows @ matrix.a[0]) * rows) == pytest.approx(stat.loss(w, e))


# ---- the whole


@core
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("shape", "groups"), [*((s, 1) for s in SHAPES), ((64, 1, 3, 3), 64), ((96, 4, 3, 3), 3)])
def test_there_and_back(codec, shape, groups):
    w, stat = layer(shape, groups)
    if codec.id == "feedback" and Layout.down(shape).lanes < 32:
        assert codec.sweep(w, stat) == []
        with pytest.raises(UsageError, match="multiple of 32"):
            codec.encode(w, stat, 0)
        return
    knob = index_of(middling(w, stat))
    back, _ = there_and_back(codec, w, stat, knob)
    assert back.shape == shape
    assert 0 < stat.loss(w, w - back) < 0.4 * stat.loss(w, w)
    if shape == (96, 40):  # smaller ones cannot afford steps
        theta = theta_of(step_of(knob), codec.grid)
        expected = 0.5 * float(Spectrum.of(matrix_of(w, stat)).expected(theta).sum())
        assert stat.loss(w, w - back) == pytest.approx(expected, rel=0.25)
    rows = np.split(w.reshape(shape[0], -1).astype(np.float64), groups)
    through = sum(
        np.sum((b @ a) * (x - b))
        for x, b, a in zip(rows, np.split(back.reshape(shape[0], -1), groups), stat.inputs, strict=True)
    )
    assert abs(through) <= 1e-6 * stat.loss(w, w), "golden rule 1 in the metric of the loss"


@pytest.mark.parametrize("codec", CODECS)
def test_gaussian_rows_come_close_to_the_bound_and_not_below(codec):
    """Rows of one law against reverse water-filling on the eigenvalues of A, at what they really lose."""
    w, stat = layer((512, 64))
    values = np.linalg.eigvalsh(2.0 * stat.inputs[0])
    for factor in (1.0, 0.25):
        back, nbytes = there_and_back(codec, w, stat, index_of(factor * middling(w, stat)))
        lost = 2 * stat.loss(w, w - back) / len(w)
        variance = float(np.mean(np.square(w, dtype=np.float64)))
        bound_bits = float(gaussian.rate_nats(variance * np.sort(values)[::-1], lost)) / np.log(2) / 64
        above = 8 * nbytes / w.size - bound_bits
        assert 0 < above < (0.25 if codec.grid.bits else 0.45)


def test_feedback_beats_rounding_that_sees_the_diagonal_only():
    w, stat = layer((256, 48))
    found, nbytes = there_and_back(Feedback(), w, stat, index_of(middling(w, stat)))
    blind = replace(stat, inputs=np.diag(np.diagonal(stat.inputs[0]))[None])
    points = [Feedback().encode(w, blind, index_of(middling(w, blind) * f)) for f in (1.0, 0.5)]
    for parts in points:
        head, chunks = encode_section([parts.streams["k"]], parts.bits)
        back = Feedback().decode(parts, {"k": _fine(head, chunks, w.shape)}, w.shape)
        worse = stat.loss(w, w - back) > stat.loss(w, w - found)
        assert worse or len(head) + sum(map(len, chunks)) > 1.1 * nbytes


def _fine(head, chunks, shape):
    read = decode_head(head, [Layout.down(shape)])
    return np.concatenate([decode_chunk(read, p, c)[0].full() for p, c in zip(read.chunks(), chunks, strict=True)])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("outputs", ["alike", "weighted", "correlated"])
@pytest.mark.parametrize(("shape", "groups"), [((256, 96), 1), ((64, 24, 3, 3), 1), ((512, 1, 3, 3), 512)])
def test_predictions(codec, shape, groups, outputs):
    """Bits within 2 % and what a tensor pays for not sharing its tables; loss within 2 %, of a sample 5 %."""
    w, stat = layer(shape, groups)
    if outputs == "weighted":
        stat = replace(stat, outputs=sensitivities(shape[0], 1.5))
    elif outputs == "correlated" and groups == 1:
        stat = replace(stat, outputs=moments(shape[0], seed=3)[0])
    points = codec.sweep(w, stat)
    assert points[0].loss == pytest.approx(stat.loss(w, w))
    for point in points[2::3]:
        back, nbytes = there_and_back(codec, w, stat, point.knob)
        assert point.loss == pytest.approx(stat.loss(w, w - back), rel=0.05 if groups == 1 else 0.02)
        assert 0.97 * nbytes - 600 <= point.bits / 8 <= 1.02 * nbytes + 64


def test_predictions_where_a_sample_of_rows_says_too_little():
    """Rows of outputs with few directions that count make up for each other; at low rates all of them are tried."""
    w, stat = layer((320, 160))
    few = np.random.default_rng(7).standard_normal((20, 320))
    g = 0.93 * few.T @ few / 20 + 0.07 * np.eye(320)
    stat = replace(stat, outputs=g)
    points = [point for point in Feedback().sweep(w, stat)[1:] if point.bits < 0.5 * w.size]
    assert len(points) > 3
    for point in points[::3]:
        back, nbytes = there_and_back(Feedback(), w, stat, point.knob)
        assert point.loss == pytest.approx(stat.loss(w, w - back), rel=0.02)
        assert 0.97 * nbytes - 600 <= point.bits / 8 <= 1.02 * nbytes + 64


@core
def test_the_coarsest_step_leaves_nothing():
    w, stat = layer((64, 20))
    for codec in (Feedback(), FeedbackScalar()):
        back, _ = there_and_back(codec, w, stat, codec.sweep(w, stat)[0].knob)
        assert not back.any()


@core
@pytest.mark.parametrize("codec", [Feedback(), FeedbackScalar()], ids=lambda codec: codec.id)
def test_an_input_with_most_of_the_energy_gets_the_step_that_integers_can_hold(codec):
    """Its targets would be tens of thousands of steps; the others must not pay for it."""
    w, stat = layer((96, 64))
    knob = index_of(0.05 * middling(w, stat))
    bits, losses = [], []
    for amplitude in (1.0, 10.0, 700.0):
        d = np.ones(64)
        d[5] = amplitude / np.sqrt(stat.inputs[0, 5, 5])
        loud = replace(stat, inputs=stat.inputs * d * d[:, None])
        back, nbytes = there_and_back(codec, w, loud, knob)
        losses.append(loud.loss(w, w - back))
        bits.append(8 * nbytes / w.size)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[2] < 1.3 * losses[1]
    assert bits[2] < bits[1] + 0.5  # escapes of 28 bits in one column of 64


@core
def test_a_step_that_is_too_fine_is_refused():
    w, stat = layer((64, 20))
    with pytest.raises(UsageError, match="too fine"):
        Feedback().encode(w, stat, index_of(1e-6 * middling(w, stat)))


def test_what_says_nothing_of_the_inputs_is_left_alone():
    w, stat = layer((64, 20))
    for other in (
        Stat(),
        Stat(diagonal=np.ones((64, 20), np.float32)),
        Stat(inputs=moments(64)),
        Stat(inputs=0 * stat.inputs),
    ):
        assert Feedback().sweep(w, other) == []
        with pytest.raises(UsageError, match="second moment of its inputs"):
            Feedback().encode(w, other, 0)


@core
def test_in_a_file():
    """Plan and file, with a dead input, outputs' factors and a singular moment; several tensors share tables."""
    random = np.random.default_rng(5)
    tensors = {
        "a": random.standard_normal((64, 30)).astype(np.float32),
        "b": random.standard_normal((96, 6, 3, 3)).astype(np.float32),
    }
    dead = moments(30)
    dead[0, 4], dead[0, :, 4] = 0, 0
    importance = {
        "a": Stat(3.0, inputs=dead, outputs=random.random(64)),
        "b": Stat(inputs=np.ones((1, 54, 54)) + 1e-12 * np.eye(54)),
    }
    curves = nw.sweep(tensors, importance, codecs=["feedback", "exact"])
    plan = nw.allocate(curves, bits=2.5)
    assert {p.codec for p in plan.choices.values()} == {"feedback"}
    archive = nw.encode(tensors, plan, importance)
    lost = sum(importance[n].loss(w, w - archive[n]) for n, w in tensors.items())
    assert lost < 0.2 * sum(importance[n].loss(w, w) for n, w in tensors.items())
    assert np.array_equal(archive["a"], nw.encode(tensors, plan, importance)["a"])


def test_a_step_beyond_all_floats_is_refused():
    layout = Layout.down((32, 4))
    levels = Levels(8, column_step=np.full(4, -120, np.int16), row_step=np.full(32, -120, np.int16))
    from netweight.codecs.feedback import steps_of

    with pytest.raises(ValueError, match="not finite"):
        steps_of(np.float32(1e30), layout, levels)


def test_points_of_a_curve_are_a_codecs_own():
    w, stat = layer((64, 20))
    assert all(isinstance(p, Point) and p.codec == "feedback" for p in Feedback().sweep(w, stat))
