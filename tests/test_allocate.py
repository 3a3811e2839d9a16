"""One slope for all: optimal against brute force, targets met, refusals that say why, plans as JSON."""

import contextlib
import itertools
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netweight as nw
from netweight.chain import hull
from netweight.codecs.base import Point
from netweight.curve import Curve
from netweight.errors import TargetError, UsageError

HEADER_BITS = nw.Plan({}, 0.0).bits  # what a file of nothing is predicted to have


def random_curves(seed: int, tensors: int, points: int = 6) -> dict[str, Curve]:
    """Hulls of points that no step lies between."""
    random = np.random.default_rng(seed)
    out = {}
    for j in range(tensors):
        bits, loss = np.cumsum(random.integers(1, 400, points)), np.cumsum(random.exponential(1, points))[::-1]
        chain = hull(Point(float(b), float(d), "a", k) for k, (b, d) in enumerate(zip(bits, loss, strict=True)))
        out[f"t{j}"] = Curve(f"t{j}", 100, chain)
    return out


def smooth_curves(variances: list[float], size: int = 1000) -> dict[str, Curve]:
    """Gaussians: loss n v 4^-b, by steps an octave apart."""
    out = {}
    for j, v in enumerate(variances):
        top = math.log2(v) / 2
        points = tuple(
            Point(size * b, size * v * 4.0**-b, "a", round(512 * (top - b)), smooth=True) for b in np.arange(0.0, 12, 1)
        )
        out[f"t{j}"] = Curve(f"t{j}", size, points)
    return out


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(0.001, 1))
@settings(max_examples=60)
def test_no_choice_of_the_same_bits_loses_less_by_brute_force(seed, tensors, share):
    """The points of one slope are on the hull of all combinations; what fills the rest of a budget only improves."""
    curves = random_curves(seed, tensors)
    names = list(curves)
    least = sum(c.points[0].bits for c in curves.values())
    most = sum(c.points[-1].bits for c in curves.values())
    budget = HEADER_BITS + least + share * (most - least)
    plan = nw.allocate(curves, bits=budget / (100 * tensors))
    assert plan.bits <= budget + 1e-6
    combinations = [
        (sum(p.bits for p in some), sum(p.loss for p in some))
        for some in itertools.product(*(curves[name].points for name in names))
    ]
    best = min(loss for bits, loss in combinations if bits <= budget - HEADER_BITS + 1e-6)
    bound = max(
        min(loss + slope * (bits - (budget - HEADER_BITS)) for bits, loss in combinations)
        for slope in [0.0, *np.geomspace(1e-4, 1e2, 400)]
    )
    jump = max(a.loss - b.loss for c in curves.values() for a, b in itertools.pairwise(c.points))
    assert best - 1e-9 <= plan.loss
    assert plan.loss <= bound * (1 + 1e-9) + jump, "at most one jump above the convex bound"
    on_slope = nw.allocate(curves, slope=plan.slope)
    assert plan.loss <= on_slope.loss + 1e-9


def test_slopes_are_equal_and_reverse_water_filling_emerges():
    """On Gaussians: D_i = min(level, v_i), the rest of the bits follows."""
    variances = [16.0, 4.0, 1.0, 0.25, 1e-3]
    curves = smooth_curves(variances)
    plan = nw.allocate(curves, bits=1.2)
    losses = [plan.choices[name].loss / 1000 for name in curves]
    level = losses[0]
    assert losses == pytest.approx([min(level, v) for v in variances], rel=0.02)
    assert plan.slope == pytest.approx(2 * math.log(2) * level, rel=0.02)
    expected = sum(max(0.0, 0.5 * math.log2(v / level)) for v in variances) * 1000
    assert plan.bits - HEADER_BITS == pytest.approx(expected, rel=0.01)


def test_bits_fall_and_loss_rises_with_the_slope():
    curves = {**random_curves(3, 20), **smooth_curves([5.0, 0.1])}
    plans = [nw.allocate(curves, slope=float(s)) for s in [0.0, *np.geomspace(1e-8, 1e4, 80)]]
    for flat, steep in itertools.pairwise(plans):
        assert steep.bits <= flat.bits + 1e-6
        assert steep.loss >= flat.loss - 1e-9


