"""ADMM: training under a constraint that has a projection."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from netweight.errors import UsageError
from netweight.train.projection import Projection
from netweight.train.tensors import array_of, chosen, write


class Admm:
    """Pull a model towards the nearest network of a family while it trains.

        w <- argmin f(w) + rho/2 |w - z + u|^2      your loop, with `penalise` between backward and step
        z <- project(w + u),  u <- u + w - z        `update`, every epoch or so

    At the end `harden` sets w = project(w). Works for pruning and for every codec, alone or one after the other.

    Args:
        model: trained by you.
        project: such as `CodecProjection` or `pruning(magnitude, 0.1)`.
        rho: pull; gradients of f are its scale. May be changed on the way, u is rescaled.
        names: parameters under the constraint; all if None.

    Raises:
        UsageError: rho is not positive.

    Source: Boyd et al. 2011, section 3.1.1; for networks Yuan et al. 2019 and Idelbayev, Carreira-Perpinan 2020.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> _ = layer.weight.data.fill_(0.75)
    >>> admm = Admm(layer, lambda tensors: {"weight": tensors["weight"].round()}, rho=2.0)
    >>> layer.weight.grad = torch.zeros(1, 1)
    >>> admm.penalise()
    >>> layer.weight.grad.item(), admm.gap
    (-0.5, 0.25)
    """

    __slots__ = ("_parameters", "_rho", "_u", "_z", "project")

    def __init__(
        self, model: nn.Module, project: Projection, *, rho: float, names: Iterable[str] | None = None
    ) -> None:
        own = [name for name, _ in model.named_parameters()] if names is None else names
        self._parameters = chosen(model, own)
        self.project, self._rho = project, _positive(rho)
        self._z = self._projected({name: p.detach() for name, p in self._parameters.items()})
        self._u = {name: torch.zeros_like(z) for name, z in self._z.items()}

    @property
    def rho(self) -> float:
        """The pull."""
        return self._rho

    @rho.setter
    def rho(self, value: float) -> None:
        ratio = self._rho / _positive(value)
        self._rho = value
        for u in self._u.values():
            u.mul_(ratio)  # u is the multiplier divided by rho

    @property
    def gap(self) -> float:
        """Root mean square of w - z: how far the model is from the family."""
        self._follow()
        square = sum(float((self._parameters[name].detach() - z).square().sum()) for name, z in self._z.items())
        return float((square / sum(z.numel() for z in self._z.values())) ** 0.5)

    def penalise(self) -> None:
        """Add rho (w - z + u) to the gradients."""
        self._follow()
        with torch.no_grad():
            for name, z in self._z.items():
                parameter = self._parameters[name]
                pull = (parameter - z + self._u[name]).mul_(self._rho)
                if parameter.grad is None:
                    parameter.grad = pull
                else:
                    parameter.grad.add_(pull)

    def update(self) -> None:
        """Project anew and move the multipliers."""
        self._follow()
        with torch.no_grad():
            moved = {name: self._parameters[name].detach() + u for name, u in self._u.items()}
            self._z = self._projected(moved)
            self._u = {name: moved[name] - z for name, z in self._z.items()}

    def harden(self) -> None:
        """End the training: the model becomes the projection of its weights."""
        write(self._parameters, self.project({name: array_of(p) for name, p in self._parameters.items()}))

    def _follow(self) -> None:
        """Be on the device where the parameters are now: models move after this was made."""
        for state in (self._z, self._u):
            for name, tensor in state.items():
                state[name] = tensor.to(self._parameters[name].device)

    def _projected(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = self.project({name: array_of(tensor) for name, tensor in tensors.items()})
        return {name: torch.from_numpy(value).to(self._parameters[name]) for name, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """Targets, multipliers and the pull."""
        return {"rho": self._rho, "z": dict(self._z), "u": dict(self._u)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as the one that gave this state would have."""
        self._rho = _positive(float(state["rho"]))
        self._z = {name: z.to(self._parameters[name]).clone() for name, z in state["z"].items()}
        self._u = {name: u.to(self._parameters[name]).clone() for name, u in state["u"].items()}


def _positive(rho: float) -> float:
    if not rho > 0:
        raise UsageError(f"A pull of {rho:g} does not pull.", "Take a positive rho, 1e-3 to begin with.")
    return rho
