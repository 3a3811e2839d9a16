"""Projections, the straight-through trainer and ADMM."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import netweight as nw
from netweight import train
from netweight.codecs.registry import codecs
from netweight.errors import UsageError
from netweight.importance.stat import Stat


def plan_of(weights, share, codecs):
    """A plan that loses this share of the energy of the weights."""
    energy = 0.5 * sum(float(np.sum(np.square(w, dtype=np.float64))) for w in weights.values())
    plain = {name: Stat() for name in weights}
    return nw.allocate(nw.sweep(weights, plain, codecs=codecs), loss=share * energy)


def arrays(model) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("codec", sorted(codecs()))
def test_a_projection_is_what_the_file_gives_back(codec):
    """Of every codec at a middle knob; those that want the inputs' second moment get one."""
    random = np.random.default_rng(0)
    w = {"w": np.exp(random.normal(size=(48, 40))).astype(np.float32)}  # positive: `relative` takes nothing else
    x = random.normal(size=(200, 40)) * np.linspace(0.5, 2, 40)
    stats = {"w": Stat(inputs=(x.T @ x / 200)[None], samples=200)}
    known = codecs()[codec]
    points = known.sweep(w["w"], stats["w"] if known.structured else stats["w"].flat())
    plan = nw.Plan({"w": points[len(points) // 2]}, 0.0, "", {"w": w["w"].size})
    found = train.CodecProjection(plan, stats)(w)
    assert found["w"].dtype == np.float32
    assert np.array_equal(found["w"], nw.encode(w, plan, stats)["w"])
    assert np.abs(found["w"] - w["w"]).max() > 0


def test_tensors_stored_exactly_and_dead_ones_are_left_alone():
    random = np.random.default_rng(0)
    w = {name: random.normal(size=(64, 64)).astype(np.float32) for name in ("a", "b", "c")}
    plan = nw.allocate(nw.sweep({k: w[k] for k in "ac"}, codecs=["uniform"]), bits=3)
    whole = nw.allocate(nw.sweep({"b": w["b"]}, codecs=["exact"]), bits=32)
    plan = nw.Plan({**plan.choices, **whole.choices}, plan.slope, plan.target, {**plan.sizes, **whole.sizes})
    w["c"] = np.zeros_like(w["c"])
    found = train.CodecProjection(plan)(w)
    assert set(found) == {"a", "c"}
    assert not found["c"].any()
    with pytest.raises(UsageError, match="a lossy codec for none of the 1 parameters"):
        train.CodecProjection(plan)({"b": w["b"]})


def test_straight_through_computes_with_the_projection_and_moves_the_weights_behind(task):
    plan = plan_of(arrays(task.model), 0.1, ["uniform", "exact"])
    project = train.CodecProjection(plan)
    straight = train.StraightThrough(task.model, project)
    optimizer = torch.optim.SGD(task.model.parameters(), 0.1)
    before, compressed = arrays(task.model), project(arrays(task.model))
    optimizer.zero_grad()
    with straight.projected():
        inside = arrays(task.model)
        task.loss().backward()
    after = arrays(task.model)
    assert all(np.array_equal(inside[name], compressed.get(name, before[name])) for name in before)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    gradient = task.model[0].weight.grad.numpy().copy()
    optimizer.step()
    assert arrays(task.model)["0.weight"] == pytest.approx(before["0.weight"] - 0.1 * gradient, abs=1e-7)


@pytest.mark.parametrize("codec", ["uniform", "trellis"])
def test_straight_through_wins_back_what_quantisation_costs(codec, task):
    optimizer = torch.optim.Adam(task.model.parameters(), 0.02)
    task.losses(120, optimizer)
    allowed = ["uniform", "exact"] if codec == "uniform" else ["trellis", "uniform", "exact"]  # biases are too short
    plan = plan_of(arrays(task.model), 0.1, allowed)
    straight = train.StraightThrough(task.model, train.CodecProjection(plan))
    with straight.projected():
        at_once = task.loss().item()
    optimizer = torch.optim.Adam(task.model.parameters(), 0.005)
    for _ in range(40):
        optimizer.zero_grad()
        with straight.projected():
            task.loss().backward()
        optimizer.step()
    straight.harden()
    assert task.loss().item() < at_once
    hard = {name: w for name, w in arrays(task.model).items() if w.any()}  # four biases may all be zeros by now
    assert {"0.weight", "2.weight"} <= hard.keys()
    archive = nw.encode(hard, replace(plan, choices={name: plan.choices[name] for name in hard}))
    assert archive.nbytes > 0


def test_a_held_projection_serves_several_passes(task):
    calls = []

    def project(tensors):
        calls.append(1)
        return {"0.weight": np.round(tensors["0.weight"])}

    straight = train.StraightThrough(task.model, project, every=3)
    for _ in range(7):
        with straight.projected():
            pass
    assert len(calls) == 3
    with pytest.raises(UsageError, match="every=1 or more"):
        train.StraightThrough(task.model, project, every=0)


def test_between_two_projections_the_error_is_held_and_the_weights_are_seen_to_move(task):
    straight = train.StraightThrough(task.model, lambda t: {"0.weight": np.round(t["0.weight"])}, every=2)
    before = arrays(task.model)["0.weight"]
    with straight.projected():
        error = arrays(task.model)["0.weight"] - before
    with torch.no_grad():
        task.model[0].weight.add_(0.125)
    with straight.projected():
        assert arrays(task.model)["0.weight"] == pytest.approx(before + 0.125 + error, abs=1e-6)
    with straight.projected():
        assert np.array_equal(arrays(task.model)["0.weight"], np.round(before + np.float32(0.125)))


def test_an_error_inside_leaves_the_real_weights(task):
    straight = train.StraightThrough(task.model, lambda t: {"0.weight": 0 * t["0.weight"]})
    before = arrays(task.model)
    with straight.projected():
        assert straight.inside
        with pytest.raises(UsageError, match="Save outside"):
            straight.state_dict()
    with pytest.raises(ZeroDivisionError), straight.projected():
        1 / 0  # noqa: B018
    assert all(np.array_equal(w, before[name]) for name, w in arrays(task.model).items())


class Quadratic(torch.nn.Module):
    """f(w) = 1/2 (w - w0)^T A (w - w0)."""

    A = torch.tensor([[2.0, 1.8, 0.0], [1.8, 2.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    START = torch.tensor([1.0, 0.9, 0.95], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(self.START.clone())

    def forward(self) -> torch.Tensor:
        return 0.5 * (self.w - self.START) @ self.A @ (self.w - self.START)


def largest_two(tensors):
    return {"w": np.where(train.magnitude(tensors, 2 / 3)["w"], tensors["w"], np.float32(0))}


def test_admm_finds_the_best_support_where_magnitude_does_not():
    """The three supports of two weights lose .45125, .1539 and .19 at best; cutting the smallest loses .81."""
    cut = Quadratic()
    with torch.no_grad():
        cut.w.copy_(torch.from_numpy(largest_two({"w": cut.w.detach().float().numpy()})["w"]))
    assert cut().item() == pytest.approx(0.81, abs=1e-6)
    model = Quadratic()
    admm = train.Admm(model, largest_two, rho=1.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    for _ in range(200):
        for _ in range(25):
            optimizer.zero_grad()
            model().backward()
            admm.penalise()
            optimizer.step()
        admm.update()
    assert admm.gap < 1e-3
    admm.harden()
    assert model.w.detach().numpy() == pytest.approx([1.81, 0.0, 0.95], abs=2e-3)
    assert model().item() == pytest.approx(0.1539, abs=1e-3)


def test_admm_with_a_codec_comes_to_rest_in_what_the_codec_can_write(task):
    optimizer = torch.optim.Adam(task.model.parameters(), 0.02)
    task.losses(100, optimizer)
    plan = plan_of(arrays(task.model), 0.3, ["uniform", "exact"])
    project = train.CodecProjection(plan)
    start = arrays(task.model)
    first = {name: project(start)[name] for name in project(start)}
    admm = train.Admm(task.model, project, rho=0.03)
    optimizer = torch.optim.SGD(task.model.parameters(), 0.1, momentum=0.9)
    begin = admm.gap
    for _ in range(20):
        for _ in range(20):
            optimizer.zero_grad()
            task.loss().backward()
            admm.penalise()
            optimizer.step()
        admm.update()
        admm.rho = 1.1 * admm.rho
    assert admm.gap < 0.1 * begin
    admm.harden()
    trained = task.loss().item()
    train.tensors.write(dict(task.model.named_parameters()), {**start, **first})
    assert trained < 0.7 * task.loss().item()


def test_a_changed_pull_keeps_the_multiplier(task):
    admm = train.Admm(task.model, lambda t: {"0.weight": np.round(t["0.weight"])}, rho=0.5)
    admm.update()
    before = {name: admm.rho * u for name, u in admm.state_dict()["u"].items()}
    admm.rho = 2.0
    after = {name: admm.rho * u for name, u in admm.state_dict()["u"].items()}
    assert before["0.weight"].abs().max() > 0
    assert all(torch.allclose(before[name], after[name]) for name in before)
    with pytest.raises(UsageError, match="does not pull"):
        admm.rho = 0.0


def test_pruning_is_a_projection_too(task):
    admm = train.Admm(task.model, train.pruning(train.magnitude, 0.25), rho=1.0, names=["0.weight", "2.weight"])
    admm.harden()
    weights = [task.model[0].weight, task.model[2].weight]
    assert sum(int((w != 0).sum()) for w in weights) == round(0.25 * sum(w.numel() for w in weights))
