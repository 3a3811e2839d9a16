"""A small task that trains in a second."""

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")


@dataclass
class Task:
    model: torch.nn.Module
    x: torch.Tensor
    y: torch.Tensor

    def loss(self) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.model(self.x), self.y)

    def losses(self, count: int, optimizer: torch.optim.Optimizer) -> list[float]:
        """Plain steps."""
        out = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            optimizer.step()
            out.append(loss.item())
        return out


def make_task(seed: int = 0) -> Task:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(256, 20, generator=random)
    y = (x @ torch.randn(20, 4, generator=random)).argmax(1)
    model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return Task(model, x, y)


@pytest.fixture
def task() -> Task:
    return make_task()


@pytest.fixture
def make():
    return make_task
