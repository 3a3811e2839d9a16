"""What every codec promises, on every awkward tensor: a codec that is registered is tested."""

import math
from itertools import pairwise

import numpy as np
import pytest

from netweight.chain import Chain, hull
from netweight.codecs.base import index_of, step_of
from netweight.codecs.registry import EXACT, by_id, choose, codecs
from netweight.entropy.layout import Layout
from netweight.errors import FormatError, UsageError
from netweight.importance.stat import Stat

core = pytest.mark.core  # predictions need no second run on the NumPy path: it makes the same integers

ENTRY_BYTES = 14  # what a prediction counts for name, shape and scale
SLACK = 0.02
SLACK_BYTES = 64
SAMPLED = 1 << 15  # weights of which predictions look at all
SHARED = 1 << 20  # weights up to which a tensor may share its tables


def sigma_of_sampling(per_row: np.ndarray, w: np.ndarray) -> float:
    """Relative standard deviation of a sum over rows that is estimated from some 32,768 weights of the tensor."""
    layout = Layout.of(w.shape)
    if layout.size <= SAMPLED or not per_row.any():
        return 0.0
    columns = min(layout.columns, max(32, SAMPLED // min(layout.rows, 256) // layout.positions))
    rows = min(layout.rows, max(1, SAMPLED // (columns * layout.positions)))
    kept = rows * columns / (layout.rows * layout.columns)
    return float(per_row.std() / per_row.mean() * math.sqrt((1 - kept) / rows))


def row_losses(case, back: np.ndarray) -> np.ndarray:
    error = case.w.astype(np.float64) - back
    if case.stat.relative:
        error = np.divide(error, case.w, out=np.zeros_like(error), where=case.w != 0)
    return 0.5 * case.stat.weight * (error * error).reshape(Layout.of(case.w.shape).rows, -1).sum(axis=1)


@core
def test_what_comes_back_is_finite_and_has_its_shape(tried):
    for found in tried.found.values():
        assert found.back.shape == tried.w.shape
        assert found.back.dtype == np.float32
        assert np.isfinite(found.back).all()


@core
def test_encoding_is_deterministic(tried):
    for knob, found in list(tried.found.items())[1::2]:
        again = tried.codec.encode(tried.w.copy(), tried.stat, knob)
        assert dict(again.params) == dict(found.parts.params)
        for name, values in found.parts.reals.items():
            assert np.array_equal(again.reals[name], values)
        for name, stream in found.parts.streams.items():
            assert np.array_equal(again.streams[name].k, stream.k)


@core
def test_the_tensor_is_not_touched(tried):
    before = tried.w.copy()
    tried.w.flags.writeable = False
    try:
        tried.codec.sweep(tried.w, tried.stat)
        tried.codec.encode(tried.w, tried.stat, tried.chosen[0].knob)
    finally:
        tried.w.flags.writeable = True
    assert np.array_equal(tried.w, before)


@core
def test_golden_rule_1(tried):
    """Codecs that refit a scale, or means, leave w' orthogonal to w - w'."""
    refits = {"scale", "codewords", "low"} & set(tried.codec.reals)
    for found in tried.found.values() if refits else ():
        w, back = tried.w.astype(np.float64), found.back.astype(np.float64)
        assert abs(np.sum(back * (w - back))) <= 1e-6 * np.sum(w * w)


def test_predicted_loss(tried):
    """Within 2 %; of a tensor that is sampled, within 2 % and three sigma of the sampling."""
    largest = 0.5 * tried.stat.weight * float(np.sum(np.square(tried.w, dtype=np.float64)))
    for point in tried.chosen:
        rows = row_losses(tried, tried.found[point.knob].back)
        real = float(rows.sum())
        slack = SLACK + 3 * sigma_of_sampling(rows, tried.w)
        assert point.loss == pytest.approx(real, rel=slack, abs=1e-12 * largest)


def test_predicted_bits(tried, pool_bytes):
    """Within 2 % + 64 bytes; of a tensor that is sampled, and three sigma of the sampling.

    A tensor that may share tables and chunks pays something between its share in a pool of its like and what it costs
    alone; predictions lie between the two, and those slacks.
    """
    for point in tried.chosen:
        found = tried.found[point.knob]
        alone = found.nbytes + ENTRY_BYTES
        least = alone
        if tried.w.size <= SHARED:
            least = min(alone, pool_bytes(tried.codec, tried.w, tried.stat, point.knob) + ENTRY_BYTES)
        slack = SLACK + 3 * sigma_of_sampling(found.row_bits, tried.w)
        assert (1 - slack) * least - SLACK_BYTES <= point.bits / 8 <= (1 + slack) * alone + SLACK_BYTES


def test_more_bits_never_lose_more(tried):
    """Along the hull, where the bytes differ by more than 5 %."""
    kept = {p.knob for p in hull(tried.points)}
    on_hull = [found for knob, found in tried.found.items() if knob in kept]
    results = sorted((found.nbytes, float(row_losses(tried, found.back).sum())) for found in on_hull)
    for fewer, more in pairwise(results):
        assert fewer[1] >= more[1] or more[0] <= 1.05 * fewer[0]


def test_smooth_points_can_be_met_between(tried, there_and_back):
    """A knob between two smooth points costs and loses what lies between theirs."""
    smooth = [p for p in hull(tried.points) if p.smooth and p.knob in tried.found]
    for first, second in pairwise(smooth[-2:]):
        middle = Chain.of((first, second)).within((first.bits + second.bits) / 2).knob
        assert second.knob < middle < first.knob
        found = there_and_back(tried.codec, tried.w, tried.stat, middle)
        loss = float(row_losses(tried, found.back).sum())
        low, high = (float(row_losses(tried, tried.found[p.knob].back).sum()) for p in (second, first))
        few, many = (tried.found[p.knob].nbytes for p in (first, second))
        assert 0.98 * low <= loss <= 1.02 * high or tried.w.size < 100, "few weights are lucky or not"
        assert 0.98 * few - SLACK_BYTES <= found.nbytes <= 1.02 * many + SLACK_BYTES


def test_what_a_codec_is_not_meant_for_it_leaves_alone(refused):
    assert not refused.points


# ---- steps and the registry


def test_steps_grow_by_a_512th_of_an_octave_and_are_exact():
    steps = [step_of(q) for q in range(-3000, 3000)]
    assert all(1.0009 < b / a < 1.002 for a, b in pairwise(steps))
    assert [index_of(s) for s in steps] == list(range(-3000, 3000))
    assert all(float(np.float32(s)) == s for s in steps)


def test_an_index_is_that_of_the_largest_step_not_above():
    for step in np.random.default_rng(0).lognormal(0, 5, 500):
        q = index_of(float(step))
        assert step_of(q) <= step < step_of(q + 1)


@core
def test_codecs_are_found_by_name():
    assert {"trellis", "uniform", "relative"} <= set(codecs())
    assert EXACT not in codecs()
    assert choose(None) == ([codec for codec in codecs().values() if codec.default], True)
    assert choose(["uniform"]) == ([codecs()["uniform"]], False)
    assert choose([EXACT]) == ([], True)
    assert by_id("trellis", 1) is codecs()["trellis"]


@pytest.mark.parametrize("names", [[], ["zip"], ["uniform", "zip"]])
def test_unknown_names_are_refused_with_what_is_known(names):
    with pytest.raises(UsageError, match=r"(?s)There is no codec.*trellis, uniform, relative, .*exact"):
        choose(names)


@pytest.mark.parametrize(("name", "version"), [("trellis", 2), ("zip", 1)])
def test_a_stream_nobody_reads_is_refused(name, version):
    with pytest.raises(FormatError, match=rf"{name}.* version {version}, here is"):
        by_id(name, version)


def test_importance_weighs_the_loss():
    w, e = np.array([1.0, 2.0, 0.0], np.float32), np.array([0.5, 0.5, 0.5])
    assert Stat().loss(w, e) == pytest.approx(0.375)
    assert Stat(4.0).loss(w, e) == pytest.approx(1.5)
    assert Stat(4.0, relative=True).loss(w, e) == pytest.approx(2.0 * (0.25 + 0.0625))


def test_a_quartic_term_adds_to_the_loss():
    """1/2 (sum I e^2 + sum Q e^4), by hand: e = 1/2, 1/4."""
    w = np.ones(2, np.float32)
    diagonal, quartic = np.array([1.0, 4.0], np.float32), np.array([2.0, 16.0], np.float32)
    stat = Stat(3.0, diagonal=diagonal, quartic=quartic)
    assert stat.loss(w, np.array([0.5, -0.25])) == pytest.approx(1.5 * (0.25 + 0.25 + 2 / 16 + 16 / 256))


@core
def test_a_trellis_step_that_is_too_fine_is_refused(awkward):
    with pytest.raises(UsageError, match="too fine for a largest weight"):
        codecs()["trellis"].encode(awkward("outlier"), Stat(), -4096)
