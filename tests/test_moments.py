"""Moments of batch norms that follow the coded weights: exact where errors are gains, and never for the worse."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netweight as nw
from netweight.checkpoint import open_checkpoint
from netweight.cli import main
from netweight.fitting import fit
from netweight.importance.core import Importance, Record
from netweight.importance.stat import Stat
from netweight.moments import STAY, corrected, moved, recoded
from netweight.norms import EQUAL, Seen, Way, norms_of, seen
from netweight.pipeline import Coder
from netweight.secant import secant
from netweight.trial import Trial

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[1]))
task = importlib.import_module("benchmarks.tasks").task


def network(seed: int = 0, width: int = 8) -> torch.nn.Module:
    """Two convolutions with norms whose moments are those of the inputs below."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 3),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(width, 5),
    )
    with torch.no_grad():
        for norm in (model[1], model[4]):
            norm.momentum = None
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.normal_()
        for batch in inputs(seed + 1):
            model(batch)
    return model.eval()


def inputs(seed: int, count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, 12, 12, generator=generator) + 0.5 for _ in range(count)]


class Held:
    """A network as it might come out of a file."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def tensor(self, name: str) -> torch.Tensor:
        return self.state[name]


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trial_of(model: torch.nn.Module) -> Trial:
    return Trial(model, open_checkpoint(model), "squared", None)


@pytest.mark.parametrize("equal", EQUAL)
def test_gains_and_shifts_of_layers_are_undone(equal):
    """Layers that are a gain and a shift off give a network that is exactly right again, the deeper one too."""
    model, batches = network(), inputs(5)
    for norm in (model[1], model[4]):
        norm.eps = 1e-9
    state = state_of(model)
    for layer, gain, shift in (("0", 0.8, 0.05), ("3", 0.6, -0.05)):
        state[f"{layer}.weight"] *= gain
        state[f"{layer}.bias"] += shift
    trial, names = trial_of(model), list(state)
    norms = norms_of(trial, names)
    assert [norm.mean for norm in norms] == ["1.running_mean", "4.running_mean"]
    found = seen(trial, norms, batches, Held(state), names, [equal])[equal]
    right = Held({**state, **moved(norms, found, Way(equal))})
    before, after = (float(trial.nats(batches, coded, names).mean()) for coded in (Held(state), right))
    assert after < 1e-9 < 1e-3 < before
    half = Held({**state, **moved(norms, found, Way(equal, 0.5))})
    assert after < float(trial.nats(batches, half, names).mean()) < before


def test_noise_is_no_signal():
    """x_1 = a x_0 + c + noise: the gain is 1 / a, whatever the noise."""
    random = np.random.default_rng(0)
    x = random.normal(2.0, 3.0, (200_000, 1))
    y = 0.8 * x + 0.7 + random.normal(0.0, 1.5, x.shape)
    both = Seen.of(torch.from_numpy(x), torch.from_numpy(y))
    before, after, gain = both.line(1e-5, Way("signal"))
    assert float(gain) == pytest.approx(1.25, rel=0.01)
    assert (float(before), float(after)) == pytest.approx((2.0, 2.3), abs=0.03)
    alone = Seen.of(torch.from_numpy(x), torch.from_numpy(random.normal(size=x.shape)))
    assert float(alone.line(1e-5, Way("signal"))[2]) == 2.0  # nothing in common: no gain is right, no more is taken
    assert float(both.line(1e-5, Way("variance"))[2]) == pytest.approx(3 / (2.4**2 + 1.5**2) ** 0.5, rel=0.01)
    dead = Seen.of(torch.zeros(9, 1), torch.zeros(9, 1))
    assert [float(dead.line(1e-5, Way(equal))[2]) for equal in EQUAL] == [1.0, 1.0]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.02, 0.1, 0.5, 2.0]))
def test_what_moves_is_better_and_the_model_stays(seed, noise):
    model, batches = network(seed), inputs(seed + 7)
    model[1].train()
    before = state_of(model)
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: w + noise * float(w.std()) * torch.randn(w.shape, generator=generator) if w.ndim > 1 else w
        for name, w in before.items()
    }
    trial, names = trial_of(model), list(state)
    way, found = corrected(trial, batches, Held(state), names, lambda new: Held({**state, **new}))
    lost = [float(trial.nats(batches, coded, names).mean()) for coded in (Held(state), found)]
    assert lost[1] <= lost[0]
    assert (lost[1] < lost[0]) == (way != STAY)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert (model[1].training, model[4].training) == (True, False)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_nothing_moves_where_nothing_may():
    model, batches = network(), inputs(5)
    state = {name: 0.8 * w for name, w in state_of(model).items()}
    trial, held = trial_of(model), Held(state)

    def refused(_: object) -> None:
        return None

    assert corrected(trial, batches, held, list(state), refused) == (STAY, held)  # no file of them
    assert corrected(trial, batches, held, ["0.weight", "1.running_mean"], Held) == (STAY, held)  # a variance is exact
    assert corrected(trial, batches[:1], held, list(state), Held) == (STAY, held)  # nothing to judge by
    for norm in norms_of(trial, list(state)):
        norm.module.running_mean.zero_()
    norms = norms_of(trial, list(state))
    assert (
        moved(norms, seen(trial, norms, batches, held, list(state))["signal"], Way()) == {}
    )  # an error above the signal


class Twice(torch.nn.Module):
    """A norm that is used twice, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.norm, self.idle = torch.nn.BatchNorm1d(6, momentum=None), torch.nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(torch.relu(self.norm(self.first(x)))))


