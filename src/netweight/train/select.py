"""Which weights may be pruned, and the plainest choice among them."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from netweight.errors import UsageError

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
    """Keep the weights of the largest magnitudes, one threshold for all tensors; of equal ones the first.

    Args:
        weights: by name.
        density: share to keep, in [0, 1].

    Raises:
        UsageError: `density` is not in [0, 1].

    >>> magnitude({"a": np.array([3.0, -1.0], np.float32), "b": np.array([-2.0, 0.5], np.float32)}, 0.5)
    {'a': array([ True, False]), 'b': array([ True, False])}
    """
    if not 0 <= density <= 1:
        raise UsageError(f"A share of {density:g} of the weights cannot be kept.", "Take one from 0 to 1.")
    flat = np.concatenate([np.abs(w).reshape(-1) for w in weights.values()])
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[: round(density * flat.size)]] = True
    out, at = {}, 0
    for name, w in weights.items():
        out[name] = kept[at : at + w.size].reshape(w.shape)
        at += w.size
    return out
