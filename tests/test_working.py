"""What is known of a tensor after it was tried: through the points, rising, with an inverse; curves bent by it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netweight.checkpoint import open_checkpoint
from netweight.codecs.base import Point
from netweight.curve import Curve
from netweight.importance.stat import Stat
from netweight.working import Found, bent, on_new_inputs

SIZES = st.floats(1e-8, 1e2)
PAIRS = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=8)


def found_of(pairs):
    found = Found()
    for predicted, measured in pairs:
        found = found.also(predicted, measured)
    return found


def test_points_far_apart_are_met():
    pairs = [(1e-4, 2e-4), (1e-3, 1e-2), (1e-2, 0.05), (0.1, 2.0)]
    found = found_of(pairs)
    for predicted, measured in pairs:
        assert found.nats(predicted) == pytest.approx(measured)
    assert found.nats(1e-6) == pytest.approx(2e-6)
    assert found.nats(1.0) == pytest.approx(20.0)
    assert found_of([]).nats(0.3) == 0.3


@given(PAIRS)
def test_it_rises_and_can_be_undone(pairs):
    found = found_of(pairs)
    losses = np.geomspace(1e-9, 1e3, 60)
    nats = [found.nats(loss) for loss in losses]
    powers = np.diff(np.log(nats)) / np.diff(np.log(losses))
    assert powers.min() > 0.3 - 1e-6
    for loss, value in zip(losses, nats, strict=True):
        assert found.loss(value) == pytest.approx(loss, rel=1e-6)


def test_measurements_that_contradict_each_other_are_pooled():
    found = found_of([(1.0, 5.0), (4.0, 1.0)])
    mean = math.exp((math.log(5.0) - 0.3 * math.log(1.0) + math.log(1.0) - 0.3 * math.log(4.0)) / 2)
    assert found.nats(1.0) == pytest.approx(mean)
    assert found.nats(4.0) == pytest.approx(mean * 4**0.3)


def test_a_bent_curve_knows_a_cliff():
    """4^-b a weight was predicted; below two bits the truth is a hundred times that, and was seen at 1.5 bits."""
    points = tuple(Point(1000.0 * b, 4.0**-b, "a", -1000 * b, smooth=True) for b in range(6))
    seen = Point(1500.0, 4.0**-1.5, "a", -1500, smooth=True)
    found = {"w": Found().also(4.0**-1.5, 100 * 4.0**-1.5).also(4.0**-3, 4.0**-3)}
    curve = bent({"w": Curve("w", 1000, points), "v": Curve("v", 1000, points)}, found, {"w": [seen]})["w"]
    by_bits = {point.bits: point.loss for point in curve.points}
    assert by_bits[1500.0] == pytest.approx(100 * 4.0**-1.5)
    assert by_bits[4000.0] == pytest.approx(4.0**-4)
    assert curve.within(3000.0).loss == pytest.approx(4.0**-3)
    assert curve.choose(2e-4).bits > 1.3 * Curve("w", 1000, points).choose(2e-4).bits


class Believed(dict):
    """Importance whose rows are weighted otherwise than they were measured."""

    def __init__(self, believed: Stat, measured: Stat) -> None:
        super().__init__({"w": believed})
        self.measured = {"w": measured}

    def raw(self, name: str) -> Stat:
        return self.measured[name]


def test_rows_that_were_not_seen_are_counted():
    """Against the sums by hand: two tokens of four were seen, and the other two have most of the error."""
    w = np.ones((4, 2), np.float32)
    changed = {"w": np.array([[1, 1], [1, 1.5], [0, 0], [2, 0]], np.float32)}
    measured, believed = np.array([2.0, 2.0, 0.0, 0.0]), np.array([1.6, 1.6, 0.4, 0.4])
    point = Point(8.0, 1.0, "feedback", 1)
    a = np.eye(2)[None]
    importance = Believed(Stat(inputs=a, outputs=believed), Stat(inputs=a, outputs=measured))
    lost = np.array([0.0, 0.25, 2.0, 2.0])
    expected = np.dot(believed, lost) / np.dot(measured, lost)
    checkpoint = open_checkpoint({"w": w})
    assert on_new_inputs(checkpoint, importance, changed, {"w": point})["w"] == pytest.approx(expected)
    assert on_new_inputs(checkpoint, importance, changed, {"other": point}) == {}
    same = Believed(Stat(inputs=a, outputs=measured), Stat(inputs=a, outputs=measured))
    assert on_new_inputs(checkpoint, same, changed, {"w": point}) == {}
