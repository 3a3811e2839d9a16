"""The sparse codec: what is kept, how large it is, and what it costs against the enumerative bound."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netweight as nw
from netweight.codecs.base import Point
from netweight.codecs.pruned import largest, zigzag
from netweight.codecs.sparse import FINEST, WHOLE, Sparse, knob_of, places
from netweight.entropy.layout import Layout
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.prune.slope import positions_bits

CODEC = Sparse()


def there_and_back(w: np.ndarray, knob: int, stat: Stat | None = None) -> tuple[int, np.ndarray]:
    """Bytes of the whole file, and what comes back."""
    plan = nw.Plan({"w": Point(0, 0, "sparse", knob)}, 0.0)
    archive = nw.encode({"w": w}, plan, {"w": stat or Stat()})
    return archive.nbytes, archive["w"]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 20))
def test_largest_by_sorting(values, count):
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert sorted(np.flatnonzero(largest(np.array(values, float), count))) == sorted(order[:count])


@pytest.mark.core
@settings(max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(), (1,), (50,), (1, 64), (20, 30), (4, 5, 3, 3), (8, 33, 3), (2, 3, 9, 9)]),
    st.floats(0, 1),
    st.integers(0, FINEST),
)
def test_the_largest_are_kept_with_their_signs(seed, shape, density, fineness):
    w = np.asarray(np.random.default_rng(seed).standard_t(2, shape), np.float32)
    knob = knob_of(density, fineness)
    _, back = there_and_back(w, knob)
    kept = back != 0
    assert kept.sum() == max(1, round(knob % WHOLE / WHOLE * w.size))
    assert np.array_equal(np.sign(back[kept]), np.sign(w[kept]))
    if not kept.all():
        assert np.abs(w[kept]).min() >= np.abs(w[~kept]).max()


@pytest.mark.parametrize("fineness", [0, 5, FINEST])
def test_golden_rule_1_and_what_matters_is_kept(fineness):
    random = np.random.default_rng(1)
    w = random.standard_normal((80, 90)).astype(np.float32)
    stat = Stat(diagonal=random.exponential(size=w.shape).astype(np.float32))
    _, back = there_and_back(w, knob_of(0.2, fineness), stat)
    score = stat.diagonal * np.square(w)
    assert score[back != 0].min() >= score[back == 0].max()
    residual = float(np.sum(stat.diagonal * back.astype(np.float64) * (w - back.astype(np.float64))))
    assert abs(residual) <= 1e-6 * float(np.sum(stat.diagonal * np.square(w, dtype=np.float64)))


def test_one_magnitude_is_the_best_ternary_of_its_support():
    """Against every prefix of the sorted magnitudes, with a = mean of what is kept (brute force)."""
    w = np.random.default_rng(2).standard_normal(10).astype(np.float32)
    for count in range(1, 11):
        _, back = there_and_back(w, knob_of(min(count / 10, 1 - 1e-9), 0))
        error = float(np.sum(np.square(w - back.astype(np.float64))))
        best = min(
            float(np.sum(np.square(w.astype(np.float64)))) - float(np.abs(w[list(c)]).sum()) ** 2 / count
            for c in itertools.combinations(range(10), count)
        )
        assert error == pytest.approx(best, rel=1e-5)


def test_finer_magnitudes_lose_less():
    w = np.random.default_rng(3).standard_normal((200, 200)).astype(np.float32)
    found = [there_and_back(w, knob_of(0.1, fineness)) for fineness in range(FINEST + 1)]
    losses = [float(np.sum(np.square(w - back.astype(np.float64)))) for _, back in found]
    sizes = [nbytes for nbytes, _ in found]
    pruned = float(np.sum(np.square(w[found[0][1] == 0], dtype=np.float64)))
    assert all(a > b for a, b in itertools.pairwise(losses[1:]))
    assert all(a < b for a, b in itertools.pairwise(sizes[1:]))
    assert losses[0] > losses[2]
    assert losses[-1] - pruned < 0.002 * pruned


def test_zeros_stay_zeros():
    w = np.zeros((30, 40), np.float32)
    w[3, 4], w[5, 6] = 2.0, -1.0
    _, back = there_and_back(w, knob_of(0.5, 6))
    assert np.array_equal(back, w)
    assert not there_and_back(np.zeros((30, 40), np.float32), knob_of(0.5, 6))[1].any()


@pytest.mark.parametrize("shape", [(1024, 1024), (256, 256, 3, 3)])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("fineness", [0, 6])
def test_the_enumerative_bound(shape, density, fineness):
    """File bytes are within 2 % of log2 C(n, k) + signs + entropy of the magnitudes, header apart, and not below it."""
    w = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    plan = nw.Plan({"w": Point(0, 0, "sparse", knob_of(density, fineness))}, 0.0)
    archive = nw.encode({"w": w}, plan, {"w": Stat()})
    back = archive["w"]
    alive = np.abs(back[back != 0])
    counts = np.unique(alive, return_counts=True)[1]
    values_bits = float(np.sum(counts * np.log2(alive.size / counts)))
    bound_bits = float(positions_bits(w.size, np.array([alive.size]))[0]) + alive.size + values_bits
    assert alive.size == round(density * w.size)
    assert bound_bits <= 8 * archive.nbytes <= 1.02 * bound_bits + 8 * archive.header_bytes


@given(st.sampled_from([(20, 30), (4, 5, 3, 3), (8, 33, 3), (7,), (1, 9)]), st.integers(0, 60))
def test_places_are_the_first_rows(shape, count):
    layout = Layout.of(shape)
    count = min(count, layout.size)
    at = places(layout, count)
    rows = layout.scan(np.arange(layout.size).reshape(shape) // (layout.columns * layout.positions))
    needed = math.ceil(count / (layout.columns * layout.positions))
    assert at.size == count == len(set(at.tolist()))
    assert (np.diff(at) > 0).all()
    assert (rows[at] < needed).all()


def test_zigzag_is_undone():
    level = np.arange(1000)
    v = zigzag(level)
    assert v[:5].tolist() == [0, 1, -1, 2, -2]
    assert np.array_equal(np.where(v > 0, 2 * v - 1, -2 * v), level)


@pytest.mark.parametrize("knob", [0, -5, WHOLE, (FINEST + 1) * WHOLE + 1])
def test_knobs_that_are_none(knob):
    with pytest.raises(UsageError, match=f"no knob {knob}"):
        CODEC.encode(np.ones(9, np.float32), Stat(), knob)


def test_predictions_with_importance():
    random = np.random.default_rng(5)
    w = random.standard_normal((150, 200)).astype(np.float32)
    stat = Stat(2.0, diagonal=np.square(random.exponential(size=w.shape)).astype(np.float32))
    for point in CODEC.sweep(w, stat)[::4]:
        nbytes, back = there_and_back(w, point.knob, stat)
        assert point.loss == pytest.approx(stat.loss(w, w - back.astype(np.float64)), rel=0.02)
        assert point.bits / 8 <= 1.02 * nbytes + 64