@pytest.mark.parametrize("bits", [1.2, 2.0, 3.7, 9.0])
def test_bits_and_size_are_met_from_below(bits):
    curves = smooth_curves([1.0, 3.0, 0.2])
    plan = nw.allocate(curves, bits=bits)
    assert plan.bits <= bits * 3000
    assert plan.bits >= 0.999 * bits * 3000 or plan.choices == nw.allocate(curves, slope=0).choices
    assert nw.allocate(curves, size=int(bits * 3000 / 8)).bits <= bits * 3000
    assert (
        nw.allocate(curves, size=f"{int(bits * 3000 / 8)} B").choices
        == nw.allocate(curves, size=int(bits * 3000 / 8)).choices
    )


@pytest.mark.parametrize("loss", [0.05, 10.0, 900.0])
def test_loss_is_met_with_the_fewest_bits(loss):
    curves = smooth_curves([1.0, 3.0, 0.2])
    plan = nw.allocate(curves, loss=loss)
    assert 0.99 * loss <= plan.loss <= loss
    assert plan.bits <= nw.allocate(curves, loss=loss / 1.1).bits


def test_slope_zero_is_the_least_loss_and_a_huge_slope_the_fewest_bits():
    curves = random_curves(1, 5)
    assert nw.allocate(curves, slope=0).loss == sum(c.points[-1].loss for c in curves.values())
    assert nw.allocate(curves, slope=1e30).bits == HEADER_BITS + sum(c.points[0].bits for c in curves.values())


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e20, 1e35])
def test_the_unit_of_the_loss_does_not_matter(scale):
    """Weights of 1e-20 have losses of 1e-40."""
    plain = smooth_curves([1.0, 3.0, 0.2])
    scaled = {
        name: Curve(name, c.size, tuple(Point(p.bits, p.loss * scale, p.codec, p.knob, smooth=True) for p in c.points))
        for name, c in plain.items()
    }
    a, b = nw.allocate(plain, bits=2.5), nw.allocate(scaled, bits=2.5)
    assert b.bits == pytest.approx(a.bits, rel=1e-4)
    assert b.loss == pytest.approx(a.loss * scale, rel=1e-3)


def test_what_one_slope_leaves_goes_to_tensors_that_jump():
    """Twenty equal tensors, one jump each: as many jump as the budget holds."""
    curves = {f"t{j}": Curve(f"t{j}", 100, (Point(100, 1.0, "a", 1), Point(200, 0.5, "a", 0))) for j in range(20)}
    plan = nw.allocate(curves, bits=(HEADER_BITS + 2000 + 1350) / 2000)
    assert plan.bits == HEADER_BITS + 3300
    assert plan.loss == pytest.approx(20 - 13 * 0.5)


def test_many_tensors_are_quick():
    random = np.random.default_rng(0)
    kinds = smooth_curves(list(random.lognormal(0, 2, 40)))
    curves = {f"t{j}": kinds[f"t{j % 40}"] for j in range(10_000)}
    begin_s = time.process_time()
    plan = nw.allocate(curves, bits=3)
    taken_s = time.process_time() - begin_s
    assert 0.999 * 3 * 10_000_000 <= plan.bits <= 3 * 10_000_000
    assert taken_s < 4, "below two seconds where nothing else runs"


# ---- refusals


def test_an_impossible_size_says_by_how_much_and_what_dominates():
    curves = {
        "big": Curve("big", 1000, (Point(80_000, 1.0, "uniform", 0),)),
        "ids": Curve("ids", 1000, (Point(16_000, 0.0, "exact", 0),)),
    }
    with pytest.raises(TargetError) as caught:
        nw.allocate(curves, size="5 kB")
    total = (80_000 + 16_000 + HEADER_BITS) / 8
    assert caught.value.fact == (
        f"5.00 kB is {(total - 5000) / 1000:.2f} kB below the smallest plan for 2 tensors, {total / 1000:.1f} kB, "
        "of which 2.00 kB are tensors kept exact."
    )
    assert caught.value.remedy == "Ask for more, or allow another codec for 'big', which takes 81%."


def test_an_impossible_loss_says_what_can_be_reached():
    curves = {"w": Curve("w", 10, (Point(80, 1.0, "uniform", 1), Point(160, 0.25, "uniform", 0)))}
    with pytest.raises(TargetError, match=r"least loss that the allowed codecs reach is 0\.25, above 0\.1\.") as caught:
        nw.allocate(curves, loss=0.1)
    assert "exact" in caught.value.remedy


