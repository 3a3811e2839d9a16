"""Straight-through training: gradients at the compressed weights, steps on the weights behind them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from netweight.errors import UsageError
from netweight.train.projection import Projection
from netweight.train.tensors import array_of, chosen, write


class StraightThrough:
    """Let a model compute with projected weights while the optimiser moves the real ones.

        w <- w - lr grad L(w'),   w' = project(w)

    Args:
        model: its parameters are exchanged in place.
        project: such as `CodecProjection`.
        names: parameters to project; all if None.
        every: how many forward passes share one projection. Between two the error w' - w is held, not w': gradients
            that did not see the weights move would add up to steps that are far too large.

    Source: Bengio, Leonard, Courville 2013.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> straight = StraightThrough(layer, lambda tensors: {"weight": tensors["weight"].round()})
    >>> _ = layer.weight.data.fill_(0.75)
    >>> with straight.projected():
    ...     inside = layer.weight.item()
    >>> inside, layer.weight.item()
    (1.0, 0.75)
    """

    __slots__ = ("_behind", "_calls", "_held", "_parameters", "every", "project")

    def __init__(
        self, model: nn.Module, project: Projection, *, names: Iterable[str] | None = None, every: int = 1
    ) -> None:
        if every < 1:
            raise UsageError(f"A projection cannot serve {every} passes.", "Take every=1 or more.")
        own = [name for name, _ in model.named_parameters()] if names is None else names
        self._parameters = chosen(model, own)
        self.project, self.every = project, every
        self._behind: dict[str, torch.Tensor] = {}
        self._held: dict[str, torch.Tensor] = {}
        self._calls = 0

    @property
    def inside(self) -> bool:
        """Whether the model has its projected weights now."""
        return bool(self._behind)

    def exchange(self) -> None:
        """Put the projected weights into the model; does nothing where they are in it."""
        if self.inside:
            return
        anew = not self._held or self._calls % self.every == 0
        found: dict[str, torch.Tensor] = {}
        if anew:
            arrays = {name: array_of(p) for name, p in self._parameters.items()}
            projected = self.project(arrays)
            found = {name: torch.from_numpy(value) for name, value in projected.items()}
            self._held = {name: value - torch.from_numpy(arrays[name]) for name, value in found.items()}
        self._calls += 1
        with torch.no_grad():
            self._behind = {name: self._parameters[name].detach().clone() for name in self._held}
            for name, error in self._held.items():
                if anew:
                    self._parameters[name].copy_(found[name])
                else:
                    self._parameters[name].add_(error.to(self._parameters[name].device))

    def restore(self) -> None:
        """Put the weights behind back; does nothing where they are in the model."""
        with torch.no_grad():
            for name, value in self._behind.items():
                self._parameters[name].copy_(value)
        self._behind = {}

    @contextmanager
    def projected(self) -> Iterator[None]:
        """Compute with projected weights: forward and backward belong inside, the optimiser's step outside."""
        self.exchange()
        try:
            yield
        finally:
            self.restore()

    def harden(self) -> None:
        """End the training: the model keeps the projection of its weights."""
        self.restore()
        write(self._parameters, self.project({name: array_of(p) for name, p in self._parameters.items()}))
        self._held = {}

    def state_dict(self) -> dict[str, object]:
        """What the next passes depend on; the model must have its real weights.

        Raises:
            UsageError: the projected weights are in the model, which a checkpoint would take for the real ones.
        """
        if self.inside:
            raise UsageError("The model has its projected weights now.", "Save outside of `projected`.")
        return {"calls": self._calls, "held": dict(self._held)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on as the one that gave this state would have."""
        calls, held = state["calls"], state["held"]
        assert isinstance(calls, int)
        assert isinstance(held, dict)
        self._calls, self._held, self._behind = calls, dict(held), {}
