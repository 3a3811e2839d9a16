"""Relative precision: every entry by its own size, zeros as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import netweight as nw
from netweight.cli import main
from netweight.codecs.relative import Relative
from netweight.errors import UsageError
from netweight.importance.prior import spans
from netweight.importance.stat import Stat


def variances(seed: int, size: int, zeros: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    v = np.exp(4 * random.standard_normal(size)).astype(np.float32)
    v[random.random(size) < zeros] = 0
    return v


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([0.0, 0.1, 0.4]), st.integers(1, 22))
def test_entries_are_right_to_half_a_step_and_zeros_stay(seed, size, zeros, mantissa):
    v = variances(seed, size, zeros)
    v[0] = 1.0
    parts = Relative().encode(v, Stat(relative=True), mantissa)
    back = Relative().decode(parts, {"k": parts.streams["k"].k}, v.shape)
    assert np.array_equal(back == 0, v == 0)
    error = np.abs(back[v > 0].astype(np.float64) / v[v > 0] - 1)
    assert error.max() <= 2.0 ** -(mantissa + 1)


@pytest.mark.parametrize("wrong", [[-1.0, 1.0], [0.0, 1e-40], [0.0, 0.0]])
def test_what_it_does_not_take(wrong):
    w = np.array(wrong, np.float32)
    assert not Relative().sweep(w, Stat(relative=True))
    with pytest.raises(UsageError, match="zeros beside positive numbers"):
        Relative().encode(w, Stat(relative=True), 4)


@pytest.mark.parametrize("mantissa", [4, 20])
def test_subnormals_are_as_good_as_zeros(mantissa):
    v = variances(0, 100, 0.0)
    v[:3] = np.float32(6e-45)
    stat = Stat(relative=True)
    parts = Relative().encode(v, stat, mantissa)
    back = Relative().decode(parts, {"k": parts.streams["k"].k}, v.shape)
    assert back[:3].max() <= 2.0**-140
    assert np.abs(back[3:].astype(np.float64) / v[3:] - 1).max() <= 2.0 ** -(mantissa + 1)
    predicted = {point.knob: point.loss for point in Relative().sweep(v, stat)}[mantissa]
    assert predicted == stat.loss(v, v - back) == stat.loss(v[3:], v[3:] - back[3:])


def test_what_spans():
    assert spans(np.array([0.0, 0.0, 1e-3, 1.0]), 16)
    assert not spans(np.array([0.0, 0.0, 0.0, 1e-3, 1.0]), 16), "mostly zeros: a sparse vector"
    assert not spans(np.array([0.0, 0.5, 1.0]), 16)
    assert not spans(np.array([-0.1, 1e-3, 1.0]), 16)


def test_a_dead_channel_s_variance_does_not_cost_the_others_theirs(real, tmp_path):
    """The complete ResNet-20 with channels that never fire, through the command line at two bits a weight.

    Where weights decay, such a variance ends at the smallest number there is: no large vector is kept exact for it.
    """
    tensors = {name: array.copy() for name, array in load_file(real("cifar10/resnet20.safetensors")).items()}
    names = [name for name in tensors if name.endswith("running_var")]
    for name in names:
        tensors[name][::5] = 0
        tensors[name][1::10] = 6e-45
    save_file(tensors, tmp_path / "dead.safetensors")
    command = ["compress", str(tmp_path / "dead.safetensors"), "-o", str(tmp_path / "dead.nwt"), "--bits", "2"]
    assert main(command) == 0
    back = nw.Archive.open(tmp_path / "dead.nwt")
    for name in names:
        v, found = tensors[name], back[name]
        normal = v > 1e-30
        assert found[~normal].max() < 1e-40
        assert np.abs(found[normal] / v[normal] - 1).max() < 0.5
    assert {row.codec for row in back.rows() if row.name in names and tensors[row.name].size > 16} == {"relative"}
