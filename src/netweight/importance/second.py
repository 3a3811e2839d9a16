"""Second derivatives of a user's loss, by autograd itself: no formulas of layers, so it takes its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from netweight.errors import UsageError
from netweight.importance.cotangents import Head
from netweight.importance.samples import Batch, output_of
from netweight.importance.sums import Sums

__all__ = ["Fourth", "Hutchinson"]

Forward = Callable[[nn.Module, Any], Any]


class _Autograd:
    """What both have in common: parameters that want gradients, and sums of their shape."""

    def __init__(self, model: nn.Module, forward: Forward, wanted: Callable[[str], bool], mu: float) -> None:
        self.model, self.forward, self.mu = model, forward, mu
        self.samples, self.predictions, self.data = 0, 0.0, 0
        self.parameters = {n: p for n, p in model.named_parameters() if wanted(n) and p.is_floating_point()}
        self.diagonal = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in self.parameters.items()}
        self.quartic: dict[str, Tensor] = {}

    def add(self, batch: Batch) -> None:
        """Measure a batch."""
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        try:
            self._measure(batch)
        finally:
            for parameter in self.parameters.values():
                parameter.requires_grad_(False)
        self.samples += batch.count
        self.predictions += float(batch.count)
        self.data += batch.data

    def _measure(self, batch: Batch) -> None:
        raise NotImplementedError

    def _gradients(self, z: Tensor, u: Tensor | None = None) -> list[tuple[str, Tensor]]:
        found: Any = torch.autograd.grad(z, list(self.parameters.values()), u, retain_graph=True, allow_unused=True)
        return [(n, g.detach().double()) for n, g in zip(self.parameters, found, strict=True) if g is not None]

    def sums(self) -> dict[str, tuple[Sums, ...]]:
        """Give what was collected."""
        out: dict[str, tuple[Sums, ...]] = {}
        for name, total in self.diagonal.items():
            quartic = self.quartic[name].cpu().numpy() if name in self.quartic else None
            out[name] = (Sums(tuple(total.shape), diagonal=total.cpu().numpy(), quartic=quartic),)
        return out


class Hutchinson(_Autograd):
    """Diagonal of the Hessian, E[v (H v)] with signs v drawn at random; mu is added to each sample's.

    Args:
        model: in evaluation mode.
        forward: calls it on a batch.
        wanted: whether to measure the tensor of a name.
        mu: floor.
        head: with the user's loss, the draws and their seed.
    """

    def __init__(
        self, model: nn.Module, forward: Forward, wanted: Callable[[str], bool], mu: float, head: Head
    ) -> None:
        super().__init__(model, forward, wanted, mu)
        self.head = head

    def _measure(self, batch: Batch) -> None:
        assert callable(self.head.loss)
        losses = self.head.loss(output_of(self.forward(self.model, batch.value)), batch.value)
        if losses.shape != (batch.count,):
            raise UsageError(
                f"The loss gave {list(losses.shape)} for {batch.count} samples.", "Return one loss for each sample."
            )
        names, parameters = list(self.parameters), list(self.parameters.values())
        first: Any = torch.autograd.grad(losses.sum(), parameters, create_graph=True, allow_unused=True)
        used = [j for j, g in enumerate(first) if g is not None and g.requires_grad]
        generator = batch.random(self.head.seed, 0)
        for _ in range(self.head.draws):
            signs = []
            for j in used:
                drawn = 2 * generator.integers(0, 2, tuple(parameters[j].shape)) - 1
                signs.append(torch.from_numpy(drawn).to(parameters[j]))
            second = torch.autograd.grad(
                [first[j] for j in used], [parameters[j] for j in used], signs, retain_graph=True, allow_unused=True
            )
            for j, v, hv in zip(used, signs, second, strict=True):
                if hv is not None:
                    self.diagonal[names[j]] += (v * hv).double() / self.head.draws
        for total in self.diagonal.values():
            total += self.mu * batch.count


class Fourth(_Autograd):
    """Squared gradient of each sample's loss, and a quarter of its squared second derivative (Gauss-Newton, + mu).

    Args:
        model: in evaluation mode.
        forward: calls it on a batch.
        wanted: whether to measure the tensor of a name.
        mu: floor.
        gradient: the user's loss, to be differentiated once.
        curvature: the same, twice.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        wanted: Callable[[str], bool],
        mu: float,
        gradient: Head,
        curvature: Head,
    ) -> None:
        super().__init__(model, forward, wanted, mu)
        self.gradient, self.curvature = gradient, curvature
        self.quartic = {n: torch.zeros_like(total) for n, total in self.diagonal.items()}

    def _measure(self, batch: Batch) -> None:
        for single in batch.singles():
            z = output_of(self.forward(self.model, single.value))
            (u,) = self.gradient.vectors(z, single)
            for name, g in self._gradients(z, u):
                self.diagonal[name] += g.square()
            h = {name: torch.full_like(total, self.mu) for name, total in self.quartic.items()}
            for u in self.curvature.vectors(z, single):
                for name, g in self._gradients(z, u):
                    h[name] += g.square()
            for name, second in h.items():
                self.quartic[name] += second.square() / 4
