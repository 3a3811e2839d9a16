"""Symmetric sums by their upper half: the same numbers, in less memory, and written one tensor at a time."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import netweight as nw
from netweight.importance import shrink
from netweight.importance.accumulate import _add_product
from netweight.importance.core import Importance, Record
from netweight.importance.packed import Collected, PackedSums
from netweight.importance.samples import batch_of
from netweight.importance.triangle import Triangle, bands, packed_size

# What a process keeps beside arrays: two threads' work space of BLAS, code of torch that was never run before.
BESIDE_BYTES = 48e6
LAYERS, WIDTH = 6, 1024
CHILD = f"""
import torch, netweight.importance.collect
def peak():
    with open("/proc/self/status") as status:
        return 1024 * int(status.read().partition("VmHWM:")[2].split()[0])
idle = peak()
import sys, netweight as nw
torch.manual_seed(0)
model = torch.nn.Sequential(*(torch.nn.Linear({WIDTH}, {WIDTH}) for _ in range({LAYERS})))
batches = [torch.randn(64, {WIDTH}) for _ in range(4)]
nw.measure(model, batches, loss="squared").save(sys.argv[1])
print(peak() - idle)
"""


def packed(matrices: np.ndarray) -> Triangle:
    """Fold [2, groups, n, n]."""
    n = matrices.shape[-1]
    parts = [matrices[..., a:b, a:].reshape(*matrices.shape[:2], -1) for a, b, _ in bands(n)]
    return Triangle(n, np.ascontiguousarray(np.concatenate(parts, axis=-1)))


def collected(count: int, n: int, seed: int = 0) -> Collected:
    """Sums of some tensors of n columns and rows; the first two meet the same inputs."""
    x = np.random.default_rng(seed).standard_normal((count, 2, 2, n + 5, n))
    m = np.swapaxes(x, -1, -2) @ x
    m[1, :, 0] = m[0, :, 0]
    return Collected(
        {
            f"w{j}": ((PackedSums((n, n), packed(each[:, :1]), packed(each[:, 1:]), (9.0, 8.0)),),)
            for j, each in enumerate(m)
        }
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 2, 31, 32, 33, 65, 384, 385, 500]), st.integers(1, 3), st.integers(1, 70), st.integers(0, 99)
)
def test_triangles_add_to_the_whole_product(n, groups, count, seed):
    random = np.random.default_rng(seed)
    v = random.standard_normal((2, groups, count, n)).astype(np.float32)
    k = random.standard_normal((groups, count, count)).astype(np.float32)
    k = k @ np.swapaxes(k, 1, 2)
    values = torch.zeros(2, groups, packed_size(n), dtype=torch.float64)
    for half, left in enumerate(torch.from_numpy(v)):
        _add_product(values[half], left, left)
        _add_product(values[half], left, torch.from_numpy(k) @ left)
    exact = v.astype(float)
    expected = np.swapaxes(exact, -1, -2) @ (exact + k.astype(float) @ exact)
    found = Triangle(n, values.numpy())
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.full(), expected, atol=1e-5 * scale)
    np.testing.assert_array_equal(found[1], found.full()[1])


def test_bands_keep_every_pair_once():
    for n in (1, 31, 32, 33, 100):
        seen = np.zeros((n, n), int)
        for start, stop, place in bands(n):
            assert place.stop - place.start == (stop - start) * (n - start)
            seen[start:stop, start:] += 1
        assert (seen + seen.T >= 1).all()
        assert seen.max() == 1
        assert packed_size(n) == seen.sum() <= n * (n + 33) / 2


@pytest.mark.parametrize("sizes", [[1] * 40, [300], [100, 27, 1, 200, 5, 127, 128]])
def test_vectors_that_wait_are_all_counted(sizes):
    """However a pass is cut: those of a batch are copied to a work space, or multiplied at once."""
    torch.manual_seed(1)
    batches = [torch.randn(size, 70) for size in sizes]
    found = nw.measure(nn.Linear(70, 3), batches, loss="squared").sums("weight")[0]
    x, halves = torch.cat(batches).double(), torch.cat([batch_of(b, None).halves for b in batches])
    for half in (0, 1):
        mine = x[halves == half]
        np.testing.assert_allclose(found.inputs[half, 0], (mine.T @ mine).numpy(), rtol=1e-4, atol=1e-3)
        assert found.tokens[half] == len(mine)


def test_what_is_unfolded_has_the_bytes_that_were_told():
    model = nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16, 5))
    importance = nw.measure(model, [torch.randn(9, 6, 6, 6)], loss="squared")
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    packed_rows = nw.measure(attention, [torch.randn(4, 5, 8)], loss="squared", forward=lambda m, x: m(x, x, x)[0])
    for found in (importance, packed_rows):
        for name in found:
            (use,) = found.sums(name)
            arrays = [a for a in (use.inputs, use.outputs, use.diagonal) if a is not None]
            assert found.nbytes(name) == sum(a.nbytes for a in arrays)
            assert found.is_summed(name)
    assert importance.sums("0.weight")[0].outputs.shape == (2, 8, 8)
    assert not importance.sums("0.weight")[0].outputs[:, :4, 4:].any()


def test_shrinkage_of_a_half_at_a_time_is_that_of_the_whole():
    folded = collected(3, 40)
    mine = Importance(folded, Record(samples=100, predictions=100.0))
    plain = Importance(dict(folded), mine.record)
    for name in mine:
        assert mine.shrinkage(name) == plain.shrinkage(name)
        np.testing.assert_array_equal(mine[name].inputs, plain[name].inputs)


def test_single_precision_says_the_same_of_large_matrices(monkeypatch):
    """Of fewer samples than columns, so that most of the spectrum is nothing but rounding."""
    n = shrink.EXACT + 10
    random = np.random.default_rng(4)
    hidden = random.standard_normal((2, n // 2, n)) * np.arange(1, n + 1) ** -1.0
    x = hidden @ random.standard_normal((n, n))
    halves = packed((np.swapaxes(x, 1, 2) @ x)[:, None])
    found = shrink.choose(halves)
    seen = []

    def double(a):
        seen.append(a.dtype.name)
        return np.linalg.eigh(a.astype(np.float64))

    monkeypatch.setattr(shrink, "eigh", double)
    exact = shrink.choose(halves)
    assert seen == ["float32"]
    assert 0 < found.rho == exact.rho < 1
    np.testing.assert_allclose(found.optimism.times, exact.optimism.times, rtol=1e-3)


def test_equal_inputs_are_kept_once(tmp_path):
    record = Record(samples=9, predictions=9.0)
    folded = collected(3, 33)
    (first,), (second,), (third,) = (folded.folded(name) for name in folded)
    assert first.inputs is second.inputs
    assert first.inputs is not third.inputs
    Importance(folded, record).save(tmp_path / "x")
    Importance(dict(folded), record).save(tmp_path / "y")
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert (tmp_path / "x").stat().st_size < 5.1 * 2 * 8 * 33**2 + 3000
    opened = Importance.open(tmp_path / "x")
    np.testing.assert_array_equal(opened.sums("w1")[0].inputs, folded["w1"][0].inputs)


def test_saving_unfolds_one_tensor_at_a_time(tmp_path):
    count, n = 12, 260
    importance = Importance(collected(count, n), Record(samples=9, predictions=9.0))
    for name in importance:
        importance.shrinkage(name)
    one = importance.nbytes("w0")
    tracemalloc.start()
    try:
        importance.save(tmp_path / "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size > (count - 1) * one
    assert peak < 2 * one, f"{peak} bytes for tensors of {one}"


def test_folded_sums_are_pickled_folded():
    importance = Importance(collected(3, 100), Record(samples=9, predictions=9.0)).scaled({"w2": 2.0})
    text = pickle.dumps(importance)
    assert len(text) < 0.7 * sum(importance.nbytes(name) for name in importance)
    again = pickle.loads(text)
    for name in importance:
        np.testing.assert_array_equal(again[name].inputs, importance[name].inputs)
        assert again[name].weight == importance[name].weight


def test_no_computer_algebra_is_loaded():
    """Autograd compares shapes by it, which takes half a second and 20 MB."""
    code = (
        "import torch, sys, netweight as nw, netweight.importance.collect\n"
        "before = 'sympy' in sys.modules\n"
        "nw.measure(torch.nn.Linear(3, 2), [torch.randn(4, 3)], loss='squared')\n"
        "assert before or 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_the_peak_is_bounded_by_all_sums(tmp_path):
    """The network, its activations, the eigenvectors and the file included."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "x")], env=environment, capture_output=True, text=True, check=True
    )
    found = Importance.open(tmp_path / "x")
    bound = sum(map(found.nbytes, found)) + 2 * 4 * WIDTH**2
    assert bound > 16 * LAYERS * 2 * WIDTH**2
    peak = int(done.stdout)
    assert peak <= bound + BESIDE_BYTES, f"{peak / 1e6:.0f} MB, bound {bound / 1e6:.0f}"
