"""Prune, retrain, prune again."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from netweight.train.masks import Masks
from netweight.train.schedule import KEEP, sparsity
from netweight.train.select import Choose, prunable
from netweight.train.tensors import array_of, chosen


class Pruner:
    """Iterative pruning: round k leaves keep^k of the weights, and what was pruned stays pruned.

    Args:
        model: pruned in place.
        choose: (weights, density) -> kept; see `magnitude`. The weights it sees are those of the moment, with the zeros
            of the rounds before.
        keep: share of the weights that are left after each round.
        names: parameters that may be pruned; those of two axes or more if None.

    Source: the schedule of Lee et al. 2021 (LAMP) and Isik et al. 2022.

    >>> from netweight.train.select import magnitude
    >>> pruner = Pruner(nn.Linear(10, 10), magnitude)
    >>> pruner.step(), round(pruner.step(), 2)
    (0.8, 0.64)
    """

    __slots__ = ("choose", "keep", "masks", "model", "round")

    def __init__(
        self, model: nn.Module, choose: Choose, *, keep: float = KEEP, names: Iterable[str] | None = None
    ) -> None:
        sparsity(0, keep)
        self.model, self.choose, self.keep, self.round = model, choose, keep, 0
        parameters = chosen(model, prunable(model) if names is None else names)
        self.masks = Masks(model, {name: np.ones(tuple(p.shape), bool) for name, p in parameters.items()})

    def step(self) -> float:
        """Prune to the density of the next round and give the density reached.

        It is lower than keep^round where `choose` asks for weights that are gone already.
        """
        self.round += 1
        return self.prune_to(self.keep**self.round)

    def prune_to(self, density: float) -> float:
        """Prune to a density of your own and give the density reached.

        Args:
            density: share of all prunable weights to keep, zeros of earlier rounds counted.
        """
        before = self.masks.kept
        parameters = chosen(self.model, before)
        now = self.choose({name: array_of(p) * before[name] for name, p in parameters.items()}, density)
        self.masks.set({name: before[name] & now[name] for name in before})
        self.masks.apply()
        return self.masks.density

    def state_dict(self) -> dict[str, Any]:
        """Round and masks."""
        return {"round": self.round, "masks": self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take round and masks from `state_dict`."""
        self.masks.load_state_dict(state["masks"])
        self.round = int(state["round"])
