"""Curves: the hull against brute force, choices between points, what a sweep offers."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netweight as nw
from netweight.chain import hull
from netweight.codecs.base import Point, step_of, takes
from netweight.curve import Curve
from netweight.errors import UsageError
from netweight.importance.stat import Stat

POINTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=25).map(
    lambda pairs: [Point(float(b), float(d), "a", j) for j, (b, d) in enumerate(pairs)]
)


@given(POINTS)
def test_the_hull_is_what_some_slope_prefers(points):
    """Against brute force: at every slope the best of the hull is the best of all, and each kept point is once best."""
    kept = hull(points)
    pairs = [(p.bits, p.loss) for p in kept]
    assert pairs == sorted(pairs)
    assert all(a.loss > b.loss for a, b in pairwise(kept))
    for slope in [0.0, *np.geomspace(1e-3, 1e3, 200)]:
        best = min(p.loss + slope * p.bits for p in points)
        assert min(p.loss + slope * p.bits for p in kept) == pytest.approx(best, abs=1e-9)
    savings = [(a.loss - b.loss) / (b.bits - a.bits) for a, b in pairwise(kept)]
    assert all(a > b for a, b in pairwise(savings)), "strictly convex: no point is in vain"


def exponential(start: int, end: int, step: int, codec: str = "a", shift: float = 0.0) -> tuple[Point, ...]:
    """Smooth points on the loss of a Gaussian, 4^-b a weight at b bits, of 1000 weights."""
    out = []
    for q in range(start, end, -step):
        bits = -q / 512
        out.append(Point(1000 * bits + shift, 1000 * 4.0**-bits, codec, q, smooth=True))
    return tuple(out)


def test_between_smooth_points_a_choice_is_where_the_slope_is():
    """On D = n 4^(-b) the point of slope s is at b = log4(2 ln 2 / s): found between points an octave apart."""
    curve = Curve("w", 1000, exponential(0, -5000, 512))
    for slope in np.geomspace(2e-4, 1.0, 60):
        point = curve.choose(float(slope))
        bits = math.log(2 * math.log(2) / slope, 4)
        assert point.bits / 1000 == pytest.approx(bits, abs=2e-3)
        assert point.loss / 1000 == pytest.approx(4.0**-bits, rel=5e-3)
        assert step_of(point.knob) == pytest.approx(2.0**-bits, rel=5e-3)


def test_points_that_are_not_smooth_are_not_mixed():
    points = tuple(Point(p.bits, p.loss, p.codec, p.knob) for p in exponential(0, -5000, 512))
    curve = Curve("w", 1000, points)
    for slope in np.geomspace(1e-4, 1.0, 50):
        assert curve.choose(float(slope)) in points


def two_codecs() -> Curve:
    """A codec that is better at low rates, one at high rates, and a lossless end."""
    low = exponential(0, -1500, 256, "low")
    high = exponential(-1100, -4000, 256, "high", shift=-100.0)
    return Curve("w", 1000, (*low, *high, Point(16_000.0, 0.0, "exact", 0)))


def dense(curve: Curve) -> list[Point]:
    """What the curve holds, by brute force: smooth codecs on the true law in steps of 0.1 bit, and the rest."""
    low = [Point(b, 1000 * 4.0 ** (-b / 1000), "low", 0) for b in np.arange(0, 1000 * 1280 / 512 + 1, 5.0)]
    high = [
        Point(b - 100, 1000 * 4.0 ** (-b / 1000), "high", 0)
        for b in np.arange(1000 * 1100 / 512, 1000 * (1100 + 11 * 256) / 512, 5.0)
    ]
    return [*low, *high, curve.points[-1]]


@pytest.mark.parametrize("slope", [0.0, *np.geomspace(1e-4, 10.0, 40), math.inf])
def test_the_choice_is_the_best_of_a_dense_grid(slope):
    curve = two_codecs()
    found = curve.choose(float(slope))
    grid = dense(curve)
    if math.isinf(slope):
        assert found.bits == min(p.bits for p in grid)
    else:
        assert found.loss + slope * found.bits <= 1.01 * min(p.loss + slope * p.bits for p in grid) + 1e-9


@pytest.mark.parametrize("bits", [0.0, 7.0, 500.0, 2060.0, 3333.0, 9_000.0, 15_999.0, 16_000.0, 1e6])
def test_the_best_within_a_budget(bits):
    """Also between what slopes choose, where the curve jumps from codec to codec."""
    curve = two_codecs()
    found = curve.within(bits)
    assert found.bits <= bits
    assert found.loss <= 1.02 * min(p.loss for p in dense(curve) if p.bits <= bits)


def test_too_little_for_any_point_gives_the_smallest():
    curve = Curve("w", 8, (Point(64, 1.0, "a", 3), Point(128, 0.5, "a", 2)))
    assert curve.within(10).knob == 3


@given(st.floats(1e-6, 1e3), st.floats(1.0001, 100.0))
def test_bits_fall_and_loss_rises_with_the_slope(slope, factor):
    curve = two_codecs()
    flat, steep = curve.choose(slope), curve.choose(slope * factor)
    assert steep.bits <= flat.bits * (1 + 1e-9) + 1e-6
    assert steep.loss >= flat.loss * (1 - 1e-9)


# ---- sweep


def test_a_sweep_has_every_tensor_in_order(network):
    curves = nw.sweep(network)
    assert list(curves) == list(network)
    for name, curve in curves.items():
        assert (curve.name, curve.size) == (name, network[name].size)
        assert curve.points
        for codec in {p.codec for p in curve.points}:
            chain = [p for p in curve.points if p.codec == codec]
            assert tuple(chain) == hull(chain)


def test_what_no_lossy_codec_takes_is_exact(make_network):
    curves = nw.sweep(make_network("mixed"), codecs=["uniform", "trellis"])
    exact = {name for name, curve in curves.items() if {p.codec for p in curve.points} == {"exact"}}
    assert exact == {"complex", "indices", "bytes", "mask", "broken", "empty", "zeros"}


def test_lossless_is_an_end_of_every_curve(make_network):
    for curve in nw.sweep(make_network("dense")).values():
        assert curve.points[-1].codec == "exact"
        assert curve.choose(0.0).loss == 0


def test_threads_and_progress_change_nothing(make_network):
    network = make_network("convolutional")
    seen = []
    with ThreadPoolExecutor(3) as pool:
        curves = nw.sweep(network, executor=pool, progress=lambda *report: seen.append(report))
    assert curves == nw.sweep(network)
    assert seen == [("sweep", j + 1, len(network)) for j in range(len(network))]


def test_only_the_codecs_asked_for(make_network):
    for curve in nw.sweep(make_network("dense"), codecs=["uniform"]).values():
        assert {p.codec for p in curve.points} == {"uniform"}
    with pytest.raises(UsageError, match="no codec zip"):
        nw.sweep(make_network("dense"), codecs=["zip"])


def test_the_low_rates_of_a_large_matrix_are_the_trellis_s():
    """`uniform` is not tried where `trellis` wins anyway: no slope chooses otherwise than with all its steps there."""
    w = {"w": np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)}
    both, alone, other = (nw.sweep(w, codecs=c)["w"] for c in (["uniform", "trellis"], ["uniform"], ["trellis"]))
    tried = [p.bits / 512**2 for p in both.points if p.codec == "uniform"]
    assert not [bits for bits in tried if 0.1 < bits < 2]
    assert [p.bits / 512**2 for p in alone.points if 0.1 < p.bits / 512**2 < 2]
    for slope in np.geomspace(1e-4, 1.0, 50):
        best = min((alone.choose(slope), other.choose(slope)), key=lambda p: p.loss + slope * p.bits)
        found = both.choose(slope)
        assert found.loss + slope * found.bits == pytest.approx(best.loss + slope * best.bits, rel=1e-3)


def test_importance_scales_the_loss(make_network):
    network = make_network("alone")
    plain, heavy = nw.sweep(network, {"w": Stat()}), nw.sweep(network, {"w": Stat(100.0)})
    for a, b in zip(plain["w"].points, heavy["w"].points, strict=True):
        assert (b.bits, b.knob) == (a.bits, a.knob)
        assert b.loss == pytest.approx(100 * a.loss)


@pytest.mark.parametrize(
    ("values", "taken"),
    [([1.0, -2.0], True), ([0.0, 0.0], False), ([1e-31], False), ([1e19], False), ([np.nan, 1.0], False),
     ([np.inf], False), ([1e-20, 0.0], True), ([1e17], True)],
)  # fmt: skip
def test_what_lossy_codecs_take(values, taken):
    assert takes(np.array(values, np.float32)) is taken


@pytest.mark.parametrize("name", ["cifar10/resnet20.safetensors", "mnist/lenet5.safetensors"])
@pytest.mark.parametrize("codecs", [None, ["trellis"], ["uniform"]])
def test_predictions_add_up_to_the_file(real, name, codecs):
    """Of real networks within 2 %; of a codec alone within what it promises, 2 % and 64 bytes a tensor."""
    path = real(name)
    curves = nw.sweep(path, codecs=codecs)
    for bits in (1.5, 3, 6):
        plan = nw.allocate(curves, bits=bits)
        slack_bits = 0.02 * plan.bits + (0 if codecs is None else 8 * 64 * len(curves))
        assert 8 * nw.encode(path, plan).nbytes == pytest.approx(plan.bits, abs=slack_bits)


@pytest.mark.parametrize("codec", ["uniform", "trellis"])
def test_a_loss_is_foretold_where_errors_lie_along_the_inputs(codec):
    """Inputs with a mean and rows along it: giving up the layer loses five times what the mean importance says."""
    rng = np.random.default_rng(3)
    w = (0.4 + rng.standard_normal((96, 64))).astype(np.float32)
    stat = Stat(inputs=(np.eye(64) + np.ones((64, 64)))[None])
    curve = nw.sweep({"w": w}, {"w": stat}, codecs=[codec])["w"]
    assert stat.loss(w, w) > 4 * stat.flat().loss(w, w)
    assert curve.choose(math.inf).loss == pytest.approx(stat.loss(w, w), rel=0.02)
    for bits in (0.6, 1.5, 2.5, 4.0):
        point = curve.within(bits * w.size)
        archive = nw.encode({"w": w}, nw.Plan({"w": point}, 1.0), {"w": stat})
        assert point.loss == pytest.approx(stat.loss(w, w - archive["w"]), rel=0.25)
