"""The benchmarks' networks compute what their authors' do: each reproduces its known figure on its own data."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tasks import task
from benchmarks.tasks.core import DATA, embedding_nats, outputs, softmax_nats
from benchmarks.tasks.images import _transformed, mobilenet_v2

from netweight.importance.samples import batch_of

BASELINES = {"lenet5": 0.9899, "resnet20": 0.9163, "resnet32": 0.9303, "stories260k": 5.083}


@pytest.mark.parametrize("key", BASELINES)
def test_the_network_reproduces_its_figure(key):
    found = task(key)
    if found is None:
        pytest.skip("the real networks are missing")
    judged = outputs(found.build(), found.heldout)
    assert found.summary(found.score(judged)) == pytest.approx(BASELINES[key], abs=5e-4)
    assert sum(map(len, found.calibration)) <= 512


@pytest.mark.parametrize("key", ["lenet5", "resnet20", "stories260k"])
def test_no_calibration_input_is_judged(key):
    found = task(key)
    if found is None:
        pytest.skip("the real networks are missing")
    length = found.calibration[0][0].numel()
    known = {sample.reshape(-1).numpy().tobytes() for batch in found.calibration for sample in batch}
    judged = {sample.reshape(-1)[:length].numpy().tobytes() for batch in found.heldout for sample in batch}
    assert not known & judged


def test_photographs_come_with_crops_in_their_own_half():
    if not DATA.exists():
        pytest.skip("the photographs are missing")
    found = mobilenet_v2(Path("no checkpoint"), calibration=12, heldout=4)
    whole, crops = found.calibration
    assert whole.shape == crops.shape == (12, 3, 224, 224)
    halves = [batch_of(part, None).halves for part in (whole, crops)]
    assert torch.equal(*halves)
    assert 0 < int(halves[0].sum()) < 12
    assert (whole - crops).abs().mean(dim=(1, 2, 3)).min() > 0.1  # crops, and of most photographs large ones
    near = (whole.mean(dim=(2, 3)) - crops.mean(dim=(2, 3))).abs().mean(1)  # in colour they are like no others
    others = (whole.mean(dim=(2, 3)) - crops.roll(1, 0).mean(dim=(2, 3))).abs().mean(1)
    assert near.mean() < 0.5 * others.mean()
    assert all(
        torch.equal(a, b)
        for a, b in zip(mobilenet_v2(Path("x"), calibration=12, heldout=4).calibration, (whole, crops), strict=True)
    )


def test_divergences():
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.3, 0.1])
    wanted = float(np.sum(p * np.log(p / q)))
    logits = torch.from_numpy(np.stack([np.log(p), np.log(q)]))
    found = softmax_nats(logits, logits.flip(0) + 7)  # a constant changes no probability
    assert found[0] == pytest.approx(wanted)
    assert found.shape == (2,)
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    assert float(embedding_nats(a, b)) == pytest.approx(1 - 0.6)  # of unit vectors: 1 - cosine


def test_cifar_images_are_shifted_and_mirrored():
    images = torch.arange(6 * 3 * 32 * 32, dtype=torch.float32).reshape(6, 3, 32, 32) + 1
    found = _transformed(images, np.random.default_rng(5))
    shifts = set()
    for before, after in zip(images, found, strict=True):
        inside = after[0][after[0] > 0]
        assert torch.isin(inside, before[0]).all()  # nothing but its own pixels, and the mean colour, 0
        rows, columns = (after[0] > 0).any(1).sum(), (after[0] > 0).any(0).sum()
        assert rows >= 28
        assert columns >= 28
        assert inside.numel() == rows * columns
        shifts.add((int(rows), int(columns), bool(inside[0] > inside[1])))
    assert len({mirrored for *_, mirrored in shifts}) == 2
    assert len(shifts) > 3
    assert torch.equal(found, _transformed(images, np.random.default_rng(5)))
