"""Stop, go on, and be where one would have been."""

import os

import numpy as np
import pytest
import torch

import netweight as nw
from netweight import train
from netweight.errors import FormatError, UsageError


class Run:
    """Everything that a loop with dropout, momentum, pruning, projections and ADMM depends on."""

    def __init__(self, make):
        self.task = make()
        self.task.model.insert(2, torch.nn.Dropout(0.2))
        self.optimizer = torch.optim.Adam(self.task.model.parameters(), 0.01)
        self.random = torch.Generator().manual_seed(5)
        self.pruner = train.Pruner(self.task.model, train.magnitude)
        self.pruner.masks.attach(self.optimizer)
        weights = {name: p.detach().numpy() for name, p in self.task.model.named_parameters()}
        plan = nw.allocate(nw.sweep(weights, codecs=["uniform", "exact"]), loss=0.2)
        project = train.CodecProjection(plan)
        self.straight = train.StraightThrough(self.task.model, project, every=4)
        self.admm = train.Admm(self.task.model, project, rho=1e-3)

    def parts(self):
        return {
            "model": self.task.model,
            "optimizer": self.optimizer,
            "random": self.random,
            "torch": torch.default_generator,
            "pruner": self.pruner,
            "straight": self.straight,
            "admm": self.admm,
        }

    def go(self, first: int, last: int) -> list[float]:
        out = []
        for step in range(first, last):
            if step % 5 == 0:
                self.pruner.step()
                self.admm.update()
            chosen = torch.randint(256, (64,), generator=self.random)
            self.optimizer.zero_grad()
            with self.straight.projected():
                logits = self.task.model(self.task.x[chosen])
                loss = torch.nn.functional.cross_entropy(logits, self.task.y[chosen])
                loss.backward()
            self.admm.penalise()
            self.optimizer.step()
            out.append(loss.item())
        return out


@pytest.fixture
def one_thread():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_a_resumed_run_is_the_same_bit_by_bit(make, tmp_path, one_thread):
    torch.manual_seed(3)
    whole = Run(make)
    losses = whole.go(0, 13)
    train.save(tmp_path / "at13.pt", **whole.parts(), step=13)
    rest = whole.go(13, 30)

    torch.manual_seed(99)  # another place in another process
    again = Run(make)
    again.go(0, 2)
    step = train.resume(tmp_path / "at13.pt", **again.parts())["step"]
    assert step == 13
    assert again.go(step, 30) == rest
    for (name, a), b in zip(whole.task.model.named_parameters(), again.task.model.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy()), name
    assert again.pruner.round == whole.pruner.round == 6
    assert len(set(losses + rest)) == 30, "the steps differ, so equality says something"


@pytest.mark.parametrize("lost", ["optimizer", "random", "torch", "pruner", "straight", "admm"])
def test_every_part_matters(lost, make, tmp_path, one_thread):
    """Without any one part the continuation is another: the test above can fail."""
    torch.manual_seed(3)
    whole = Run(make)
    whole.go(0, 13)
    train.save(tmp_path / "at13.pt", **whole.parts())
    rest = whole.go(13, 30)
    torch.manual_seed(99)
    again = Run(make)
    parts = {name: part for name, part in again.parts().items() if name != lost}
    train.resume(tmp_path / "at13.pt", **parts)
    assert again.go(13, 30) != rest


def test_messages(task, tmp_path):
    path = tmp_path / "x.pt"
    train.save(path, model=task.model)
    with pytest.raises(UsageError, match="exists"):
        train.save(path, model=task.model)
    train.save(path, model=task.model, epoch=2, force=True)
    assert train.resume(path, model=task.model) == {"epoch": 2}
    with pytest.raises(UsageError, match=r"has no optimizer\.\nIt has model, epoch"):
        train.resume(path, model=task.model, optimizer=torch.optim.SGD(task.model.parameters()))
    with pytest.raises(UsageError, match="There is no file"):
        train.resume(tmp_path / "y.pt", model=task.model)
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])
    with pytest.raises(FormatError, match="refused by the safe loader"):
        train.resume(path, model=task.model)
    torch.save({"model": Run}, path)
    with pytest.raises(FormatError, match="refused by the safe loader"):
        train.resume(path, model=task.model)