def test_a_norm_may_be_used_twice_or_never():
    torch.manual_seed(0)
    model, batches = Twice(), [torch.randn(64, 6) for _ in range(4)]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    before = state_of(model.eval())
    state = {name: 0.8 * w if name.startswith(("first", "second")) else w for name, w in before.items()}
    trial = trial_of(model)
    way, found = corrected(trial, batches, Held(state), list(state), lambda new: Held({**state, **new}))
    assert way != STAY
    assert torch.equal(found.state["idle.running_mean"], before["idle.running_mean"])
    lost = [float(trial.nats(batches, coded, list(state)).mean()) for coded in (Held(state), found)]
    assert lost[1] < 0.2 * lost[0]


def test_a_network_without_norms_is_coded_as_ever():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.LayerNorm(32))
    batches = [torch.randn(40, 32) for _ in range(3)]
    importance = Importance.of({name: Stat() for name, _ in model.named_parameters()}, Record(objective="fisher"))
    found = secant(model, batches, importance, divergence="squared", slope=1e-5, rounds=0)
    assert "moments" not in found.archive.plan
    plain = nw.encode(model, found.plan, importance)
    assert all(np.array_equal(found.archive[name], plain[name]) for name in plain)


def test_secant_moves_them_and_the_file_keeps_its_size():
    """At some rates; whether it helps is decided by a few inputs."""
    model, batches = network(width=48), inputs(5, 9)
    weights = sum(tensor.numel() for tensor in model.state_dict().values())
    importance, steps = nw.measure(model, batches), []
    for bits in (1.0, 2.0, 3.0):
        found = secant(model, batches, importance, bits=bits, rounds=1)
        assert 8 * found.archive.nbytes <= bits * weights
        plain = nw.encode(model, found.plan, importance)
        assert abs(found.archive.nbytes - plain.nbytes) < 200
        others = [name for name in plain if not np.array_equal(found.archive[name], plain[name])]
        assert all(name.endswith(("running_mean", "running_var")) for name in others)
        steps.append(found.archive.plan.get("moments", {"step": 0.0})["step"])
        assert bool(others) == (steps[-1] > 0)
    assert any(step in (0.5, 1.0) for step in steps)


def test_moments_that_need_more_room_are_coded_anew_within_the_size():
    """The plan that just fits, and moments of which the file is larger: other tensors give way."""
    torch.manual_seed(2)
    model, batches = network(width=48), inputs(5, 9)
    checkpoint, importance = open_checkpoint(model), nw.measure(model, batches)
    curves, coder = nw.sweep(checkpoint, importance), Coder(checkpoint, importance, None, None)
    trial, anew = Trial(model, checkpoint, "kl", None), []
    for bits in (1.5, 2.0, 2.5, 3.0, 3.5):
        plan, archive = fit(coder, curves, bits=bits)
        way, same, free = recoded(trial, batches, coder, curves, plan, archive, 0, {"size": 2 * archive.nbytes})
        assert same == plan
        target = {"size": free.nbytes - 1}
        way, other, file = recoded(trial, batches, coder, curves, plan, archive, 0, target)
        assert file is archive or (way.step and other != plan and file.nbytes < free.nbytes)
        anew.append(file is not archive)
        assert recoded(trial, batches, coder, curves, plan, archive, free.nbytes, target)[1:] == (plan, archive)
    assert any(anew)


@pytest.mark.slow
def test_a_real_network_is_better_on_new_images(tmp_path):
    found = task("resnet20")
    if found is None:
        pytest.skip("the real networks are missing")
    network = found.build()
    importance = nw.measure(network, found.calibration[:2])
    with open_checkpoint(found.file) as checkpoint:
        done = secant(network, found.calibration[2:5], importance, checkpoint, bits=1.5, rounds=0)
        plain = nw.encode(checkpoint, done.plan, importance)
    assert done.archive.plan["moments"]["step"] in (0.5, 1.0)
    done.archive.save(tmp_path / "r.nwt")
    with_, without = (nw.evaluate(network, a, batches=found.heldout[:4]) for a in (tmp_path / "r.nwt", plain))
    assert with_.nats < without.nats
    assert main(["verify", str(tmp_path / "r.nwt"), "--against", str(found.file)]) == 0
