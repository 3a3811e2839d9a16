"""Rounds of pruning, and masks that no optimiser can undo."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import train
from netweight.errors import UsageError

OPTIMIZERS = {
    "momentum and decay": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1),
}


def zeros(model) -> float:
    weights = [p for name, p in model.named_parameters() if p.ndim >= 2]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@given(st.integers(0, 40), st.floats(0.05, 0.95))
def test_the_schedule_and_its_inverse(rounds, keep):
    assert train.sparsity(rounds, keep) == pytest.approx(1 - keep**rounds)
    wanted = train.sparsity(rounds, keep)
    if wanted < 1:
        found = train.rounds_to(wanted, keep)
        assert train.sparsity(found, keep) >= wanted
        assert found == 0 or train.sparsity(found - 1, keep) < wanted


@pytest.mark.parametrize(("wanted", "keep"), [(1.0, 0.8), (-0.1, 0.8), (0.5, 1.0), (0.5, 0.0)])
def test_a_schedule_that_cannot_be(wanted, keep):
    with pytest.raises(UsageError, match="Take one"):
        train.rounds_to(wanted, keep)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_magnitude_keeps_the_largest(seed, density):
    w = np.random.default_rng(seed).integers(-9, 10, (15, 5)).astype(np.float32)
    kept = train.magnitude({"w": w}, density)["w"]
    inside, outside = np.abs(w[kept]), np.abs(w[~kept])
    assert inside.size == round(density * 75)
    assert not inside.size or not outside.size or inside.min() >= outside.max()


def test_every_method_of_prune_can_choose(task):
    weights = {"a": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "b": np.array([[0.1, 0.2]], np.float32)}
    assert train.chooser("uniform")(weights, 0.5)["b"].tolist() == [[False, True]]
    assert train.chooser("surp")(weights, 0.5)["b"].tolist() == [[False, True]], "0.2 is much of its tensor"
    with pytest.raises(UsageError, match="kompress"):
        train.Pruner(task.model, train.chooser("kompress")).step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero(name, task):
    optimizer = OPTIMIZERS[name](task.model.parameters())
    task.losses(5, optimizer)  # the optimiser has momentum for every weight before the first round
    pruner = train.Pruner(task.model, train.magnitude)
    with pruner.masks.attach(optimizer):
        for number in range(1, 6):
            assert pruner.step() == pytest.approx(0.8**number, abs=1e-3)
            before = pruner.masks.kept
            losses = task.losses(30, optimizer)
            assert zeros(task.model) == pytest.approx(1 - 0.8**number, abs=1e-3)
            for weight, kept in zip((task.model[0].weight, task.model[2].weight), before.values(), strict=True):
                assert not weight.detach().numpy()[~kept].any()
                assert not weight.grad.numpy()[~kept].any(), "clipping would see them"
    assert losses[-1] < losses[0] + 0.1, "training goes on"
    task.losses(1, optimizer)
    assert zeros(task.model) < 0.05, "without the hooks this optimiser revives them: the test can fail"


def test_biases_are_left_alone(task):
    pruner = train.Pruner(task.model, train.magnitude, keep=0.1)
    pruner.step()
    assert all(p.detach().numpy().all() for p in task.model.parameters() if p.ndim == 1)


def test_pruned_weights_never_come_back(task):
    def other(weights, density):
        return {name: np.indices(w.shape).sum(0) % 2 == 0 for name, w in weights.items()}

    pruner = train.Pruner(task.model, train.magnitude)
    pruner.step()
    first = pruner.masks.kept
    pruner.choose = other
    reached = pruner.step()
    assert reached < 0.64
    assert all((first[name] >= now).all() for name, now in pruner.masks.kept.items())


def test_retraining_helps(make):
    """At one sparsity, rounds with retraining beat one cut of the trained model."""
    task = make(1)
    optimizer = torch.optim.Adam(task.model.parameters(), 0.02)
    task.losses(150, optimizer)
    start = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    train.Pruner(task.model, train.magnitude).prune_to(0.8**6)
    at_once = task.loss().item()
    task.model.load_state_dict(start)
    pruner = train.Pruner(task.model, train.magnitude)
    with pruner.masks.attach(optimizer):
        for _ in range(6):
            pruner.step()
            task.losses(20, optimizer)
    assert task.loss().item() < 0.7 * at_once


def test_masks_that_do_not_fit(task):
    with pytest.raises(UsageError, match="has no parameter 'x'"):
        train.Masks(task.model, {"x": np.ones(3, bool)})
    with pytest.raises(UsageError, match=r"has the shape \(3,\), the parameter \(32, 20\)"):
        train.Masks(task.model, {"0.weight": np.ones(3, bool)})
    masks = train.Masks(task.model, {"0.weight": np.ones((32, 20), bool)})
    with pytest.raises(UsageError, match="of the same tensors"):
        masks.set({"2.weight": np.ones((4, 32), bool)})
    with pytest.raises(UsageError, match="of another shape"):
        masks.load_state_dict({"0.weight": torch.zeros(3, dtype=torch.uint8)})


def test_without_torch_the_module_says_so():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from netweight.errors import UsageError\n"
        "try:\n    import netweight.train\nexcept UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "The module netweight.train needs torch, which is not installed.",
        'Install "netweight[torch]".',
    ]
