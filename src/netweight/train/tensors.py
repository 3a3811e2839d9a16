"""Parameters of a model as NumPy arrays, and back."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from netweight.errors import UsageError


def chosen(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Parameters by name.

    Raises:
        UsageError: the model has no parameter of a name.
    """
    known = dict(model.named_parameters(remove_duplicate=False))
    names = list(names)
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(
            f"The model has no parameter {missing[0]!r}, and {len(missing)} of {len(names)} names are unknown to it.",
            "Take the names of model.named_parameters().",
        )
    return {name: known[name] for name in names}


def array_of(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Give a copy in float32."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()


def write(parameters: Mapping[str, nn.Parameter], values: Mapping[str, NDArray[np.float32]]) -> None:
    """Set parameters in place, outside of autograd."""
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))