@pytest.mark.parametrize("targets", [{}, {"bits": 1, "size": 5}, {"loss": 1, "slope": 1, "bits": 2}])
def test_exactly_one_target(targets):
    with pytest.raises(UsageError, match="Give one of size, bits, loss and slope"):
        nw.allocate(random_curves(0, 1), **targets)


@pytest.mark.parametrize(
    "targets", [{"bits": 0}, {"bits": -1}, {"bits": math.nan}, {"loss": math.inf}, {"slope": -1e-9}, {"bits": "three"}]
)
def test_a_target_is_a_positive_number(targets):
    with pytest.raises(UsageError, match=r"The target \w+ is"):
        nw.allocate(random_curves(0, 1), **targets)


@pytest.mark.parametrize("size", ["much", 0, -5, "4 XB", 1.5])
def test_a_size_is_a_size(size):
    with pytest.raises(UsageError, match="size"):
        nw.allocate(random_curves(0, 1), size=size)


# ---- plans as JSON

NAMES = st.text(max_size=20)
FINITE = st.floats(0, 1e300)
PLANS = st.builds(
    nw.Plan,
    st.dictionaries(
        NAMES, st.builds(Point, FINITE.map(lambda b: round(b, 1)), FINITE, NAMES, st.integers(-(1 << 20), 1 << 20)),
        max_size=5,
    ),
    FINITE,
    NAMES,
)  # fmt: skip


@given(PLANS, st.data())
def test_a_plan_comes_back_from_its_json(plan, data):
    sizes = {name: data.draw(st.integers(0, 1 << 50)) for name in plan.choices}
    plan = nw.Plan(plan.choices, plan.slope, plan.target, sizes)
    text = plan.to_json()
    back = nw.Plan.from_json(text)
    assert back == plan
    assert back.to_json() == text
    summary = json.loads(text)
    assert summary["schema"] == "netweight.plan/1"
    assert list(summary["tensors"]) == list(plan.choices)


def test_an_edited_plan_keeps_what_was_edited():
    plan = nw.allocate(smooth_curves([1.0, 2.0]), bits=3)
    data = json.loads(plan.to_json())
    data["tensors"]["t1"] = {"codec": "exact"}
    data["tensors"]["t0"]["knob"] = -700
    back = nw.Plan.from_json(json.dumps(data))
    assert back.choices["t1"] == Point(0, 0, "exact", 0)
    assert back.choices["t0"].knob == -700
    assert back.slope == plan.slope


GOOD = json.loads(nw.Plan({"w": Point(80.0, 0.5, "trellis", -900)}, 1e-3, "10 B", {"w": 20}).to_json())


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), "netweight.plan/9", "lacks the schema"),
        (("tensors",), [], "lacks the schema"),
        (("tensors", "w"), None, "names no codec for 'w'"),
        (("tensors", "w", "codec"), 7, "names no codec for 'w'"),
        (("tensors", "w", "knob"), 1.5, "knob for 'w' is 1.5"),
        (("tensors", "w", "knob"), True, "knob for 'w' is True"),
        (("tensors", "w", "knob"), (1 << 40) + 1, "knob for 'w' is"),
        (("tensors", "w", "bits"), -1, "figures for 'w' hold -1"),
        (("tensors", "w", "loss"), "x", "figures for 'w' hold 'x'"),
        (("slope",), "steep", "slope is 'steep'"),
        (("slope",), None, "slope is None"),
    ],
)
def test_the_first_wrong_field_is_named(path, value, says):
    data = json.loads(json.dumps(GOOD))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UsageError, match=says.replace(".", r"\.")):
        nw.Plan.from_json(json.dumps(data))


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.one_of(st.text(max_size=40), JSONS.map(json.dumps)))
def test_garbage_is_no_plan(text):
    with pytest.raises(UsageError):
        nw.Plan.from_json(text)


@given(st.lists(st.sampled_from([*GOOD, "tensors.w", "tensors.w.codec", "tensors.w.knob", "tensors.w.bits"])), JSONS)
def test_a_plan_with_garbage_in_it_is_read_or_refused(fields, value):
    data = json.loads(json.dumps(GOOD))
    for field in fields:
        place, *keys = data, *field.split(".")
        for key in keys[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[keys[-1]] = json.loads(json.dumps(value))
    with contextlib.suppress(UsageError):
        assert isinstance(nw.Plan.from_json(json.dumps(data)), nw.Plan)
