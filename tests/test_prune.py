"""Pruning rules against brute force, exact sparsity, patterns and what masks cost."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from netweight import prune
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.prune import METHODS, Pattern, mask_bits, mask_bytes, masks, pattern_masks
from netweight.prune.scores import lamp, saliency
from netweight.prune.shares import erk, uniform_plus
from netweight.prune.slope import VALUE_BITS, one_slope
from netweight.theory import relu

MAGNITUDE = [m for m in METHODS if m not in ("importance", "slope")]


def network(seed: int, ties: bool = False) -> dict[str, np.ndarray]:
    """A convolution and matrices of several scales."""
    random = np.random.default_rng(seed)
    shapes = {"conv": (4, 3, 3, 3), "wide": (30, 40), "tall": (60, 10), "last": (10, 25)}
    scales = 2.0 ** random.normal(0, 2, len(shapes))
    out = {n: random.standard_normal(s) * scale for (n, s), scale in zip(shapes.items(), scales, strict=True)}
    if ties:
        out = {n: np.rint(w / 2) for n, w in out.items()}
    return {n: w.astype(np.float32) for n, w in out.items()}


def importance(seed: int) -> dict[str, Stat]:
    random = np.random.default_rng(seed)
    return {
        n: Stat(float(2.0 ** random.normal()), diagonal=random.exponential(size=w.shape).astype(np.float32))
        for n, w in network(seed).items()
    }


def count(kept: dict[str, np.ndarray]) -> int:
    return sum(int(k.sum()) for k in kept.values())


# ---- what every method promises


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 1), st.booleans(), st.sampled_from(METHODS), st.integers(0, 2))
def test_sparsity_is_exact(seed, density, ties, method, least):
    weights = network(seed, ties)
    wanted = round(density * sum(w.size for w in weights.values()))
    if method == "uniform+" and wanted < 108 + 50:  # the convolution and a fifth of the last
        with pytest.raises(UsageError, match="more than"):
            masks(weights, density, method)
        return
    kept = masks(weights, density, method, importance(seed), least=least)
    assert {n: k.shape for n, k in kept.items()} == {n: w.shape for n, w in weights.items()}
    assert all(k.dtype == np.bool_ for k in kept.values())
    assert count(kept) == wanted
    if wanted >= least * len(weights) and method != "uniform+":
        assert min(int(k.sum()) for k in kept.values()) >= least


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.15, 1), st.sampled_from(METHODS))
def test_within_a_tensor_the_best_are_kept(seed, density, method):
    weights, known = network(seed), importance(seed)
    for name, kept in masks(weights, density, method, known).items():
        score = np.abs(weights[name]) if method in MAGNITUDE else saliency(weights[name], known[name])
        score = score.reshape(-1)
        if 0 < kept.sum() < kept.size:
            assert score[kept.reshape(-1)].min() >= score[~kept.reshape(-1)].max()


@pytest.mark.parametrize("method", METHODS)
def test_of_equal_weights_the_first_are_kept(method):
    weights = {n: np.ones_like(w) for n, w in network(0).items()}
    known = {n: Stat(diagonal=np.ones_like(w)) for n, w in weights.items()}
    for kept in masks(weights, 0.4, method, known).values():
        flat = kept.reshape(-1)
        assert flat[: flat.sum()].all()


@pytest.mark.parametrize("method", ["global", "importance", "slope", "uniform", "erk", "surp"])
def test_no_tensor_is_cut_off(method):
    weights = network(1) | {"small": np.full((5, 5), 1e-6, np.float32)}
    known = {n: Stat(diagonal=np.ones_like(w)) for n, w in weights.items()}
    assert masks(weights, 0.01, method, known)["small"].sum() >= 1
    assert masks(weights, 0.01, "global", least=0)["small"].sum() == 0
    assert count(masks(weights, 0.001, method, known)) == round(0.001 * sum(w.size for w in weights.values()))


# ---- each rule, by definition


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
def test_global_is_one_threshold(seed, density):
    weights = network(seed)
    kept = masks(weights, density, "global", least=0)
    alive = np.concatenate([np.abs(w)[kept[n]] for n, w in weights.items()])
    pruned = np.concatenate([np.abs(w)[~kept[n]] for n, w in weights.items()])
    assert alive.min() >= pruned.max()


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12))
def test_lamp_by_its_definition(values):
    """The j-th smallest: w_j^2 / sum over i >= j of w_i^2; of equal ones the later is the smaller."""
    w = np.array(values, np.float64)
    order = sorted(range(w.size), key=lambda i: (w[i] ** 2, -i))
    for place, i in enumerate(order):
        above = sum(w[j] ** 2 for j in order[place:])
        assert lamp(w)[i] == pytest.approx(w[i] ** 2 / above if above else 0.0)


def test_lamp_and_surp_do_not_see_the_scale_of_a_tensor():
    weights = network(2)
    other = {n: w * np.float32(2.0**j) for j, (n, w) in enumerate(weights.items())}
    for method in ("lamp", "surp"):
        a, b = masks(weights, 0.1, method), masks(other, 0.1, method)
        assert all(np.array_equal(a[n], b[n]) for n in weights)
    a, b = masks(weights, 0.1, "global"), masks(other, 0.1, "global")
    assert not all(np.array_equal(a[n], b[n]) for n in weights)


def test_surp_is_global_on_normalised_tensors():
    weights = network(3)
    unit = {n: w / np.linalg.norm(w.astype(np.float64)) for n, w in weights.items()}
    a, b = masks(weights, 0.1, "surp"), masks(unit, 0.1, "global")
    assert all(np.array_equal(a[n], b[n]) for n in weights)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=5), st.floats(0.02, 1))
def test_erk_shares_go_with_axes_over_weights(shapes, density):
    sizes = np.array([a * b for a, b in shapes])
    total = round(density * int(sizes.sum()))
    counts = erk(shapes, total)
    assert counts.sum() == total
    factors = [k / sum(shape) for k, shape in zip(counts, shapes, strict=True)]
    partly = [(f, sum(s)) for f, s, k, n in zip(factors, shapes, counts, sizes, strict=True) if k < n - 1]
    for (f, a), (g, b) in itertools.combinations(partly, 2):
        assert abs(f - g) <= 1 / a + 1 / b + 1e-9
    for f, _ in partly:
        assert all(
            g <= f + 1 / sum(s) + 1e-9 for g, s, k, n in zip(factors, shapes, counts, sizes, strict=True) if k == n
        )


def test_uniform_plus_keeps_the_first_convolution_and_a_fifth_of_the_last():
    shapes = [(8, 3, 3, 3), (100, 50), (100, 100), (10, 100)]
    low, high = uniform_plus(shapes, 1000), uniform_plus(shapes, 8000)
    assert low.tolist()[0::3] == [216, 200]
    assert low[1] / 5000 == pytest.approx(low[2] / 10_000, abs=2e-4)
    assert high[0] == 216
    assert high[3] / 1000 == pytest.approx(high[2] / 10_000, abs=2e-3) and high[3] > 200  # noqa: PT018
    assert uniform_plus(shapes[1:], 3000)[0] < 5000, "a first matrix is not special"
    with pytest.raises(UsageError, match="more than 300"):
        uniform_plus(shapes, 300)


@pytest.mark.parametrize("seed", range(8))
def test_importance_is_the_optimum_of_a_relu_unit(seed):
    """Gaussian inputs of diagonal covariance: I = cov / 2, and all subsets tried (Gao et al., corollary 1)."""
    random = np.random.default_rng(seed)
    w, variance = random.standard_normal(9), random.exponential(size=9) ** 2
    known = {"w": Stat(diagonal=(variance / 2).astype(np.float32))}
    differs = 0
    for keep in range(1, 9):
        kept = masks({"w": w.astype(np.float32)}, keep / 9, "importance", known)["w"]
        best, _ = relu.best_subset(w, np.diag(variance), keep)
        assert tuple(np.flatnonzero(kept)) == best
        differs += tuple(np.flatnonzero(masks({"w": w}, keep / 9, "global")["w"])) != best
    assert differs > 0, "magnitude finds it too: the case shows nothing"


def test_importance_counts_the_quartic_term():
    """g w^2 + h^2 w^4 / 4, the gradient + Hessian score."""
    w = np.array([1.0, 2.0, 0.5], np.float32)
    stat = Stat(2.0, diagonal=np.array([3, 1, 1], np.float32), quartic=np.array([0, 0.1, 80], np.float32))
    assert saliency(w, stat) == pytest.approx([3.0, 4 + 1.6, 0.25 + 5.0])
    assert saliency(w, Stat(2.0)) == pytest.approx([1.0, 4.0, 0.25])


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(1e-4, 0.5))
def test_one_slope_is_on_the_hull(seed, slope):
    """Two tensors, all pairs of counts: at the counts some slope chooses nothing has less loss + slope bits."""
    random = np.random.default_rng(seed)
    scores = [random.exponential(size=12), 0.1 * random.exponential(size=8)]
    loss = [[float(np.sum(np.sort(s)[: s.size - k])) for k in range(s.size + 1)] for s in scores]
    bits = [[math.log2(math.comb(s.size, k)) + VALUE_BITS * k for k in range(s.size + 1)] for s in scores]
    costs = {(i, j): loss[0][i] + loss[1][j] + slope * (bits[0][i] + bits[1][j]) for i in range(13) for j in range(9)}
    best = min(costs, key=lambda pair: costs[pair])
    found = tuple(one_slope(scores, sum(best)).tolist())
    assert sum(found) == sum(best)
    assert costs[found] <= costs[best] * (1 + 1e-9)


def test_one_slope_differs_from_one_threshold_where_positions_cost():
    random = np.random.default_rng(0)
    weights = {
        "a": random.standard_normal((40, 50)).astype(np.float32),
        "b": (0.4 * random.standard_normal((40, 50))).astype(np.float32),
    }
    known = {n: Stat(diagonal=np.ones_like(w)) for n, w in weights.items()}
    slope, threshold = (masks(weights, 0.3, m, known) for m in ("slope", "importance"))
    bits = [sum(mask_bits(k) for k in kept.values()) for kept in (slope, threshold)]
    loss = [sum(float(np.sum(np.square(w)[~kept[n]])) for n, w in weights.items()) for kept in (slope, threshold)]
    assert bits[0] < bits[1]
    assert loss[0] > loss[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((network(0), 0.5, "snip"), "no pruning method 'snip'"),
        ((network(0), 1.5, "lamp"), "A share of 1.5"),
        ((network(0), 0.5, "importance"), "lacks the importance of 4 tensors"),
        (({"w": np.array([np.nan])}, 0.5, "lamp"), "'w' holds NaN"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(UsageError, match=message):
        masks(*arguments)
    assert set(prune.__all__) >= {"METHODS", "masks"}


# ---- patterns


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["1:4", "2:4", "4:8"]), st.sampled_from([(6, 16), (3, 8, 2, 2), (5, 10)]))
def test_n_of_m_by_brute_force(seed, text, shape):
    w = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    pattern = Pattern.parse(text)
    kept = pattern_masks({"w": w}, pattern)["w"]
    lines = np.moveaxis(w, 1, -1).reshape(-1, shape[1])
    for line, mask in zip(lines, np.moveaxis(kept, 1, -1).reshape(-1, shape[1]), strict=True):
        for at in range(0, shape[1], pattern.m):
            part = np.abs(line[at : at + pattern.m])
            n = -(-part.size * pattern.n // pattern.m)
            best = max(itertools.combinations(range(part.size), n), key=lambda c: float(np.square(part[list(c)]).sum()))
            assert tuple(np.flatnonzero(mask[at : at + pattern.m])) == best


@pytest.mark.parametrize(("text", "high", "wide"), [("4x1", 4, 1), ("3x5", 3, 5), ("channel", 1, 54)])
def test_blocks_are_kept_whole(text, high, wide):
    random = np.random.default_rng(4)
    w = random.standard_normal((20, 6, 3, 3)).astype(np.float32)
    kept = pattern_masks({"w": w}, Pattern.parse(text), 0.4)["w"].reshape(20, 54)
    square = np.square(w.reshape(20, 54))
    alive, pruned = [], []
    for r, c in itertools.product(range(0, 20, high), range(0, 54, wide)):
        tile = kept[r : r + high, c : c + wide]
        assert tile.all() or not tile.any()
        (alive if tile.all() else pruned).append(float(square[r : r + high, c : c + wide].mean()))
    assert min(alive) >= max(pruned)
    assert 0.4 * w.size - high * wide < kept.sum() <= 0.4 * w.size


def test_blocks_with_importance():
    w = np.ones((4, 4), np.float32)
    known = {"w": Stat(diagonal=np.repeat([1.0, 9, 2, 3], 4).reshape(4, 4).astype(np.float32))}
    kept = pattern_masks({"w": w}, Pattern.parse("channel"), 0.5, known)["w"]
    assert kept.all(axis=1).tolist() == [False, True, False, True]


@pytest.mark.parametrize("text", ["0:4", "5:4", "2:40", "4x", "rows", "", "-1x2"])
def test_patterns_that_are_none(text):
    with pytest.raises(UsageError, match="no pattern"):
        Pattern.parse(text)


# ---- rates


def test_mask_bits_count_the_masks_of_a_pattern():
    """By writing down all masks of 8 weights with the same density and pattern."""
    mask = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], bool)
    every = [np.array(m, bool).reshape(2, 4) for m in itertools.product([0, 1], repeat=8)]
    assert 2 ** mask_bits(mask) == pytest.approx(sum(m.sum() == 4 for m in every))
    two_of_four = sum((m.sum(axis=1) == 2).all() for m in every)
    assert 2 ** mask_bits(mask, Pattern.parse("2:4")) == pytest.approx(two_of_four)
    block = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    assert 2 ** mask_bits(block, Pattern.parse("2x2")) == pytest.approx(2)
    assert 2 ** mask_bits(np.array([[1] * 4, [0] * 4], bool), Pattern.parse("channel")) == pytest.approx(2)


@pytest.mark.parametrize("pattern", [None, "2:4", "1:8", "4x4", "channel"])
@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_masks_take_what_they_must(pattern, density):
    """Real bytes are within 2 % of the index of the mask, 192 a chunk apart, and not below it."""
    w = {"w": np.random.default_rng(5).standard_normal((600, 512)).astype(np.float32)}
    found = Pattern.parse(pattern) if pattern else None
    mask = (pattern_masks(w, found, density) if found else masks(w, density, "global"))["w"]
    least = mask_bits(mask, found) / 8
    assert least <= mask_bytes(mask, found) <= 1.02 * least + 192 * -(-mask.size // (1 << 17))


def test_a_real_network(real):
    """All methods on LeNet-5 at 90 %: exact, and ERK and LAMP leave the small layers denser than one threshold does."""
    weights = {n: w for n, w in load_file(real("mnist/lenet5.safetensors")).items() if w.ndim > 1}
    known = {n: Stat() for n in weights}
    total = sum(w.size for w in weights.values())
    densities = {}
    for method in METHODS:
        kept = masks(weights, 0.1, method, known)
        assert count(kept) == round(0.1 * total)
        densities[method] = [float(k.mean()) for k in kept.values()]
    assert densities["uniform+"][0] == 1
    assert densities["uniform"] == pytest.approx([0.1] * len(weights), abs=0.01)
    smallest = int(np.argmin([w.size for w in weights.values()]))
    assert min(densities["lamp"][smallest], densities["erk"][smallest]) > 0.1
