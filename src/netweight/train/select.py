"""Which weights may be pruned, and the plainest choice among them."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from netweight.importance.stat import Stat
from netweight.prune import masks

Arrays = Mapping[str, NDArray[np.float32]]
# (weights, density) -> kept: booleans in the shape of each; density counts over all of them together.
Choose = Callable[[Arrays, float], Mapping[str, NDArray[np.bool_]]]


def prunable(model: nn.Module) -> list[str]:
    """Give the names of the parameters of two axes or more: weights of linear layers, convolutions and embeddings.

    Args:
        model: in the order of its parameters; biases and norms are left alone, they are few and matter much.

    >>> prunable(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    ['0.weight']
    """
    return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


def magnitude(weights: Arrays, density: float) -> dict[str, NDArray[np.bool_]]:
    """Keep the weights of the largest magnitudes, one threshold for all tensors: `netweight.prune`'s "global".

    Args:
        weights: by name.
        density: share to keep, in [0, 1].

    Raises:
        UsageError: `density` is not in [0, 1].

    >>> magnitude({"a": np.array([3.0, -1.0], np.float32), "b": np.array([-2.0, 0.5], np.float32)}, 0.5)
    {'a': array([ True, False]), 'b': array([ True, False])}
    """
    return masks(weights, density, "global")


def chooser(method: str, importance: Mapping[str, Stat] | None = None) -> Choose:
    """Give any method of `netweight.prune.masks` as a choice.

    Args:
        method: "lamp", "erk", "surp" and so on, see `netweight.prune.METHODS`.
        importance: of the tensors that may be pruned, for the methods that need it.

    >>> chooser("uniform")({"a": np.array([3.0, -1.0], np.float32)}, 0.5)
    {'a': array([ True, False])}
    """
    return partial(masks, method=method, importance=importance)
