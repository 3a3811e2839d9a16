"""The ladder against theory: R(D) of Laplacian weights, every prefix better than the one before, exact decoding."""

import time
from itertools import pairwise

import numpy as np
import pytest

import netweight as nw
from netweight import kernels
from netweight.codecs.base import Point, index_of, step_of
from netweight.codecs.registry import choose, codecs
from netweight.codecs.surp import COARSEST, FINEST, RUNGS, STARTED, Ladder, Surp
from netweight.errors import UsageError
from netweight.importance.stat import Stat

SURP = codecs()["surp"]


def decoded(parts, shape, levels=RUNGS):
    fine = {name: stream.k for name, stream in list(parts.streams.items())[:levels]}
    return SURP.decode(parts, fine, shape)


def laplacian(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).laplace(size=(n // 1000, 1000)).astype(np.float32)


LADDERS = [Ladder(), Ladder(1), Ladder(2, 0), Ladder(1, 3)]


def test_thresholds():
    assert [Ladder().threshold(j) for j in range(RUNGS)] == [32 << j for j in range(RUNGS)]
    assert [Ladder().above(j) for j in range(RUNGS)] == [8 << j for j in range(RUNGS)]
    half = Ladder(1, 3)
    assert [half.threshold(2 * j) for j in range(RUNGS // 2)] == [32 << j for j in range(RUNGS // 2)]
    assert all(1.4 <= half.threshold(j + 1) / half.threshold(j) <= 1.43 for j in range(RUNGS - 1))
    assert all(0.17 < half.above(j) / half.threshold(j) <= 3 / 16 for j in range(RUNGS))


@pytest.mark.parametrize(("share", "most"), [(0.9, 1.45), (0.7, 1.45), (0.5, 1.45)])
def test_file_bytes_against_rate_distortion(share, most, tmp_path):
    """All bytes of the file of i.i.d. Laplacian weights; asked for are 1.65 R(D) at 0.5 and 0.9 of E|w|."""
    w = laplacian(400_000)
    whole = float(np.abs(w).mean())
    found = []
    for step in np.geomspace(0.8, 5.0, 9):
        archive = nw.encode({"w": w}, nw.Plan({"w": Point(0.0, 0.0, "surp", index_of(float(step)))}, 1.0))
        archive.save(tmp_path / "w.nwt", force=True)
        d = float(np.abs(w - nw.load(tmp_path / "w.nwt", framework="numpy")["w"]).mean()) / whole
        found.append((d, 8 * (tmp_path / "w.nwt").stat().st_size / w.size))
    d, bits = np.array(found).T
    ratio = float(np.interp(share, d, bits)) / -np.log2(share)
    assert 1.0 < ratio < most, "and nothing beats the bound"


@pytest.mark.core
@pytest.mark.parametrize("ladder", LADDERS, ids=str)
def test_every_level_brings_weights_nearer(ladder):
    random = np.random.default_rng(1)
    w = (random.standard_t(1.5, (60, 90)) * 2.0 ** random.normal(0, 2, (60, 1))).astype(np.float32)
    parts = Surp(ladder).encode(w, Stat(), index_of(0.05))
    errors = [np.abs(w.astype(np.float64) - decoded(parts, w.shape, k)) for k in range(len(parts.streams) + 1)]
    np.testing.assert_array_equal(errors[0], np.abs(w))
    grain = 2.0**-8 * 0.05
    for before, after in pairwise(errors):
        assert (after <= before + grain).all()
        assert after.sum() <= before.sum()
    assert errors[-1].max() <= 0.05 * (1 + 2.0**-8) + 2.0**-23 * np.abs(w).max()


@pytest.mark.core
@pytest.mark.parametrize("ladder", LADDERS, ids=str)
def test_signs_never_flip_and_without_offset_no_weight_grows(ladder):
    w = laplacian(20_000, 3)
    parts = Surp(ladder).encode(w, Stat(), index_of(0.3))
    for levels in range(len(parts.streams) + 1):
        back = decoded(parts, w.shape, levels)
        assert (w * back >= 0).all()
        if ladder.offset == 0:
            assert (np.abs(back) <= np.abs(w) + 0.3 / 512).all()


@pytest.mark.slow
def test_ten_million_weights_bit_for_bit(tmp_path):
    """What a reader of the file adds up is what the encoder, which knows the weights, took off them."""
    w = np.random.default_rng(5).laplace(size=(5000, 2000)).astype(np.float32)
    knob = index_of(2.3)
    begin_s = time.process_time()
    archive = nw.encode({"w": w}, nw.Plan({"w": Point(0.0, 0.0, "surp", knob)}, 1.0))
    took_s = time.process_time() - begin_s
    assert took_s < 5 or kernels.backend() != "c", "5 s for 10^7 weights, a tenth of them not zero"
    archive.save(tmp_path / "w.nwt")
    back = nw.load(tmp_path / "w.nwt", framework="numpy")["w"]
    threshold = Ladder().threshold
    missing = np.rint(w.astype(np.float64) * (512 / step_of(knob))).astype(np.int64)
    total = np.zeros(w.shape, np.int64)
    first = max(j for j in range(RUNGS) if np.count_nonzero(np.abs(missing) > 16 * threshold(j)) * STARTED >= w.size)
    for rung in reversed(range(first + 1)):
        k = np.sign(missing) * np.maximum(-(-np.abs(missing) // (16 * threshold(rung))) - 1, 0)
        step = k * threshold(rung) + np.sign(k) * Ladder().above(rung)
        total += step
        missing -= 16 * step
    np.testing.assert_array_equal(back, total.astype(np.float32) * np.float32(step_of(knob) / 32))
    assert 0.09 < np.count_nonzero(back) / w.size < 0.11


@pytest.mark.core
@pytest.mark.parametrize("knob", [FINEST - 1, COARSEST + 1])
def test_knobs_out_of_range(knob):
    with pytest.raises(UsageError, match=f"no knob {knob}"):
        SURP.encode(np.ones((4, 4), np.float32), Stat(), knob)
    parts = SURP.encode(np.ones((4, 4), np.float32), Stat(), 0)
    parts.params["step"] = knob
    with pytest.raises(ValueError, match="a ladder of step"):
        decoded(parts, (4, 4))


def test_named_alone_it_brings_the_others_for_vectors():
    assert SURP not in choose(None)[0]
    assert choose(["surp"]) == ([codec for codec in codecs().values() if codec.default or codec is SURP], True)
    assert choose(["surp", "uniform"]) == ([codecs()["uniform"], SURP], False)
    random = np.random.default_rng(0)
    tensors = {"w": random.normal(size=(64, 64)), "b": random.normal(size=64), "n": np.arange(4)}
    curves = nw.sweep(tensors, codecs=["surp"])
    assert {point.codec for point in curves["w"].points} == {"surp"}
    assert "surp" not in {point.codec for name in "bn" for point in curves[name].points}
